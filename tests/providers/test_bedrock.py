"""What golden files cannot say of Bedrock: signatures, frames, the vendor's own model of its API, and nonsense.

`frame` writes AWS's event stream (https://smithy.io/2.0/aws/amazon-eventstream.html), as it is in the golden streams.
"""

import base64
import gzip
import hmac
import importlib
import json
import struct
from binascii import crc32
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from yarl import URL

from shared.errors import ConfigError, ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, adapter
from shared.providers import bedrock as speaks
from tests.providers import golden

botocore = pytest.importorskip("botocore")

CALL = Call("/v1/chat/completions", {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}, "job_1-1")
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
WHERE = Deployment("bedrock", "bedrock", "https://bedrock-runtime.eu-central-1.amazonaws.com", MODEL)
ACCESS, SECRET, TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "FwoGZXIvYXdzEXAMPLE//TOKEN==",
)
ADAPTIVE = {"type": "adaptive", "display": "summarized"}
NAMES = [
    "output", "message", "content", "text", "reasoningContent", "reasoningText", "signature", "redactedContent",
    "toolUse", "toolUseId", "name", "input", "type", "citationsContent", "stopReason", "usage", "inputTokens",
    "outputTokens", "cacheReadInputTokens", "start", "delta", "contentBlockIndex", "serviceTier", "__type",
]  # fmt: skip
EVENTS = [
    "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata",
    "throttlingException", "modelStreamErrorException", "",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=16,
)
OBJECT = st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=5)


def frame(name: str, payload: Any, *, kind: str = "event", **more: str) -> bytes:
    """Return one frame of an event stream; `kind` is `event`, `exception` or `error`."""
    named = {} if kind == "error" else {f":{kind}-type": name, ":content-type": "application/json"}
    headers = b""
    for word, value in {
        **named,
        ":message-type": kind,
        **{f":{one.replace('_', '-')}": more[one] for one in more},
    }.items():
        headers += bytes([len(word)]) + word.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    whole = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return whole + struct.pack("!I", crc32(whole))


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in golden.cases("bedrock", name)]


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def sent(body: dict[str, Any], model: str = MODEL) -> dict[str, Any]:
    call = replace(CALL, body={**CALL.body, **body})
    found: dict[str, Any] = orjson.loads(speaks.request(call, replace(WHERE, model=model), "k").body)
    return found


