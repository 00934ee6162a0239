"""OpenAI, and every server that speaks its dialect at another `base_url`."""

import re
from typing import Any

import orjson

from shared.errors import ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, Usage
from shared.retry import retry_after

DEFAULT_BASE_URL = "https://api.openai.com/v1"

LONGEST_MESSAGE = 1_000
MOST_TOKENS = 10**9
"""No call has more: a usage beyond it is nonsense, not a bill."""

_KEY = re.compile(r"sk-[A-Za-z0-9_\-*]{4,}")
_BY_CODE = {
    "insufficient_quota": ErrorKind.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "context_length_exceeded": ErrorKind.CONTEXT_TOO_LONG,
    "exceed_context_size_error": ErrorKind.CONTEXT_TOO_LONG,
    "content_filter": ErrorKind.CONTENT_FILTERED,
    "content_policy_violation": ErrorKind.CONTENT_FILTERED,
    "model_not_found": ErrorKind.MODEL_NOT_FOUND,
    "invalid_api_key": ErrorKind.INVALID_KEY,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
}
_BY_STATUS = {
    401: ErrorKind.INVALID_KEY,
    402: ErrorKind.QUOTA_EXHAUSTED,
    403: ErrorKind.INVALID_KEY,
    404: ErrorKind.MODEL_NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build the request: the caller's body with the upstream's name of the model, all else untouched."""
    headers = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return HttpRequest(
        url=deployment.base_url + call.url.removeprefix("/v1"),
        headers=headers,
        body=orjson.dumps(call.body | {"model": deployment.model}),
    )


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a chat completion, or embeddings."""
    answer = _object(response.body)
    if answer is None:
        return _broken(response, "the answer is not a JSON object")
    if answer.get("error"):
        return error(response)
    held = answer.get("data" if call.url.endswith("/embeddings") else "choices")
    if not isinstance(held, list) or not held:
        return _broken(response, "the answer holds no output")
    return Completion(
        body=response.body,
        usage=_usage(answer.get("usage")),
        model=_text(answer.get("model"), 256) or _text(call.body.get("model"), 256),
        request_id=_request_id(response),
    )


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer; a code in the envelope says more than the status."""
    envelope = (_object(response.body) or {}).get("error")
    said: dict[str, Any] = envelope if isinstance(envelope, dict) else {"message": envelope}
    message = _KEY.sub("sk-***", _text(said.get("message")))
    return ProviderError(
        _kind(response.status, said),
        message[:LONGEST_MESSAGE] or f"the provider answered with status {response.status}",
        retry_after=retry_after(response.headers),
        status=response.status,
        request_id=_request_id(response),
    )


def _kind(status: int, said: dict[str, Any]) -> ErrorKind:
    words = said.get("code"), said.get("type")
    for word in words:
        if isinstance(word, str) and word in _BY_CODE:
            kind = _BY_CODE[word]
            # More tokens than a whole minute's allowance are refused like a passing rate limit, but always will be.
            if kind is ErrorKind.RATE_LIMITED and _text(said.get("message")).startswith("Request too large"):
                return ErrorKind.CONTEXT_TOO_LONG
            return kind
    if status < 400:  # what had begun its 200 puts the status it means into the envelope
        status = next((word for word in words if isinstance(word, int) and 400 <= word <= 599), status)
        status = 500 if "server_error" in words else status
    return _BY_STATUS.get(status) or _by_class(status)


def _by_class(status: int) -> ErrorKind:
    if 400 <= status < 500:
        return ErrorKind.INVALID_REQUEST
    return ErrorKind.SERVER_ERROR if status >= 500 else ErrorKind.INVALID_RESPONSE


def _broken(response: HttpResponse, message: str) -> ProviderError:
    return ProviderError(ErrorKind.INVALID_RESPONSE, message, status=response.status, request_id=_request_id(response))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any, longest: int | None = None) -> str:
    """Return a text of the provider's so that it can be stored; nothing for what is no text."""
    return value[:longest].replace("\0", "\ufffd") if isinstance(value, str) else ""


def _request_id(response: HttpResponse) -> str | None:
    found = response.headers.get("x-request-id")
    return found[:256] if found and found.isprintable() else None


def _usage(given: Any) -> Usage:
    asked, answered = _tokens(given, "prompt_tokens"), _tokens(given, "completion_tokens")
    if asked is None:
        return Usage(estimated=True)
    output = answered or 0  # embeddings have none
    return Usage(
        input=asked,
        output=output,
        cached=min(_tokens(given.get("prompt_tokens_details"), "cached_tokens") or 0, asked),
        reasoning=min(_tokens(given.get("completion_tokens_details"), "reasoning_tokens") or 0, output),
    )


def _tokens(given: Any, name: str) -> int | None:
    value = given.get(name) if isinstance(given, dict) else None
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else None
