"""What golden files cannot say of Cohere: OpenAI's types as judge, answers that are nonsense, turns that go back."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shared.errors import ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, adapter
from shared.providers import cohere as speaks
from tests.providers import golden

CALL = Call("/v1/chat/completions", {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}, "job_1-1")
EMBED = Call("/v1/embeddings", {"model": "fast", "input": ["hi"]}, "job_1-1")
WHERE = Deployment("cohere", "cohere", "https://api.cohere.com/v2", "command-a-03-2025")
KEY = "a1B2c3D4e5" * 4
NAMES = [
    "id", "message", "content", "type", "text", "thinking", "tool_plan", "tool_calls", "function", "name", "arguments",
    "citations", "finish_reason", "usage", "tokens", "billed_units", "input_tokens", "cached_tokens", "logprobs",
    "delta", "index", "error", "embeddings", "float", "meta",
]  # fmt: skip
EVENTS = [
    "message-start", "content-start", "content-delta", "content-end", "tool-plan-delta", "tool-call-start",
    "tool-call-delta", "tool-call-end", "citation-start", "message-end", "",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
ANYTHING = st.recursive(
    SCALARS | st.sampled_from([*NAMES, *EVENTS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=16,
)


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in golden.cases("cohere", name)]


def answer(body: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, {}, body if isinstance(body, bytes) else orjson.dumps(body))


def sent(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(speaks.request(replace(CALL, body={**CALL.body, **body}), WHERE, "k").body)
    return found


def test_it_is_found_by_its_kind() -> None:
    assert adapter("cohere").DEFAULT_BASE_URL == "https://api.cohere.com/v2"
    assert {"/v1/chat/completions", "/v1/embeddings"} == adapter("cohere").ROUTES


def test_the_key_goes_into_one_header_and_nowhere_else() -> None:
    request = speaks.request(CALL, WHERE, KEY)
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(request)
    assert KEY.encode() not in request.body
    assert "authorization" not in speaks.request(CALL, WHERE, None).headers
    assert speaks.error(answer({"message": f"invalid api token {KEY}"}, 401)).message == "invalid api token ***"
    reader = speaks.stream(answer(b""), CALL)
    reader.feed(b'data: {"type": "message-end", "delta": {"error": "key %s"}}\n\n' % KEY.encode())
    failed = reader.end()
    assert isinstance(failed, ProviderError)
    assert (failed.kind, failed.message) == (ErrorKind.SERVER_ERROR, "key ***")


@pytest.mark.parametrize("case", cases("answers"))
def test_openais_types_take_every_answer(case: dict[str, Any]) -> None:
    if case["url"] == "/v1/embeddings":
        if case["body"].get("encoding_format") != "base64":  # which the SDK decodes before it looks
            CreateEmbeddingResponse.model_validate(case["completion"])
    else:
        ChatCompletion.model_validate(case["completion"])


@pytest.mark.parametrize("case", cases("streams"))
def test_openais_types_take_every_stream(case: dict[str, Any]) -> None:
    for chunk in case.get("chunks", ()):
        ChatCompletionChunk.model_validate(chunk)
    if "completion" in case:
        ChatCompletion.model_validate(case["completion"])


@pytest.mark.parametrize("case", [case for case in cases("streams") if "error" not in case.values[0]])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_a_stream_may_be_cut_anywhere(case: dict[str, Any], cuts: list[int]) -> None:
    raw = golden.raw(case)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    chunks, end = golden.read("cohere", case, [raw[start:stop] for start, stop in pairwise(edges)])
    assert chunks == case["chunks"]
    assert isinstance(end, Completion)
    assert orjson.loads(end.body) == case["completion"]


def test_a_message_with_calls_goes_back_as_it_came() -> None:
    calls = [{"id": "now_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    said = {"role": "assistant", "tool_plan": "I will ask for the time.", "tool_calls": calls}
    found = speaks.completion(answer({"id": "1", "message": said, "finish_reason": "TOOL_CALL"}), CALL)
    assert isinstance(found, Completion)
    message = orjson.loads(found.body)["choices"][0]["message"]
    assert sent({"messages": [message]})["messages"] == [said]


def test_the_model_is_the_one_that_was_asked() -> None:
    said = {"id": "1", "message": {"content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE"}
    for call, model in ((CALL, "fast"), (replace(CALL, model="command-a-03-2025"), "command-a-03-2025")):
        found = speaks.completion(answer(said), call)
        assert isinstance(found, Completion)
        assert found.model == orjson.loads(found.body)["model"] == model


@given(st.sampled_from([CALL, EMBED]), st.dictionaries(st.sampled_from(NAMES), ANYTHING) | ANYTHING | st.binary())
def test_no_answer_breaks_it(call: Call, body: Any) -> None:
    assert isinstance(speaks.completion(answer(body), call), Completion | ProviderError)
    for status in (200, 400, 429, 500):
        assert isinstance(speaks.error(answer(body, status)), ProviderError)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.dictionaries(st.sampled_from(NAMES), ANYTHING)) | st.binary()))
def test_no_stream_breaks_it(events: list[Any]) -> None:
    reader = speaks.stream(answer(b""), CALL)
    for event in events:
        raw = event if isinstance(event, bytes) else b"data: " + orjson.dumps({"type": event[0]} | event[1]) + b"\n\n"
        assert all(isinstance(chunk, dict) for chunk in reader.feed(raw))
    assert isinstance(reader.last(), list)
    assert isinstance(reader.end(), Completion | ProviderError)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "stop", "top_p", "response_format", "p"]), ANYTHING))
def test_no_request_breaks_it(body: dict[str, Any]) -> None:
    for call in (replace(CALL, body={**CALL.body, **body}), replace(EMBED, body={**body, "input": body.get("stop")})):
        if not speaks.faults(call):
            speaks.request(call, WHERE, None)
