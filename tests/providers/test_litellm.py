"""litellm rewrites and nothing else. Its golden files are run by `test_contract.py`, where litellm is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from shared.errors import ConfigError, ErrorKind, ProviderError
from shared.providers import Call, Deployment, HttpResponse
from shared.providers import litellm as speaks
from shared.providers._litellm_plan import VENDORS

INSTALLED = find_spec("litellm") is not None
needs_litellm = pytest.mark.skipif(not INSTALLED, reason="needs litellm: pip install 'sluice[litellm]'")
URL = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


@needs_litellm
@pytest.mark.parametrize("vendor", ["mistral", "snowflake", "perplexity"])
@pytest.mark.parametrize(
    "raw", [b"", b"null", b"{}", b"[]", b'{"choices": []}', b'{"choices": [7]}', b"\xff\0", b"<html>"]
)
def test_what_is_no_answer_is_an_error(vendor: str, raw: bytes) -> None:
    call = Call(URL, {"model": f"{vendor}/some", "messages": HI, "stream": True}, "job_1-1")
    assert isinstance(speaks.completion(HttpResponse(200, {}, raw), call), ProviderError)
    reader = speaks.stream(HttpResponse(200, {}, b""), call)
    reader.feed(b"data: " + raw + b"\n\n")
    assert isinstance(reader.end(), ProviderError)
    assert isinstance(speaks.error(HttpResponse(500, {}, raw)), ProviderError)


@needs_litellm
def test_an_error_in_disguise_is_one() -> None:
    raw = orjson.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    found = speaks.completion(
        HttpResponse(200, {}, raw), Call(URL, {"model": "mistral/some", "messages": HI}, "job_1-1")
    )
    assert isinstance(found, ProviderError)
    assert found.kind is ErrorKind.RATE_LIMITED


@needs_litellm
@pytest.mark.parametrize("target", ["openrouter/some", "snowflake/some"])
def test_a_vendor_without_an_address_needs_one_and_its_key_goes_nowhere_else(target: str) -> None:
    call = Call(URL, {"model": target, "messages": HI}, "job_1-1")
    assert speaks.faults(call) == []
    with pytest.raises(ConfigError, match="base_url") as raised:
        speaks.request(call, Deployment("others", "litellm", "", target), "secret-key")
    assert "secret-key" not in str(raised.value)


@needs_litellm
def test_the_address_litellm_knows_is_used_without_a_base_url() -> None:
    call = Call(URL, {"model": "others/mistral/some", "messages": HI}, "job_1-1")
    found = speaks.request(call, Deployment("others", "litellm", "", "mistral/some"), "secret-key")
    assert found.url == "https://api.mistral.ai/v1/chat/completions"
    assert orjson.loads(found.body)["model"] == "some"


def test_a_call_that_names_no_vendor_is_a_fault_and_its_answer_an_error() -> None:
    call = Call(URL, {"model": "fast", "messages": HI}, "job_1-1")
    assert [fault.param for fault in speaks.faults(call)] == ["body.model"]
    assert isinstance(speaks.completion(HttpResponse(200, {}, b"{}"), call), ProviderError)
    reader = speaks.stream(HttpResponse(200, {}, b""), call)
    reader.feed(b"data: {}\n\n")
    assert isinstance(reader.end(), ProviderError)
    with pytest.raises(ConfigError):
        speaks.request(call, Deployment("others", "litellm", "", "mistral/some"), None)


@pytest.mark.skipif(INSTALLED, reason="litellm is installed")
def test_without_litellm_it_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'sluice\[litellm\]'"):
        speaks.faults(Call(URL, {"model": "mistral/some", "messages": HI}, "job_1-1"))


WATCHED = """
import base64, sys
opened = []
def watch(event, _):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system"}:
        opened.append(event)
        raise RuntimeError(event)
sys.addaudithook(watch)
import orjson
from shared.providers import Call, Completion, Deployment, HttpResponse, litellm
from shared.providers._litellm_plan import VENDORS
image = "data:image/png;base64," + base64.b64encode(b"\\x89PNG\\r\\n").decode()
parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": image}}]
message = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
delta = {"index": 0, "delta": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
whole = {"id": "a", "object": "chat.completion", "created": 1, "model": "some", "choices": [message], "usage": usage}
chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "some", "choices": [delta]}
for vendor in sorted(VENDORS):
    for stream in (False, True):
        for content in ("hi", parts):
            messages = [{"role": "user", "content": content}]
            body = {"model": vendor + "/some", "messages": messages, "stream": stream}
            call = Call("/v1/chat/completions", body, "job_1-1")
            assert not litellm.faults(call), vendor
            where = Deployment("others", "litellm", "https://upstream.example/base", vendor + "/some")
            sent = litellm.request(call, where, "secret-key")
            assert sent.url.startswith(where.base_url), (vendor, sent.url)
            assert "secret-key" in str(sent.headers), vendor
            if stream:
                reader = litellm.stream(HttpResponse(200, {}, b""), call)
                reader.feed(b"data: " + orjson.dumps(chunk) + b"\\n\\ndata: [DONE]\\n\\n")
                found = reader.end()
            else:
                found = litellm.completion(HttpResponse(200, {}, orjson.dumps(whole)), call)
            assert isinstance(found, Completion), (vendor, stream, found)
            assert orjson.loads(found.body)["choices"][0]["message"]["content"] == "hello", (vendor, found.body)
    assert not opened, (vendor, opened)
print("watched", len(VENDORS))
"""


@needs_litellm
def test_litellm_opens_no_connection_for_any_vendor_listed() -> None:
    # A process of its own: what watches it can not be taken away again.
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", WATCHED], cwd=root, capture_output=True, text=True, timeout=120)
    assert ran.stdout == f"watched {len(VENDORS)}\n", ran.stdout + ran.stderr[-2000:]
