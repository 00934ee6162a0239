"""What golden files cannot say of Gemini: its own types as judge, answers that are nonsense, turns that go back."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Embedding
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shared.errors import ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, Usage, adapter
from shared.providers import gemini as speaks
from shared.providers._gemini_contents import UNSIGNED
from shared.providers._stream import SseDecoder

GOLDEN = Path(__file__).parent / "golden" / "gemini"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
CALL = Call(CHAT, {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}, "job_1-1")
WHERE = Deployment("gemini", "gemini", "https://api.example.com/v1beta", "gemini-3.5-flash")
OLDER = Deployment("gemini", "gemini", "https://api.example.com/v1beta", "gemini-2.5-flash")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def golden(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))]


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def asking(**body: Any) -> Call:
    return Call(CHAT, {**CALL.body, **body}, "job_1-1")


def sent(where: Deployment = WHERE, **body: Any) -> dict[str, Any]:
    assert not speaks.faults(asking(**body))
    found: dict[str, Any] = orjson.loads(speaks.request(asking(**body), where, "k").body)
    return found


def said(parts: list[dict[str, Any]], reason: str | None = "STOP", **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason, **more}]}


def message(body: Any, call: Call = CALL) -> dict[str, Any]:
    found = speaks.completion(answer(body), call)
    assert isinstance(found, Completion), found
    read: dict[str, Any] = orjson.loads(found.body)["choices"][0]["message"]
    return read


def failure(found: Completion | ProviderError) -> ProviderError:
    assert isinstance(found, ProviderError)
    return found


def read(raw: bytes, *cuts: int) -> tuple[list[dict[str, Any]], Completion | ProviderError]:
    reader = speaks.stream(HttpResponse(200, {}, b""), CALL)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    return [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.last(), reader.end()


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(value) + b"\r\n\r\n" for value in values)


# ------------------------------------------------------------------ the vendors' own types as judges

JUDGES: dict[str, Callable[[Any], Any]] = {
    "cachedContent": str.lower,
    "contents": lambda given: [types.Content.model_validate(one) for one in given],
    "generationConfig": types.GenerationConfig.model_validate,
    "safetySettings": lambda given: [types.SafetySetting.model_validate(one) for one in given],
    "serviceTier": types.ServiceTier,
    "store": bool,
    "systemInstruction": types.Content.model_validate,
    "toolConfig": types.ToolConfig.model_validate,
    "tools": lambda given: [types.Tool.model_validate(one) for one in given],
}


@pytest.mark.filterwarnings("error")  # which is how they tell of a value that an enumeration does not have
@pytest.mark.parametrize("case", golden("requests"))
def test_the_vendors_types_take_every_request(case: dict[str, Any]) -> None:
    for name, value in case["upstream"]["body"].items():
        if name == "requests":
            for one in value:
                assert one.keys() <= {"model", "content", "taskType", "title", "outputDimensionality"}
                types.Content.model_validate(one["content"])
        else:
            JUDGES[name](value)


def judged(given: dict[str, Any]) -> None:
    """Let the vendor's types judge an answer; they do not have the tier yet that its usage tells."""
    usage = {name: value for name, value in given.get("usageMetadata", {}).items() if name != "serviceTier"}
    kind = types.EmbedContentResponse if "embeddings" in given else types.GenerateContentResponse
    kind.model_validate({**given, "usageMetadata": usage})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", golden("answers"))