def read(raw: bytes, *cuts: int) -> tuple[list[dict[str, Any]], Completion | ProviderError]:
    reader = speaks.stream(answer(b""), CALL)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    return [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.last(), reader.end()


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


def nova(effort: str) -> dict[str, Any]:
    return {"type": "enabled", "maxReasoningEffort": effort}


def vendor_model() -> dict[str, Any]:
    """Return botocore's description of the API, the one its own client is made of."""
    path = Path(botocore.__file__).parent / "data" / "bedrock-runtime" / "2023-09-30" / "service-2.json.gz"
    described: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return described


def wrong(value: Any, shape: str, shapes: dict[str, Any], at: str = "") -> list[str]:
    """Return where a JSON value is not of the shape that the vendor's description says it has."""
    told = shapes[shape]
    match told["type"]:
        case "structure" if told.get("document"):
            return []
        case "structure":
            if not isinstance(value, dict):
                return [at]
            members, required = told["members"], told.get("required", ())
            found = [f"{at}.{name}" for name in value if name not in members]
            found += [f"{at}.{name} missing" for name in required if name not in value and name != "modelId"]
            if told.get("union") and len(value) != 1:
                found.append(f"{at} is a union")
            known = [name for name in value if name in members]
            return found + [
                one for name in known for one in wrong(value[name], members[name]["shape"], shapes, f"{at}.{name}")
            ]
        case "list":
            if not isinstance(value, list):
                return [at]
            return [
                one
                for index, item in enumerate(value)
                for one in wrong(item, told["member"]["shape"], shapes, f"{at}[{index}]")
            ]
        case "map":
            return [] if isinstance(value, dict) else [at]
        case "string":
            return [] if isinstance(value, str) and value in told.get("enum", [value]) else [at]
        case "blob":
            return [] if isinstance(value, str) and base64.b64decode(value, validate=True) else [at]
        case "boolean":
            return [] if isinstance(value, bool) else [at]
        case _:
            return [] if isinstance(value, int | float) else [at]


def test_it_is_found_by_its_kind() -> None:
    assert adapter("bedrock").DEFAULT_BASE_URL == "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert {"/v1/chat/completions"} == adapter("bedrock").ROUTES


def test_an_api_key_goes_as_it_is() -> None:
    request = speaks.request(CALL, WHERE, "ABSKQmVkcm9ja0FQSUtleS0xMjM=")
    assert request.headers["authorization"] == "Bearer ABSKQmVkcm9ja0FQSUtleS0xMjM="
    assert "x-amz-date" not in request.headers
    assert "ABSK" not in repr(request)
    assert "authorization" not in speaks.request(CALL, WHERE, None).headers


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-0a1-b2.bedrock-runtime.ap-south-1.vpce.amazonaws.com", "ap-south-1"),
        ("proxy.example", "us-east-1"),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_an_access_key_signs_and_stays_here(host: str, region: str, token: str | None) -> None:
    key = ":".join(filter(None, [ACCESS, SECRET, token]))
    request = speaks.request(CALL, replace(WHERE, base_url=f"https://{host}"), key)
    said = request.headers["authorization"]
    assert said.startswith(
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/{request.headers['x-amz-date'][:8]}/{region}/bedrock/"
    )
    signed = "content-type;host;x-amz-date" + (";x-amz-security-token" if token else "") + ";x-client-request-id"
    assert f"SignedHeaders={signed}" in said
    assert len(said.rpartition("Signature=")[2]) == 64
    assert request.headers.get("x-amz-security-token") == token
    for shown in (repr(request), request.url, request.body.decode(), *request.headers.values()):
        assert SECRET not in shown
    assert TOKEN not in repr(request)


def test_the_signature_is_of_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = importlib.import_module("botocore.auth").get_current_datetime()
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
    key, other = f"{ACCESS}:{SECRET}", replace(CALL, body={**CALL.body, "temperature": 0.5})
    request = speaks.request(CALL, WHERE, key)
    assert request.headers["authorization"] != speaks.request(other, WHERE, key).headers["authorization"]
    # The same by hand, as AWS documents it; of the path, as it is in the URL, every segment is quoted once more.
    named = ("content-type", "host", "x-amz-date", "x-client-request-id")
    values = {"host": "bedrock-runtime.eu-central-1.amazonaws.com", **request.headers}
    lines = "".join(f"{name}:{values[name]}\n" for name in named)
    path = f"/model/{MODEL.replace(':', '%3A')}/converse"
    canonical = f"POST\n{path}\n\n{lines}\n{';'.join(named)}\n{sha256(request.body).hexdigest()}"
    date = values["x-amz-date"]
    scope = f"{date[:8]}/eu-central-1/bedrock/aws4_request"
    signing = f"AWS4{SECRET}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    assert request.headers["authorization"].endswith(f"Signature={signing.hex()}")


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (MODEL, f"/model/{MODEL}/converse"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-5",
            "/model/arn:aws:bedrock:us-east-1:123456789012:inference-profile%2Fus.anthropic.claude-sonnet-5/converse",
        ),
        ("a b?c#d", "/model/a%20b%3Fc%23d/converse"),
    ],
)
def test_what_is_signed_is_the_url_that_is_sent(model: str, path: str) -> None:
    request = speaks.request(CALL, replace(WHERE, model=model), f"{ACCESS}:{SECRET}")
    assert request.url == WHERE.base_url + path
    assert str(URL(request.url)) == request.url, "the client would write it otherwise"


def test_without_botocore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert isinstance(speaks.request(CALL, WHERE, "a-key"), HttpRequest)
    assert isinstance(speaks.completion(answer(b""), CALL), ProviderError)
    for needs in (lambda: speaks.request(CALL, WHERE, f"{ACCESS}:{SECRET}"), lambda: speaks.stream(answer(b""), CALL)):
        with pytest.raises(ConfigError, match=r"pip install 'sluice\[bedrock\]'") as refused:
            needs()
        assert SECRET not in str(refused.value)


def test_no_message_repeats_a_secret() -> None:
    said = (
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this "
        f"request should have been\n'POST\n/model/x/converse\n\nx-amz-security-token:{TOKEN}\n\n'"
    )
    found = speaks.error(answer({"message": said}, 403, x_amzn_errortype="InvalidSignatureException"))
    assert found.kind is ErrorKind.INVALID_KEY
    assert found.message.endswith("for details.")
    for key in (ACCESS, "ABSKQmVkcm9ja0FQSUtleS0xMjM=", "bedrock-api-key-YmVkcm9jaw=="):
        assert speaks.error(answer({"message": f"no such key: {key}"}, 403)).message == "no such key: ***"


@pytest.mark.parametrize("case", cases("requests"))
def test_the_vendors_description_takes_every_request(case: dict[str, Any]) -> None:
    operation = "ConverseStreamRequest" if case["body"].get("stream") else "ConverseRequest"
    assert wrong(case["upstream"]["body"], operation, vendor_model()["shapes"]) == []


@pytest.mark.parametrize("case", cases("answers"))
def test_both_vendors_types_take_every_answer(case: dict[str, Any]) -> None:
    assert wrong(case["answer"], "ConverseResponse", vendor_model()["shapes"]) == []
    ChatCompletion.model_validate(case["completion"])


@pytest.mark.parametrize("case", cases("streams"))
def test_both_vendors_types_take_every_stream(case: dict[str, Any]) -> None:
    if "error" not in case:
        buffer = importlib.import_module("botocore.eventstream").EventStreamBuffer()
        buffer.add_data(golden.raw(case))
        for event in buffer:
            told = {event.headers[":event-type"]: json.loads(event.payload)}
            for padded in told.values():
                padded.pop("p", None)  # it hides how long a piece is, and is in no description
            assert wrong(told, "ConverseStreamOutput", vendor_model()["shapes"]) == []
        ChatCompletion.model_validate(case["completion"])
    for chunk in case.get("chunks", ()):
        ChatCompletionChunk.model_validate(chunk)


