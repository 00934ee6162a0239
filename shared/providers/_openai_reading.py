"""Answers in OpenAI's dialect as vendors really speak it: other names for the same, errors in many envelopes.

No vendor means anything else by these names, so that one reading serves them all, and servers nobody has listed.
"""

from typing import Any

import orjson

from shared.errors import ErrorKind, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, HttpResponse, StreamReader, openai
from shared.providers._dialect import broken, finished, json_object, request_id_of, text, token_count, usage_of
from shared.providers._openai_errors import error_in
from shared.providers._stream import ChunkStream

_CHAT = "/v1/chat/completions"
_FINISH = {
    "eos": "stop",
    "max_output": "length",
    "model_context_window_exceeded": "length",
    "model_length": "length",
    "sensitive": "content_filter",
}
_FAILED = {
    "error": ErrorKind.SERVER_ERROR,
    "insufficient_system_resource": ErrorKind.OVERLOADED,
    "network_error": ErrorKind.SERVER_ERROR,
}


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a chat completion or embeddings."""
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    if (found := _failure(answer, response)) is not None:
        return found
    return _whole(_shaped(answer), response, call) if call.url == _CHAT else openai.completion(response, call)


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed chat completion."""

    def translate(name: str, chunk: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        if name == "error":
            return error_in(chunk, head)
        return _failure(chunk, head) or [_shaped(chunk, streamed=True)]

    return ChunkStream(head, translate, lambda whole: _whole(whole, head, call))


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return error_in(json_object(response.body) or {}, response)


def _whole(answer: dict[str, Any], response: HttpResponse, call: Call) -> Completion | ProviderError:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return broken(response, "the answer holds no output")
    try:
        return finished(answer, call, usage_of(answer.get("usage")), request_id_of(response))
    except orjson.JSONEncodeError:
        return broken(response, "the answer is nested too deeply")


def _failure(answer: dict[str, Any], response: HttpResponse) -> ProviderError | None:
    """Return the error that an answer or a chunk is, None for a good one."""
    stated = token_count(answer.get("base_resp"), "status_code")  # MiniMax
    if answer.get("error") or answer.get("object") == "error" or answer.get("success") is False or stated:
        return error_in(answer, response)
    for choice in map(mapping, sequence(answer.get("choices"))):
        if choice.get("error"):
            return error_in(choice, response)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason in _FAILED:
            message = f"the provider ended the answer with `{reason}`"
            return ProviderError(_FAILED[reason], message, status=response.status, request_id=request_id_of(response))
    return None


def _shaped(answer: dict[str, Any], *, streamed: bool = False) -> dict[str, Any]:
    """Return an answer or a chunk with everything under OpenAI's names."""
    shape = answer | {"object": "chat.completion.chunk" if streamed else "chat.completion"}
    if isinstance(answer.get("choices"), list):
        # Perplexity repeats in the `message` of a chunk all that came before it.
        besides = "message" if streamed else "delta"
        shape["choices"] = [_choice(one, besides) for one in answer["choices"] if isinstance(one, dict)]
    created = answer.get("created")
    if isinstance(created, float):  # SambaNova is more exact than the SDKs can take
        shape["created"] = int(created) if 0 <= created < 2**53 else 0
    usage = answer.get("usage") or mapping(answer.get("x_groq")).get("usage")
    if isinstance(usage, dict):
        shape["usage"] = _usage(usage)
    return shape


def _choice(given: dict[str, Any], besides: str) -> dict[str, Any]:
    choice = {name: value for name, value in given.items() if name != besides}
    for name in ("message", "delta"):
        if isinstance(choice.get(name), dict):
            choice[name] = _message(choice[name])
    reason = given.get("finish_reason")
    if isinstance(reason, str):
        choice["finish_reason"] = _FINISH.get(reason, reason or None)
    return choice


def _message(given: dict[str, Any]) -> dict[str, Any]:
    message = dict(given)
    thought = message.get("reasoning_content")
    if isinstance(message.get("reasoning", ""), str | None):
        thought = message.pop("reasoning", None) or thought
    content = message.get("content")
    if isinstance(content, list):
        parts = list(map(mapping, content))
        message["content"] = "".join(text(part.get("text")) for part in parts if part.get("type") == "text") or None
        thoughts = (mapping(one) for part in parts for one in sequence(part.get("thinking")))
        thought = "".join(text(one.get("text")) for one in thoughts) or thought
    return message | {"reasoning_content": thought} if thought else message


def _usage(given: dict[str, Any]) -> dict[str, Any]:
    """Return a usage whose output includes reasoning and whose cached tokens are where OpenAI has them."""
    usage = dict(given)
    output, total = token_count(given, "completion_tokens"), token_count(given, "total_tokens")
    details = mapping(given.get("completion_tokens_details"))
    reasoning = token_count(details, "reasoning_tokens") or token_count(given, "reasoning_tokens")
    if output is not None and reasoning:
        # xAI and Perplexity count it besides: the total tells, and a part is never more than its whole.
        besides = total == (token_count(given, "prompt_tokens") or 0) + output + reasoning
        usage["completion_tokens"] = output + reasoning if besides or reasoning > output else output
        usage["completion_tokens_details"] = details | {"reasoning_tokens": reasoning}
    cached = token_count(given, "prompt_cache_hit_tokens") or token_count(given, "cached_tokens")
    prompt = mapping(given.get("prompt_tokens_details"))
    if cached and not token_count(prompt, "cached_tokens"):
        usage["prompt_tokens_details"] = prompt | {"cached_tokens": cached}
    return usage
