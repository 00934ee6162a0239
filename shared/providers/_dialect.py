"""OpenAI's shapes, into which every adapter reads its vendor's answers, and the care that reading them takes."""

import base64
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from shared.errors import ErrorKind, Fault, ProviderError
from shared.providers import Call, Completion, HttpResponse, Usage
from shared.retry import retry_after

LONGEST_MESSAGE = 1_000
MOST_TOKENS = 10**9
"""No call has more: a usage beyond it is nonsense, not a bill."""

BY_STATUS = {
    401: ErrorKind.INVALID_KEY,
    402: ErrorKind.QUOTA_EXHAUSTED,
    403: ErrorKind.INVALID_KEY,
    404: ErrorKind.MODEL_NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    413: ErrorKind.INVALID_REQUEST,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}


def kind_of(status: int) -> ErrorKind:
    """Return what a status says where the body says nothing better."""
    if status in BY_STATUS:
        return BY_STATUS[status]
    if 400 <= status < 500:
        return ErrorKind.INVALID_REQUEST
    return ErrorKind.SERVER_ERROR if status >= 500 else ErrorKind.INVALID_RESPONSE


def unsupported(param: str, message: str) -> Fault:
    """Return the fault of something in a request that a vendor cannot do."""
    return Fault(param, message, "unsupported_parameter")


def refusal(response: HttpResponse, kind: ErrorKind, message: str, *, request_id: str | None = None) -> ProviderError:
    """Return the error that an answer is; without a `message` the status is said."""
    return ProviderError(
        kind,
        message[:LONGEST_MESSAGE] or f"the provider answered with status {response.status}",
        retry_after=retry_after(response.headers),
        status=response.status,
        request_id=request_id or request_id_of(response),
    )


def broken(response: HttpResponse, message: str) -> ProviderError:
    """Return the error that a 2xx answer is which cannot be used."""
    return ProviderError(
        ErrorKind.INVALID_RESPONSE, message, status=response.status, request_id=request_id_of(response)
    )


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return a body that is a JSON object, None for any other."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def text(value: Any, longest: int | None = None) -> str:
    """Return a text of the provider's so that it can be stored; nothing for what is no text."""
    return value[:longest].replace("\0", "\ufffd") if isinstance(value, str) else ""


def request_id_of(response: HttpResponse, *names: str) -> str | None:
    """Return the vendor's id of a request, from the first of the headers `names` (and `x-request-id`)."""
    for name in (*names, "x-request-id"):
        found = response.headers.get(name)
        if found and found.isprintable():
            return found[:256]
    return None


def token_count(given: Any, name: str) -> int | None:
    """Return a number of tokens, None for what is none."""
    value = given.get(name) if isinstance(given, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def usage_of(given: Any) -> Usage:
    """Read OpenAI's `usage`, of chat, embeddings or responses; one that makes no sense is to be estimated."""
    asked = token_count(given, "prompt_tokens")
    asked = token_count(given, "input_tokens") if asked is None else asked
    if asked is None:
        return Usage(estimated=True)
    output = token_count(given, "completion_tokens")
    output = (token_count(given, "output_tokens") if output is None else output) or 0  # embeddings have none
    of_input = given.get("prompt_tokens_details") or given.get("input_tokens_details")
    of_output = given.get("completion_tokens_details") or given.get("output_tokens_details")
    cached = min(token_count(of_input, "cached_tokens") or 0, asked)
    return Usage(
        input=asked,
        output=output,
        cached=cached,
        cache_write=min(token_count(of_input, "cache_write_tokens") or 0, asked - cached),
        reasoning=min(token_count(of_output, "reasoning_tokens") or 0, output),
    )


def usage_shape(usage: Usage) -> dict[str, Any]:
    """Return a usage in the shape of OpenAI's chat completions; what the vendor did not say is null."""
    shape: dict[str, Any] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    if usage.cache_write:
        shape["prompt_tokens_details"]["cache_write_tokens"] = usage.cache_write
    return shape


def chat_completion(
    *, id: str, model: str, choices: Sequence[dict[str, Any]], usage: Usage, created: int = 0, **more: Any
) -> dict[str, Any]:
    """Return a chat completion in OpenAI's shape; a choice is `{"message": {…}, "finish_reason": …}`."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": index, "logprobs": None, **choice} for index, choice in enumerate(choices)],
        "usage": None if usage.estimated else usage_shape(usage),
        **more,
    }


def tool_call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's shape; `arguments` is JSON as text, or what shall become it."""
    spelled = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return {"id": id, "type": "function", "function": {"name": name, "arguments": spelled}}


def embeddings_shape(vectors: Iterable[Sequence[float]], call: Call, *, model: str, usage: Usage) -> dict[str, Any]:
    """Return embeddings in OpenAI's shape, as base64 of little-endian float32s where the caller asked for that."""
    as_text = call.body.get("encoding_format") == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if as_text else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    counted = None if usage.estimated else {"prompt_tokens": usage.input, "total_tokens": usage.input}
    return {"object": "list", "model": model, "data": rows, "usage": counted}


def finished(
    shape: dict[str, Any], call: Call, usage: Usage, request_id: str | None, *, body: bytes | None = None
) -> Completion:
    """Return a good answer from its OpenAI shape; `body` is the same as bytes, where there are such."""
    return Completion(
        body=orjson.dumps(shape) if body is None else body,
        usage=usage,
        model=text(shape.get("model"), 256) or text(call.body.get("model"), 256),
        request_id=request_id,
        service_tier=text(shape.get("service_tier"), 64) or None,
    )