@pytest.mark.parametrize("case", [case for case in cases("streams") if "error" not in case.values[0]])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_a_stream_may_be_cut_anywhere(case: dict[str, Any], cuts: list[int]) -> None:
    raw = golden.raw(case)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    chunks, end = golden.read("bedrock", case, [raw[start:stop] for start, stop in pairwise(edges)])
    assert chunks == case["chunks"]
    assert isinstance(end, Completion)
    assert orjson.loads(end.body) == case["completion"]


def test_an_answer_goes_back_as_it_came() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "aGlkZGVu"}},
        {"text": "Let me see."},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "now", "input": {"zone": "UTC"}}},
    ]
    told = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "tool_use"}
    found = speaks.completion(answer(told), CALL)
    assert isinstance(found, Completion)
    message = orjson.loads(found.body)["choices"][0]["message"]
    assert sent({"messages": [message]})["messages"] == [{"role": "assistant", "content": content}]


@pytest.mark.parametrize(
    ("model", "effort", "output", "fields"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "low", None, {"thinking": budget(2048)}),
        ("anthropic.claude-opus-4-20250514-v1:0", "high", None, {"thinking": budget(16384)}),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", "none", None, {"thinking": {"type": "disabled"}}),
        ("global.anthropic.claude-opus-4-6-v1", "xhigh", {"effort": "xhigh"}, {"thinking": ADAPTIVE}),
        ("us.anthropic.claude-sonnet-5", "minimal", {"effort": "low"}, {"thinking": ADAPTIVE}),
        ("us.amazon.nova-2-lite-v1:0", "xhigh", None, {"reasoningConfig": nova("high")}),
        ("us.amazon.nova-2-lite-v1:0", "none", None, {"reasoningConfig": {"type": "disabled"}}),
        ("openai.gpt-oss-120b-1:0", "medium", None, {"reasoning_effort": "medium"}),
        ("openai.gpt-6-sol", "none", None, {"reasoning": {"effort": "none"}}),
        ("deepseek.v3-v1:0", "high", {"effort": "high"}, None),
    ],
)
def test_each_family_of_models_is_told_to_think_in_its_own_way(
    model: str, effort: str, output: Any, fields: Any
) -> None:
    found = sent({"reasoning_effort": effort}, model)
    assert (found.get("outputConfig"), found.get("additionalModelRequestFields")) == (output, fields)


def test_a_model_that_cannot_be_kept_from_thinking() -> None:
    call = replace(CALL, body={**CALL.body, "reasoning_effort": "none"}, model="deepseek.v3-v1:0")
    assert [fault.param for fault in speaks.faults(call)] == ["body.reasoning_effort"]


@pytest.mark.parametrize(
    "raw",
    [
        frame("messageStart", {"role": "assistant"})[:-1] + b"\0",
        frame("messageStart", b"no JSON"),
        frame("messageStart", b"[]"),
        b"<html><body>502 Bad Gateway</body></html>",
        b"event: messageStart\ndata: {}\n\n",
    ],
)
def test_what_is_no_frame_is_an_invalid_response(raw: bytes) -> None:
    stop = frame("messageStop", {"stopReason": "end_turn"})
    chunks, end = read(frame("messageStart", {"role": "assistant"}) + raw + stop)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant"}]
    assert isinstance(end, ProviderError)
    assert end.kind is ErrorKind.INVALID_RESPONSE


@given(OBJECT | ANYTHING | st.binary())
def test_no_answer_breaks_it(body: Any) -> None:
    assert isinstance(speaks.completion(answer(body), CALL), Completion | ProviderError)
    for status in (200, 400, 429, 500):
        assert isinstance(speaks.error(answer(body, status)), ProviderError)


@given(st.dictionaries(st.just("content"), st.lists(OBJECT)), st.none() | st.sampled_from(["end_turn", "tool_use"]))
def test_no_content_breaks_it(message: dict[str, Any], reason: str | None) -> None:
    told = {"output": {"message": message}, "stopReason": reason}
    assert isinstance(speaks.completion(answer(told), CALL), Completion | ProviderError)


@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from(["event", "exception", "error"]), OBJECT) | st.binary())
)
def test_no_stream_breaks_it(events: list[Any]) -> None:
    raw = b"".join(one if isinstance(one, bytes) else frame(one[0], one[2], kind=one[1]) for one in events)
    chunks, end = read(raw)
    assert all(isinstance(chunk, dict) for chunk in chunks)
    assert isinstance(end, Completion | ProviderError)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "stop", "response_format", "outputConfig"]), ANYTHING))
def test_no_request_breaks_it(body: dict[str, Any]) -> None:
    call = replace(CALL, body={**CALL.body, **body})
    if not speaks.faults(call):
        speaks.request(call, WHERE, None)
