"""What golden files cannot say of those who speak OpenAI's dialect: the table itself, and any request to any row."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params

from shared.errors import ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, Usage, adapter
from shared.providers import openai_compatible as speaks
from shared.providers._vendors import ALONE, UNSAID, VENDORS
from tests.providers import golden

PARAMETERS = completion_create_params.CompletionCreateParamsBase.__annotations__.keys() | {"stream"}
READ_ALIKE = ["azure_openai", "mistral", "openai_compatible"]
VALUES = st.sampled_from([None, 0, 1, 2, True, False, "auto", "none", "required", "x", [], ["text"], {}, {"a": 1}])
BODIES = st.dictionaries(st.sampled_from(sorted(PARAMETERS - {"messages", "model"})), VALUES, max_size=8)


def answer(status: int, body: Any) -> HttpResponse:
    return HttpResponse(status, {}, orjson.dumps(body))


@pytest.mark.parametrize("kind", VENDORS)
def test_a_row_names_what_there_is(kind: str) -> None:
    row = VENDORS[kind]
    assert row.refuses | row.takes <= PARAMETERS
    assert row.takes <= ALONE | UNSAID
    assert not row.refuses & (ALONE | UNSAID)
    assert bool(row.base_url) is (kind != "cloudflare"), "whose address names the account"
    assert row.thought in ("reasoning", "reasoning_content")


def test_no_two_rows_are_at_one_address() -> None:
    addresses = [row.base_url for row in VENDORS.values()]
    assert len(set(addresses)) == len(addresses)


def test_what_has_no_embeddings_does_not_serve_them() -> None:
    assert "/v1/embeddings" in adapter("together").ROUTES
    assert "/v1/embeddings" not in adapter("groq").ROUTES
    assert adapter("cloudflare").DEFAULT_BASE_URL == speaks.DEFAULT_BASE_URL == ""


@given(st.sampled_from(sorted(VENDORS)), BODIES)
def test_what_is_no_fault_is_sent_or_says_nothing(kind: str, asked: dict[str, Any]) -> None:
    vendor, row = adapter(kind), VENDORS[kind]
    body = {**golden.PLAIN, **asked}
    before = orjson.dumps(body)
    call = Call(golden.CHAT, body, "job_1-1")
    faults = {fault.param for fault in vendor.faults(call)}
    request = vendor.request(call, Deployment(kind, kind, "https://upstream.example", "small"), "secret-key")
    sent = orjson.loads(request.body)
    assert orjson.dumps(body) == before
    assert None not in sent.values()
    assert sent["model"] == "small"
    refused = (ALONE | row.refuses) - row.takes
    assert {param.removeprefix("body.") for param in faults} <= refused | {"response_format"}
    for name, value in asked.items():
        if name in refused:
            assert name not in sent
        elif value is None or name in UNSAID - row.takes or name in ("max_tokens", "stream_options"):
            continue
        elif name == "max_completion_tokens" and not row.completion_limit:
            assert sent["max_tokens"] == value
        else:
            assert sent[name] == value
    dropped = {name: value for name, value in body.items() if f"body.{name}" not in faults}
    assert vendor.faults(Call(golden.CHAT, dropped, "job_1-1")) == []


@pytest.mark.parametrize("messages", ["x", None, [None], ["x"], [{"role": 5, "name": 7, "reasoning_content": []}], {}])
def test_messages_that_are_none_break_nothing(messages: Any) -> None:
    for kind in VENDORS:
        call = Call(golden.CHAT, {"model": "m", "messages": messages}, "job_1-1")
        adapter(kind).faults(call)
        adapter(kind).request(call, Deployment(kind, kind, "https://upstream.example", "small"), None)


@pytest.mark.parametrize("key", ["gsk_abcdefghijkl", "xai-abcdefghijkl", "nvapi-abc-def_ghi", "hf_abcdefghijkl"])
def test_no_key_is_in_a_message(key: str) -> None:
    for body in ({"error": f"wrong key {key}."}, {"error": {"message": f"wrong key {key}."}}, {"detail": key}):
        assert key not in speaks.error(answer(401, body)).message


def test_reasoning_that_is_besides_the_output_is_added_once() -> None:
    def usage(**counts: Any) -> Usage:
        body = {"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": counts}
        found = speaks.completion(answer(200, body), Call(golden.CHAT, golden.PLAIN, "job_1-1"))
        assert isinstance(found, Completion)
        return found.usage

    details = {"reasoning_tokens": 4}
    within = usage(prompt_tokens=10, completion_tokens=6, total_tokens=16, completion_tokens_details=details)
    assert within == Usage(input=10, output=6, reasoning=4)
    besides = usage(prompt_tokens=10, completion_tokens=6, total_tokens=20, completion_tokens_details=details)
    assert besides == Usage(input=10, output=10, reasoning=4)
    assert usage(prompt_tokens=10, completion_tokens=6, reasoning_tokens=4) == Usage(input=10, output=6, reasoning=4)
    assert usage(prompt_tokens=10, completion_tokens=2, reasoning_tokens=4) == Usage(input=10, output=6, reasoning=4)


def test_a_depth_that_cannot_be_kept_is_an_error() -> None:
    deep = b"[" * 900 + b"]" * 900
    raw = b'{"choices": [{"index": 0, "message": {"content": "x", "odd": %s}, "finish_reason": "stop"}]}' % deep
    found = speaks.completion(HttpResponse(200, {}, raw), Call(golden.CHAT, golden.PLAIN, "job_1-1"))
    assert isinstance(found, ProviderError)


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_openais_own_types_take_every_answer(kind: str) -> None:
    for case in golden.cases(kind, "answers"):
        if case["url"] == golden.CHAT:
            ChatCompletion.model_validate(case["completion"])
        elif case["url"] == "/v1/embeddings" and case["body"].get("encoding_format") != "base64":
            CreateEmbeddingResponse.model_validate(case["completion"])
    for case in golden.cases(kind, "streams"):
        if case["url"] == golden.CHAT and "error" not in case:
            for chunk in case["chunks"]:
                ChatCompletionChunk.model_validate(chunk)
