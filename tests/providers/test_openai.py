"""What vendors have been seen to answer, and what we make of it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import HANDLING, ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, Usage, adapter, kinds
from shared.providers import openai as speaks
from shared.providers._dialect import LONGEST_MESSAGE

CALL = Call("/v1/chat/completions", {"model": "fast", "messages": [], "odd": {"kept": [1]}}, "job_1-1")
WHERE = Deployment("openai", "openai", "https://api.example.com/v1", "gpt-5-mini")


def answer(status: int, body: Any, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def test_the_request_is_the_callers_with_the_upstreams_model() -> None:
    request = speaks.request(CALL, WHERE, "sk-secret")
    assert request.url == "https://api.example.com/v1/chat/completions"
    assert orjson.loads(request.body) == {"model": "gpt-5-mini", "messages": [], "odd": {"kept": [1]}}
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.headers["x-client-request-id"] == "job_1-1"
    assert "sk-secret" not in repr(request)
    assert CALL.body["model"] == "fast"
    assert "authorization" not in speaks.request(CALL, WHERE, None).headers


def test_a_good_answer_is_kept_as_it_is_with_its_usage_normalised() -> None:
    body = {
        "model": "gpt-5-mini-2025",
        "choices": [{"message": {"content": "hi"}}],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
    }
    found = speaks.completion(answer(200, body, x_request_id="req_1"), CALL)
    assert isinstance(found, Completion)
    assert orjson.loads(found.body) == body
    spaced = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    kept = speaks.completion(answer(200, spaced), CALL)
    assert isinstance(kept, Completion)
    assert kept.body == spaced
    assert (found.usage.input, found.usage.output, found.usage.cached, found.usage.reasoning) == (100, 20, 60, 8)
    assert (found.model, found.request_id, found.usage.estimated) == ("gpt-5-mini-2025", "req_1", False)
    del body["usage"]
    found = speaks.completion(answer(200, body), CALL)
    assert isinstance(found, Completion)
    assert found.usage.estimated


@pytest.mark.parametrize(
    "usage",
    [None, [], {}, {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens": 1.5}, {"prompt_tokens": 2**62}],
)
def test_a_usage_that_makes_no_sense_is_to_be_estimated(usage: Any) -> None:
    found = speaks.completion(answer(200, {"choices": [{}], "usage": usage}), CALL)
    assert isinstance(found, Completion)
    assert found.usage == Usage(estimated=True)


def test_parts_are_never_more_than_their_whole() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    found = speaks.completion(answer(200, {"choices": [{}], "usage": usage}), CALL)
    assert isinstance(found, Completion)
    assert found.usage == Usage(input=5, output=3, cached=5, reasoning=3)


def test_what_postgres_cannot_store_is_not_in_an_answer() -> None:
    found = speaks.completion(answer(200, {"choices": [{}], "model": "m\0" + "x" * 900}), CALL)
    assert isinstance(found, Completion)
    assert found.model == "m\ufffd" + "x" * 254
    assert "\0" not in speaks.error(answer(500, {"error": {"message": "a\0b"}})).message


def test_embeddings_are_good_answers_too() -> None:
    asked = Call("/v1/embeddings", {"model": "e", "input": "x"}, "job_1-1")
    body = {"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 3}}
    assert isinstance(speaks.completion(answer(200, body), asked), Completion)


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b'{"id": "x', b"[]", b"5", {}, {"choices": []}, {"choices": None}]
)
def test_a_broken_200_is_an_invalid_response(body: Any) -> None:
    found = speaks.completion(answer(200, body), CALL)
    assert isinstance(found, ProviderError)
    assert found.kind is ErrorKind.INVALID_RESPONSE


def test_an_error_inside_a_200_is_that_error() -> None:
    body = {"error": {"message": "overloaded", "code": "rate_limit_exceeded"}, "choices": [1]}
    found = speaks.completion(answer(200, body), CALL)
    assert isinstance(found, ProviderError)
    assert found.kind is ErrorKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, ErrorKind.RATE_LIMITED),
        (502, ErrorKind.SERVER_ERROR),
        (503, ErrorKind.OVERLOADED),
        ("server_error", ErrorKind.SERVER_ERROR),
        (200, ErrorKind.INVALID_RESPONSE),
        (None, ErrorKind.INVALID_RESPONSE),
    ],
)
def test_an_error_inside_a_200_may_name_the_status_it_means(code: Any, kind: ErrorKind) -> None:
    found = speaks.completion(answer(200, {"error": {"message": "Provider returned error", "code": code}}), CALL)
    assert isinstance(found, ProviderError)
    assert found.kind is kind
    # Beside a status that says it already, it says nothing.
    assert speaks.error(answer(503, {"error": {"code": code, "type": code}})).kind is ErrorKind.OVERLOADED


@pytest.mark.parametrize(
    ("status", "envelope"),
    [
        (
            429,
            {
                "message": "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, "
                "Requested 36278. The input or output tokens must be reduced in order to run successfully.",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            },
        ),
        (
            400,
            {"code": 400, "message": "request (4390 tokens) exceeds the context", "type": "exceed_context_size_error"},
        ),
    ],
)
def test_what_can_never_succeed_is_not_a_rate_limit(status: int, envelope: Any) -> None:
    found = speaks.error(answer(status, {"error": envelope}))
    assert found.kind is ErrorKind.CONTEXT_TOO_LONG
    assert HANDLING[found.kind].retry is False


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, None, ErrorKind.RATE_LIMITED),
        (429, "rate_limit_exceeded", ErrorKind.RATE_LIMITED),
        (429, "insufficient_quota", ErrorKind.QUOTA_EXHAUSTED),
        (402, None, ErrorKind.QUOTA_EXHAUSTED),
        (401, "invalid_api_key", ErrorKind.INVALID_KEY),
        (403, None, ErrorKind.INVALID_KEY),
        (404, "model_not_found", ErrorKind.MODEL_NOT_FOUND),
        (400, "context_length_exceeded", ErrorKind.CONTEXT_TOO_LONG),
        (400, "content_filter", ErrorKind.CONTENT_FILTERED),
        (400, None, ErrorKind.INVALID_REQUEST),
        (413, None, ErrorKind.INVALID_REQUEST),
        (422, None, ErrorKind.INVALID_REQUEST),
        (408, None, ErrorKind.TIMEOUT),
        (504, None, ErrorKind.TIMEOUT),
        (503, None, ErrorKind.OVERLOADED),
        (529, None, ErrorKind.OVERLOADED),
        (500, None, ErrorKind.SERVER_ERROR),
        (502, None, ErrorKind.SERVER_ERROR),
        (302, None, ErrorKind.INVALID_RESPONSE),
    ],
)
def test_errors(status: int, code: str | None, kind: ErrorKind) -> None:
    body = {"error": {"message": "key sk-abcdefgh is bad", "code": code}}
    found = speaks.error(answer(status, body, retry_after="3", x_request_id="r"))
    assert (found.kind, found.status, found.retry_after, found.request_id) == (kind, status, 3.0, "r")
    assert "sk-abcdefgh" not in found.message
    for broken in (b"", b"<html>", b"[1]", b'{"error": "text"}', b'{"error": {"message": {"a": 1}, "code": [1]}}'):
        assert speaks.error(answer(status, broken)).message


WORDS = ["error", "choices", "data", "usage", "message", "code", "prompt_tokens", "prompt_tokens_details"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["retry-after", "x-request-id"]), st.text()), JSON)
def test_no_json_breaks_it(status: int, headers: dict[str, str], body: Any) -> None:
    response = HttpResponse(status, headers, orjson.dumps(body))
    assert speaks.error(response).kind in HANDLING
    assert isinstance(speaks.completion(response, CALL), Completion | ProviderError)


@given(st.integers(100, 599), st.binary(max_size=64))
def test_no_bytes_break_it(status: int, body: bytes) -> None:
    response = HttpResponse(status, {}, body)
    assert len(speaks.error(response).message) <= 1_000
    assert isinstance(speaks.completion(response, CALL), Completion | ProviderError)


@given(st.text(max_size=2_000), st.from_regex(r"sk-[A-Za-z0-9_-]{8,80}", fullmatch=True))
def test_no_key_is_in_a_message_and_none_is_long(text: str, key: str) -> None:
    body = json.dumps({"error": {"message": text + key + text}}).encode(errors="surrogatepass")
    message = speaks.error(HttpResponse(401, {}, body)).message
    assert key not in message
    assert len(message) <= LONGEST_MESSAGE


@pytest.mark.parametrize(
    "shape", ['{"error": %s}', '{"error": {"message": %s, "code": %s}}', '{"choices": [1], "model": %s}']
)
def test_no_depth_breaks_it(shape: str) -> None:
    for depth in (1_000, 1_015, 1_023, 100_000):
        response = answer(200, shape.replace("%s", "[" * depth + "]" * depth).encode())
        assert speaks.error(response).message == "the provider answered with status 200"
        assert isinstance(speaks.completion(response, CALL), Completion | ProviderError)


def test_every_file_is_a_kind_and_every_kind_an_adapter() -> None:
    assert {"openai", "anthropic", "gemini", "groq", "simulated"} <= set(kinds())
    assert not any(kind.startswith("_") for kind in kinds())
    for kind in kinds():
        assert adapter(kind).ROUTES, kind
    with pytest.raises(KeyError):
        adapter("nobody")
    assert set(HANDLING) == set(ErrorKind)