def test_both_vendors_types_take_every_answer(case: dict[str, Any]) -> None:
    judged(case["answer"])
    if case.get("url") == EMBEDDINGS:
        assert case["completion"]["object"] == "list"
        for row in case["completion"]["data"]:
            if isinstance(row["embedding"], list):  # as the SDK's own types are read once it has unpacked the base64
                Embedding.model_validate(row)
    else:
        ChatCompletion.model_validate(case["completion"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", golden("streams"))
def test_both_vendors_types_take_every_stream(case: dict[str, Any]) -> None:
    for one in SseDecoder().feed(case["stream"].encode()):
        value = json.loads(one.data)
        if "error" not in value:
            judged(value)
    for chunk in case["chunks"]:
        ChatCompletionChunk.model_validate(chunk)
    if "completion" in case:
        ChatCompletion.model_validate(case["completion"])


# ------------------------------------------------------------------ requests


def test_it_is_found_by_its_kind() -> None:
    assert adapter("gemini").DEFAULT_BASE_URL == "https://generativelanguage.googleapis.com/v1beta"
    assert {CHAT, EMBEDDINGS} == adapter("gemini").ROUTES


def test_the_key_goes_into_one_header_and_nowhere_else() -> None:
    request = speaks.request(CALL, WHERE, "AIza-secret")
    assert request.headers["x-goog-api-key"] == "AIza-secret"
    assert "AIza-secret" not in repr(request) + request.url
    assert b"AIza-secret" not in request.body
    assert "x-goog-api-key" not in speaks.request(CALL, WHERE, None).headers


@pytest.mark.parametrize("key", ["AIzaSyA-1234567890_abcdefghijklmnopqrst", "AQ.Ab8RN6Lh-x_12345678"])
def test_no_key_is_repeated(key: str) -> None:
    found = speaks.error(answer({"error": {"message": f"Consumer 'api_key:{key}' is bad", "code": 403}}, 403))
    assert found.message == f"Consumer 'api_key:{key.removesuffix(key[4:] if key[1] == 'I' else key[3:])}***' is bad"


def test_a_model_cannot_leave_its_path() -> None:
    where = Deployment("gemini", "gemini", "https://api.example.com/v1beta", "a?b#c d:e")
    assert speaks.request(CALL, where, None).url == (
        "https://api.example.com/v1beta/models/a%3Fb%23c%20d%3Ae:generateContent"
    )


def test_an_answer_goes_back_as_it_came() -> None:
    parts: list[dict[str, Any]] = [
        {"text": "Let me look.", "thoughtSignature": "AAAA"},
        {"functionCall": {"name": "f", "args": {"x": [1, None, "ü"]}, "id": "fc_1"}, "thoughtSignature": "BBBB"},
        {"functionCall": {"name": "g", "args": {}, "id": "fc_2"}},
    ]
    back = sent(messages=[*CALL.body["messages"], message(said(parts))])
    assert back["contents"][1] == {"role": "model", "parts": parts}


def test_calls_that_got_their_ids_from_us_find_their_results() -> None:
    told = message(said([{"functionCall": {"name": "f", "args": {}}}, {"functionCall": {"name": "g", "args": {}}}]))
    ids = [call["id"] for call in told["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(len(one) <= 40 for one in ids)
    results = [{"role": "tool", "tool_call_id": one, "content": "1"} for one in reversed(ids)]
    back = sent(OLDER, messages=[*CALL.body["messages"], told, *results])["contents"]
    assert [part["functionResponse"]["name"] for part in back[2]["parts"]] == ["g", "f"]
    again = message(said([{"functionCall": {"name": "f"}}]), Call(CHAT, CALL.body, "job_1-2"))
    assert again["tool_calls"][0]["id"] not in ids


def test_only_calls_without_any_signature_are_called_unsigned() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    signed = {**call, "extra_content": {"google": {"thought_signature": "AAAA"}}}
    for calls, expected in (
        ([call, call], [UNSIGNED, None]),
        ([signed, call], ["AAAA", None]),
        ([call, signed], [None, "AAAA"]),
    ):
        turn = {"role": "assistant", "tool_calls": calls}
        parts = sent(messages=[*CALL.body["messages"], turn])["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == expected


def test_arguments_and_results_are_sent_as_they_are_spelled() -> None:
    spelled = '{"id": 123456789012345678901234567890, "deep": ' + "[" * 400 + "]" * 400 + "}"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": spelled}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": spelled}]
    body = speaks.request(asking(messages=[*CALL.body["messages"], *turns]), WHERE, None).body
    assert body.count(spelled.encode()) == 2


# ------------------------------------------------------------------ answers


def test_arguments_nested_too_deeply_are_an_error() -> None:
    deep = b"[" * 400 + b"]" * 400
    raw = b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"x": ' + deep + b"}}}]}}]}"
    for found in (speaks.completion(answer(raw), CALL), read(b"data: " + raw + b"\n\n")[1]):
        assert failure(found).kind is ErrorKind.INVALID_RESPONSE
        assert failure(found).message == "the arguments of a call are nested too deeply"


def test_a_reason_that_is_new_is_an_end_like_another() -> None:
    found = speaks.completion(answer(said([{"text": "a"}], "A_NEW_ONE")), CALL)
    assert isinstance(found, Completion)
    assert orjson.loads(found.body)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("reason", [name for name in types.FinishReason.__members__ if "UNSPECIFIED" not in name])
def test_every_reason_is_thought_of(reason: str) -> None:
    assert (reason == "STOP") + (reason in speaks._FINISH) + (reason in speaks._FAILED) == 1


def test_what_the_model_said_is_in_no_error() -> None:
    body = said([{"text": "secret words"}], "MALFORMED_FUNCTION_CALL", finishMessage="Malformed call: secret words")
    found = failure(speaks.completion(answer(body), CALL))
    assert found.message == "the model did not answer: MALFORMED_FUNCTION_CALL"
    assert (found.kind, found.status) == (ErrorKind.INVALID_RESPONSE, 200)


def test_a_call_ends_a_turn_even_where_it_came_before_the_end() -> None:
    call = said([{"functionCall": {"name": "f", "id": "fc"}}], None)
    chunks, end = read(events(call, said([{"text": ""}])))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert isinstance(end, Completion)
    cut = said([{"functionCall": {"name": "f", "id": "fc"}}], "MAX_TOKENS")
    assert read(events(cut))[0][-1]["choices"][0]["finish_reason"] == "length"


def test_usage_is_told_once_it_is_known_and_never_made_up() -> None:
    found = speaks.completion(answer(said([{"text": "a"}]) | {"usageMetadata": {"candidatesTokenCount": 3}}), CALL)
    assert isinstance(found, Completion)
    assert found.usage == Usage(estimated=True)
    assert orjson.loads(found.body)["usage"] is None
    counted = said([{"text": "a"}], None) | {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}}
    chunks, end = read(events(counted, said([])))
    assert chunks[-1]["usage"]["prompt_tokens"] == 5
    assert isinstance(end, Completion)
    assert end.usage == Usage(input=5, output=1)


def test_more_is_cached_than_was_asked_only_in_nonsense() -> None:
    body = said([{"text": "a"}]) | {"usageMetadata": {"promptTokenCount": 5, "cachedContentTokenCount": 50}}
    found = speaks.completion(answer(body), CALL)
    assert isinstance(found, Completion)
    assert found.usage == Usage(input=5, cached=5)


def test_the_request_id_is_a_header_or_the_answers_id() -> None:
    body = said([{"text": "a"}]) | {"responseId": "resp_1"}
    for response, expected in ((answer(body), "resp_1"), (answer(body, x_request_id="req_1"), "req_1")):
        found = speaks.completion(response, CALL)
        assert isinstance(found, Completion)
        assert found.request_id == expected


def test_the_tier_it_was_served_at_is_said() -> None:
    body = said([{"text": "a"}]) | {"usageMetadata": {"promptTokenCount": 5, "serviceTier": "SERVED_BY_MAGIC"}}
    found = speaks.completion(answer(body), CALL)
    assert isinstance(found, Completion)
    assert found.service_tier == "served_by_magic"


@pytest.mark.parametrize("values", [[], None, ["a"], [None], [1e39], [[0.5]], "0.5", {"0": 1}])
def test_a_vector_is_numbers(values: Any) -> None:
    for form in ("float", "base64"):
        call = Call(EMBEDDINGS, {"model": "e", "input": "a", "encoding_format": form}, "job_1-1")
        assert failure(speaks.completion(answer({"embeddings": [{"values": values}]}), call)).message
    assert isinstance(speaks.completion(answer({"embeddings": [{"values": [1e38, 2, -0.0]}]}), call), Completion)


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("38s", 38.0), ("0s", 0.0), ("1.5s", 1.5), ("nans", None), ("-1s", None), ("infs", 3600.0), ("", None), (5, None)],
)
def test_a_delay_is_seconds(given: Any, seconds: float | None) -> None:
    details = [{"reason": 5}, "x", {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": given}]
    envelope = {"error": {"code": 503, "status": "UNAVAILABLE", "details": details}}
    assert speaks.error(answer(envelope, 503)).retry_after == seconds


def test_bare_json_is_an_error_wherever_it_is_cut() -> None:
    bare = b'{\r\n  "error": {\r\n    "code": 429,\r\n    "status": "RESOURCE_EXHAUSTED"\r\n  }\r\n}\r\n'
    raw = events(said([{"text": "[{"}], None)) + bare
    for cut in range(len(raw)):
        chunks, end = read(raw, cut)
        assert len(chunks) == 1
        assert failure(end).kind is ErrorKind.RATE_LIMITED


# ------------------------------------------------------------------ nonsense


@given(st.binary())
def test_any_bytes_are_read(raw: bytes) -> None:
    for call in (CALL, Call(EMBEDDINGS, {"model": "e", "input": "a"}, "job_1-1")):
        assert isinstance(speaks.completion(answer(raw), call), Completion | ProviderError)
    assert isinstance(speaks.error(answer(raw, 500)), ProviderError)
    for sent_as in (raw, b"data: " + raw + b"\n\n", b"{" + raw, b"[" + raw + b"]"):
        read(sent_as)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_any_json_is_read(one: Any, other: Any, third: Any) -> None:
    for body in (
        one,
        [one],
        {"error": one},
        {"error": {"message": one, "details": [other], "code": third, "status": one}},
        {"candidates": one, "usageMetadata": other, "promptFeedback": third},
        {"candidates": [one], "responseId": other, "modelVersion": third},
        {"embeddings": [{"values": one}], "usageMetadata": other},
    ):
        for call in (CALL, Call(EMBEDDINGS, {"model": "e", "input": "a"}, "job_1-1")):
            found = speaks.completion(answer(body), call)
            assert isinstance(found, Completion | ProviderError)
            if isinstance(found, Completion):
                orjson.loads(found.body)
        assert isinstance(speaks.error(answer(body, 400)), ProviderError)


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text() | ANYTHING,
        "thought": st.booleans() | ANYTHING,
        "thoughtSignature": st.text() | ANYTHING,
        "functionCall": st.fixed_dictionaries({}, optional={"id": ANYTHING, "name": ANYTHING, "args": ANYTHING})
        | ANYTHING,
        "inlineData": st.fixed_dictionaries({"mimeType": st.just("image/png") | ANYTHING, "data": ANYTHING}) | ANYTHING,
    },
)
TOKENS = st.fixed_dictionaries({}, optional={"token": st.text() | ANYTHING, "logProbability": ANYTHING}) | ANYTHING
LOGPROBS = st.fixed_dictionaries(
    {},
    optional={
        "chosenCandidates": st.lists(TOKENS, max_size=3) | ANYTHING,
        "topCandidates": st.lists(
            st.fixed_dictionaries({"candidates": st.lists(TOKENS, max_size=2) | ANYTHING}) | ANYTHING
        )
        | ANYTHING,
    },
)
CANDIDATES = st.fixed_dictionaries(
    {},
    optional={
        "content": st.fixed_dictionaries({"parts": st.lists(PARTS | ANYTHING, max_size=4) | ANYTHING}) | ANYTHING,
        "finishReason": st.sampled_from(["STOP", "MAX_TOKENS", "OTHER", "NEW"]) | ANYTHING,
        "index": st.integers(0, 2) | ANYTHING,
        "logprobsResult": LOGPROBS | ANYTHING,
    },
)
EVENTS = st.fixed_dictionaries(
    {"candidates": st.lists(CANDIDATES | ANYTHING, max_size=3)},
    optional={
        "usageMetadata": st.dictionaries(
            st.sampled_from(["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "serviceTier"]),
            st.integers(0, 10**9) | ANYTHING,
        )
        | ANYTHING,
        "responseId": ANYTHING,
        "modelVersion": ANYTHING,
        "promptFeedback": st.fixed_dictionaries({"blockReason": ANYTHING}) | ANYTHING,
    },
)


@given(st.lists(EVENTS, max_size=6))
def test_any_events_are_read(given: list[Any]) -> None:
    chunks, end = read(events(*given))
    assert isinstance(end, Completion | ProviderError)
    orjson.dumps(chunks)
    for chunk in chunks:  # a tier that is new is passed on: what is served at it has no known price
        ChatCompletionChunk.model_validate({**chunk, "service_tier": None})
    if isinstance(end, Completion):
        ChatCompletion.model_validate({**orjson.loads(end.body), "service_tier": None})


@given(EVENTS)
def test_an_answer_is_read_like_a_stream_of_one(given: dict[str, Any]) -> None:
    _, streamed = read(events(given))
    whole = speaks.completion(answer(given), CALL)
    assert type(whole) is type(streamed)
    if isinstance(whole, Completion) and isinstance(streamed, Completion):
        assert orjson.loads(whole.body) == orjson.loads(streamed.body)
        assert whole.usage == streamed.usage


@pytest.mark.parametrize("case", [case for case in golden("streams") if "error" not in case.values[0]])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_a_stream_may_be_cut_anywhere(case: dict[str, Any], cuts: list[int]) -> None:
    chunks, end = read(case["stream"].encode(), *cuts)
    assert chunks == case["chunks"]
    assert isinstance(end, Completion)
    assert orjson.loads(end.body) == case["completion"]


CONTENT = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "refusal"])},
    optional={
        "text": st.text() | ANYTHING,
        "image_url": st.fixed_dictionaries({"url": st.sampled_from(["https://a/b.png", "data:a/b;base64,QQ=="])})
        | ANYTHING,
        "input_audio": ANYTHING,
        "file": ANYTHING,
    },
)
CALLS = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": st.text(), "arguments": st.just("{}")})},
    optional={"id": st.sampled_from(["a", "b"]) | ANYTHING, "extra_content": ANYTHING},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"]) | ANYTHING},
    optional={
        "content": ANYTHING | st.lists(CONTENT, max_size=3),
        "tool_calls": ANYTHING | st.lists(CALLS, max_size=3),
        "tool_call_id": st.sampled_from(["a", "b"]) | ANYTHING,
        "name": ANYTHING,
        "extra_content": ANYTHING,
    },
)
NAMES = [
    *("messages", "tools", "tool_choice", "stop", "response_format", "reasoning_effort", "service_tier", "max_tokens"),
    *("temperature", "top_logprobs", "logprobs", "n", "generationConfig", "toolConfig", "modalities", "logit_bias"),
    *("input", "encoding_format", "dimensions", "content", "model"),
]


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), ANYTHING), st.lists(MESSAGES, max_size=5))
def test_any_request_is_translated_or_faulted(body: dict[str, Any], messages: list[Any]) -> None:
    for asked in (body, {**body, "messages": messages}):
        for url in (CHAT, EMBEDDINGS):
            call = Call(url, asked, "job_1-1")
            assert all(fault.code == "unsupported_parameter" for fault in speaks.faults(call))
            orjson.loads(speaks.request(call, WHERE, None).body)
