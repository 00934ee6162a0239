"""What golden files cannot say of Anthropic: its own types as judge, answers that are nonsense, turns that go back."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from anthropic.types import (
    DocumentBlockParam,
    ImageBlockParam,
    Message,
    MessageParam,
    RawMessageStreamEvent,
    RedactedThinkingBlockParam,
    TextBlockParam,
    ThinkingBlockParam,
    ToolResultBlockParam,
    ToolUseBlockParam,
)
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from shared.errors import ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, Usage, adapter
from shared.providers import anthropic as speaks
from shared.providers._stream import SseDecoder

GOLDEN = Path(__file__).parent / "golden" / "anthropic"
CALL = Call("/v1/chat/completions", {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}, "job_1-1")
WHERE = Deployment("anthropic", "anthropic", "https://api.example.com/v1", "claude-sonnet-5")
BLOCK: TypeAdapter[Any] = TypeAdapter(
    TextBlockParam
    | ImageBlockParam
    | DocumentBlockParam
    | ThinkingBlockParam
    | RedactedThinkingBlockParam
    | ToolUseBlockParam
    | ToolResultBlockParam
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def golden(name: str) -> list[Any]:
    """Return the cases of a file that are translated: what passes as it is holds what no type knows."""
    cases = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    return [pytest.param(case, id=case["name"]) for case in cases if case.get("url") != "/v1/messages"]


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def sent(body: dict[str, Any], model: str = "claude-sonnet-5") -> dict[str, Any]:
    where = Deployment("anthropic", "anthropic", "https://api.example.com/v1", model)
    request = speaks.request(Call("/v1/chat/completions", {**CALL.body, **body}, "job_1-1"), where, "k")
    found: dict[str, Any] = orjson.loads(request.body)
    return found


def read(raw: bytes, *cuts: int) -> tuple[list[dict[str, Any]], Completion | ProviderError]:
    reader = speaks.stream(HttpResponse(200, {}, b""), CALL)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    return [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.last(), reader.end()


def test_it_is_found_by_its_kind() -> None:
    assert adapter("anthropic").DEFAULT_BASE_URL == "https://api.anthropic.com/v1"
    assert {"/v1/chat/completions", "/v1/messages"} == adapter("anthropic").ROUTES


def test_the_key_goes_into_one_header_and_nowhere_else() -> None:
    request = speaks.request(CALL, WHERE, "sk-ant-secret")
    assert request.headers["x-api-key"] == "sk-ant-secret"
    assert request.headers["x-client-request-id"] == "job_1-1"
    assert "sk-ant-secret" not in repr(request)
    assert b"sk-ant-secret" not in request.body
    assert "x-api-key" not in speaks.request(CALL, WHERE, None).headers
    refused = {"type": "error", "error": {"type": "authentication_error", "message": "bad key sk-ant-api03-abc_DEF-9"}}
    assert speaks.error(answer(refused, 401)).message == "bad key sk-ant-***"


@pytest.mark.parametrize("case", golden("requests"))
def test_the_vendors_types_take_every_request(case: dict[str, Any]) -> None:
    body = case["upstream"]["body"]
    whole: Any = MessageCreateParamsStreaming if body.get("stream") else MessageCreateParamsNonStreaming
    TypeAdapter(whole).validate_python(body)
    # Validating the whole leaves its lists unread until somebody iterates over them.
    TypeAdapter(list[MessageParam]).validate_python(body["messages"])
    for message in body["messages"]:
        for block in message["content"]:
            BLOCK.validate_python(block)
            for inner in block.get("content", ()):
                BLOCK.validate_python(inner)
    known = whole.__annotations__.keys() | {
        name for base in whole.__orig_bases__ for name in getattr(base, "__annotations__", ())
    }
    # The types are those of a later version, which has dropped these two.
    assert body.keys() - known <= {"temperature", "top_p", "top_k"}


@pytest.mark.parametrize("case", golden("answers"))
def test_both_vendors_types_take_every_answer(case: dict[str, Any]) -> None:
    Message.model_validate(case["answer"])
    ChatCompletion.model_validate(case["completion"])


@pytest.mark.parametrize("case", golden("streams"))
def test_both_vendors_types_take_every_stream(case: dict[str, Any]) -> None:
    event: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for one in SseDecoder().feed(case["stream"].encode()):
        assert one.name == json.loads(one.data)["type"]
        if one.name == "error":
            assert "error" in case
        elif one.name != "ping":
            event.validate_json(one.data)
    for chunk in case.get("chunks", ()):
        ChatCompletionChunk.model_validate(chunk)
    if "completion" in case:
        ChatCompletion.model_validate(case["completion"])


@pytest.mark.parametrize("case", golden("errors"))
def test_the_vendors_types_take_every_envelope(case: dict[str, Any]) -> None:
    envelope = case["answer"]
    types = {"novel_error", "request_too_large"}  # the second is documented, but not among the types
    if isinstance(envelope, dict) and envelope.get("type") == "error" and envelope["error"]["type"] not in types:
        ErrorResponse.model_validate(envelope)


@pytest.mark.parametrize("case", [case for case in golden("streams") if "error" not in case.values[0]])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_a_stream_may_be_cut_anywhere(case: dict[str, Any], cuts: list[int]) -> None:
    chunks, end = read(case["stream"].encode(), *cuts)
    assert chunks == case["chunks"]
    assert isinstance(end, Completion)
    assert orjson.loads(end.body) == case["completion"]


def test_an_answer_goes_back_as_it_came() -> None:
    content = [
        {"type": "thinking", "thinking": "Both at once.", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"x": [1, None, "ü"]}},
        {"type": "tool_use", "id": "toolu_02", "name": "g", "input": {}},
    ]
    found = speaks.completion(answer({"id": "msg_1", "content": content, "stop_reason": "tool_use"}), CALL)
    assert isinstance(found, Completion)
    assert found.usage == Usage(estimated=True)
    message = orjson.loads(found.body)["choices"][0]["message"]
    assert not speaks.faults(Call(CALL.url, {**CALL.body, "messages": [*CALL.body["messages"], message]}, ""))
    assert sent({"messages": [*CALL.body["messages"], message]})["messages"][1]["content"] == content


def test_arguments_are_sent_as_they_are_spelled() -> None:
    spelled = '{"id": 123456789012345678901234567890, "deep": ' + "[" * 400 + "]" * 400 + "}"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": spelled}}
    body = {**CALL.body, "messages": [*CALL.body["messages"], {"role": "assistant", "tool_calls": [call]}]}
    assert spelled.encode() in speaks.request(Call(CALL.url, body, "job_1-1"), WHERE, None).body


def test_arguments_nested_too_deeply_are_an_error() -> None:
    deep = b"[" * 400 + b"]" * 400
    block = b'{"type": "tool_use", "id": "t", "name": "f", "input": {"deep": ' + deep + b"}}"
    found = speaks.completion(answer(b'{"content": [' + block + b'], "stop_reason": "tool_use"}'), CALL)
    assert isinstance(found, ProviderError)
    assert found.kind is ErrorKind.INVALID_RESPONSE
    begun = b'data: {"type": "content_block_start", "content_block": ' + block + b"}\n\n"
    _, found = read(begun + b'data: {"type": "content_block_stop"}\n\n')
    assert isinstance(found, ProviderError)
    assert found.message == "the arguments of a call are nested too deeply"


def test_arguments_that_come_at_once_are_streamed_too() -> None:
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {"a": 1}}},
        {"type": "content_block_stop", "index": 0},
    ]
    chunks, _ = read(b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events))
    assert chunks[-1]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_blocks_may_be_open_side_by_side() -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": call},
        {"type": "content_block_start", "index": 1, "content_block": call},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"b":2}'}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ]
    _, end = read(b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events))
    assert isinstance(end, Completion)
    calls = orjson.loads(end.body)["choices"][0]["message"]["tool_calls"]
    assert [one["function"]["arguments"] for one in calls] == ['{"a":1}', '{"b":2}']


def test_an_error_event_need_not_be_named() -> None:
    _, end = read(b'data: {"error": {"type": "rate_limit_error", "message": "slow down"}}\n\n')
    assert isinstance(end, ProviderError)
    assert (end.kind, end.message) == (ErrorKind.RATE_LIMITED, "slow down")


def test_the_request_id_is_in_a_header_or_in_the_envelope() -> None:
    envelope = {"type": "error", "error": {"type": "api_error", "message": "m"}, "request_id": "req_body"}
    assert speaks.error(answer(envelope, 500)).request_id == "req_body"
    assert speaks.error(answer(b"", 500, request_id="req_head")).request_id == "req_head"
    broken = speaks.completion(answer(b"", request_id="req_head"), CALL)
    assert isinstance(broken, ProviderError)
    assert broken.request_id == "req_head"
    end = speaks.stream(answer(b"", request_id="req_head"), CALL).end()
    assert isinstance(end, ProviderError)
    assert end.request_id == "req_head"


@given(st.binary())
def test_any_bytes_are_read(raw: bytes) -> None:
    assert isinstance(speaks.completion(answer(raw), CALL), Completion | ProviderError)
    assert isinstance(speaks.error(answer(raw, 500)), ProviderError)
    read(raw)
    read(b"data: " + raw + b"\n\n")


@given(ANYTHING, ANYTHING, ANYTHING)
def test_any_json_is_read(content: Any, usage: Any, reason: Any) -> None:
    for body in (content, {"content": content, "usage": usage, "stop_reason": reason}, {"error": content}):
        found = speaks.completion(answer(body), CALL)
        assert isinstance(found, Completion | ProviderError)
        if isinstance(found, Completion):
            orjson.loads(found.body)
        assert isinstance(speaks.error(answer(body, 400)), ProviderError)


WORDS = ("type", "text", "thinking", "signature", "data", "id", "name", "input", "partial_json", "stop_reason", "usage")
KINDS = st.sampled_from(
    ["text", "thinking", "redacted_thinking", "tool_use", "text_delta", "thinking_delta", "signature_delta", "other"]
)
BLOCKS = st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=5) | ANYTHING
TYPED = st.builds(lambda block, kind: {**block, "type": kind}, st.dictionaries(st.sampled_from(WORDS), ANYTHING), KINDS)
EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "e"]
        )
    },
    optional={
        "index": st.integers(0, 2) | ANYTHING,
        "message": BLOCKS,
        "content_block": TYPED | BLOCKS,
        "delta": TYPED | BLOCKS,
        "usage": ANYTHING,
    },
)


@given(st.lists(TYPED | BLOCKS))
def test_any_blocks_are_read(content: list[Any]) -> None:
    found = speaks.completion(answer({"content": content, "stop_reason": "end_turn"}), CALL)
    assert isinstance(found, Completion | ProviderError)


@given(st.lists(EVENTS | ANYTHING, max_size=12))
def test_any_events_are_read(events: list[Any]) -> None:
    chunks, end = read(b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events))
    assert isinstance(end, Completion | ProviderError)
    orjson.dumps(chunks)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "messages",
                "tools",
                "tool_choice",
                "stop",
                "response_format",
                "reasoning_effort",
                "service_tier",
                "max_tokens",
                "temperature",
                "output_config",
                "system",
                "user",
                "modalities",
                "logit_bias",
            ]
        )
        | st.text(),
        ANYTHING,
    ),
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"])},
            optional={"content": ANYTHING | st.lists(BLOCKS | TYPED), "tool_calls": ANYTHING, "name": ANYTHING},
        )
    ),
)
def test_any_request_is_translated_or_faulted(body: dict[str, Any], messages: list[Any]) -> None:
    for asked in (body, {**body, "messages": messages}):
        call = Call("/v1/chat/completions", asked, "job_1-1")
        assert all(fault.code == "unsupported_parameter" for fault in speaks.faults(call))
        orjson.loads(speaks.request(call, WHERE, None).body)
