"""Cohere's v2 API (https://docs.cohere.com/reference/chat), in OpenAI's shape.

Requests are translated in `_cohere_request.py`; here answers are read, whole and streamed. What the model thought, and
its plan for calling tools, is `reasoning_content`; `citations` are passed on as the vendor says them. Its answers name
no model: theirs is the one that was asked.
"""

import re
from dataclasses import replace
from typing import Any

import orjson

from shared.errors import ErrorKind, Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, Usage
from shared.providers._cohere_request import chat, embedding
from shared.providers._dialect import (
    broken,
    chat_completion,
    embeddings_shape,
    finished,
    json_object,
    kind_of,
    refusal,
    request_id_of,
    text,
    token_count,
    tool_call,
    usage_shape,
)
from shared.providers._stream import ChunkStream

DEFAULT_BASE_URL = "https://api.cohere.com/v2"
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings"})

_PATHS = {"/v1/chat/completions": "/chat", "/v1/embeddings": "/embed"}
_FINISH = {"MAX_TOKENS": "length", "ERROR_LIMIT": "length", "TOOL_CALL": "tool_calls", "ERROR_TOXIC": "content_filter"}
_FAILED = {"ERROR": ErrorKind.SERVER_ERROR, "TIMEOUT": ErrorKind.TIMEOUT}
_BY_STATUS = {
    498: ErrorKind.CONTENT_FILTERED,  # the request or its answer holds a word on a list of forbidden ones
    499: ErrorKind.SERVER_ERROR,  # "cancelled", and it was not by us, who would no longer read it
    501: ErrorKind.INVALID_REQUEST,
}
_BY_WORDS = {  # the vendor gives errors no codes
    "max tokens must be": ErrorKind.INVALID_REQUEST,
    "too many tokens": ErrorKind.CONTEXT_TOO_LONG,
    "calls / month": ErrorKind.QUOTA_EXHAUSTED,
    "blocked output": ErrorKind.CONTENT_FILTERED,
    "blocked input": ErrorKind.CONTENT_FILTERED,
}
_KEY = re.compile(r"\b[A-Za-z0-9]{40}\b")
_GREATEST = 3.4e38
"""The greatest number that fits into the four bytes which OpenAI's base64 gives each."""


def faults(call: Call) -> list[Fault]:
    """Return what Cohere cannot do of what is asked."""
    return _translated(call, "")[1]


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build a request to the v2 API."""
    headers = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    if key:
        headers["authorization"] = f"Bearer {key}"
    body, _ = _translated(call, deployment.model)
    return HttpRequest(url=deployment.base_url + _PATHS[call.url], headers=headers, body=orjson.dumps(body))


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models, which is in the v1 API."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{base_url.removesuffix('/v2')}/v1/models?page_size=1"
    return HttpRequest(url=url, headers=headers, body=b"", method="GET")


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a message or embeddings."""
    response = _identified(response)
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    if call.url == "/v1/embeddings":
        return _embeddings(answer, response, call)
    message, reason = answer.get("message"), text(answer.get("finish_reason"))
    if not isinstance(message, dict):
        return _error(answer, response) if message else broken(response, "the answer holds no output")
    if reason in _FAILED:
        return refusal(response, _FAILED[reason], text(answer.get("error")) or "the generation failed")
    said = _message(message)
    if not reason and said.keys() <= {"role", "content"} and not said["content"]:
        return broken(response, "the answer holds no output")
    usage = _usage(mapping(answer.get("usage")))
    logprobs = _logprobs(sequence(answer.get("logprobs")))
    choice = {"message": said, "logprobs": logprobs, "finish_reason": _finish(reason)}
    shape = chat_completion(id=text(answer.get("id"), 256), model=_model(call), choices=[choice], usage=usage)
    return finished(shape, call, usage, request_id_of(response))


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed message."""
    head = _identified(head)
    chunks = _Chunks(head, _model(call))

    def whole(shape: dict[str, Any]) -> Completion:
        shape["choices"] = [{"logprobs": None, **choice} for choice in shape["choices"]]
        return finished({"usage": None, **shape}, call, chunks.usage, request_id_of(head))

    return ChunkStream(head, chunks.of, whole)


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return _error(json_object(response.body) or {}, _identified(response))


def _translated(call: Call, model: str) -> tuple[dict[str, Any], list[Fault]]:
    return (embedding if call.url == "/v1/embeddings" else chat)(call.body, model)


def _model(call: Call) -> str:
    return call.model or text(call.body.get("model"), 256)


def _identified(response: HttpResponse) -> HttpResponse:
    """Return an answer with the vendor's trace id where everybody else's request id is."""
    found = request_id_of(response, "x-debug-trace-id")
    return replace(response, headers=response.headers | {"x-request-id": found}) if found else response


def _error(answer: dict[str, Any], response: HttpResponse) -> ProviderError:
    message = text(answer.get("message")) or text(answer.get("error"))
    kind = _BY_STATUS.get(response.status) or kind_of(response.status)
    if not 500 <= response.status <= 599:
        said = message.lower()
        kind = next((found for words, found in _BY_WORDS.items() if words in said), kind)
    return refusal(response, kind, _KEY.sub("***", message))


def _finish(reason: str) -> str:
    return _FINISH.get(reason, "stop")


def _usage(given: dict[str, Any]) -> Usage:
    """Read the vendor's `usage`: `tokens` are all that the model read and wrote, `billed_units` only what it charges.

    What it adds to a prompt by itself is free of charge but counts against its limits, hence the former.
    """
    for counted in (given.get("tokens"), given.get("billed_units")):
        asked, output = token_count(counted, "input_tokens"), token_count(counted, "output_tokens")
        if asked is not None:
            cached = min(token_count(given, "cached_tokens") or 0, asked)
            return Usage(input=asked, output=output or 0, cached=cached)
    return Usage(estimated=True)


def _embeddings(answer: dict[str, Any], response: HttpResponse, call: Call) -> Completion | ProviderError:
    vectors = mapping(answer.get("embeddings")).get("float")
    if vectors is None and answer.get("message"):
        return _error(answer, response)
    if not isinstance(vectors, list) or not vectors or not all(map(_is_vector, vectors)):
        return broken(response, "the answer holds no embeddings")
    usage = _usage(mapping(answer.get("meta")))
    return finished(
        embeddings_shape(vectors, call, model=_model(call), usage=usage), call, usage, request_id_of(response)
    )


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < _GREATEST for one in value
    )


def _logprobs(items: list[Any]) -> dict[str, Any] | None:
    """Return OpenAI's `logprobs`; where one text stands for several tokens its probability is their product."""
    content = []
    for item in map(mapping, items):
        token = text(item.get("text"))
        sums = [one for one in sequence(item.get("logprobs")) if isinstance(one, int | float)]
        spelled = list(token.encode())
        content.append({"token": token, "logprob": float(sum(sums)), "bytes": spelled, "top_logprobs": []})
    return {"content": content, "refusal": None} if content else None


def _call(given: dict[str, Any]) -> dict[str, Any]:
    function = mapping(given.get("function"))
    return tool_call(text(given.get("id")), text(function.get("name")), text(function.get("arguments")) or "{}")


def _message(given: dict[str, Any]) -> dict[str, Any]:
    words, thoughts = [], []
    for part in map(mapping, sequence(given.get("content"))):
        words.append(text(part.get("text")))
        thoughts.append(text(part.get("thinking")))
    optional = {
        "reasoning_content": "".join([*thoughts, text(given.get("tool_plan"))]),
        "tool_calls": [_call(one) for one in map(mapping, sequence(given.get("tool_calls")))],
        "citations": [one for one in sequence(given.get("citations")) if isinstance(one, dict)],
    }
    message = {"role": "assistant", "content": "".join(words) or None}
    return message | {name: value for name, value in optional.items() if value}


class _Chunks:
    """Makes chunks of the events of one streamed message."""

    def __init__(self, head: HttpResponse, model: str) -> None:
        self.usage = Usage(estimated=True)
        self._head = head
        self._shape = {"id": "", "model": model}
        self._calls: dict[int, int] = {}
        self._silent: set[int] = set()

    def of(self, name: str, event: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        """Return the chunks that an event is."""
        told = mapping(event.get("delta"))
        message = mapping(told.get("message"))
        delta: dict[str, Any] = {}
        match event.get("type", name):
            case "message-start":
                self._shape["id"] = text(event.get("id"), 256)
                delta = {"role": "assistant"}
            case "content-start" | "content-delta":
                part = mapping(message.get("content"))
                said = {"content": text(part.get("text")), "reasoning_content": text(part.get("thinking"))}
                delta = {name: words for name, words in said.items() if words}
            case "tool-plan-delta" if plan := text(message.get("tool_plan")):
                delta = {"reasoning_content": plan}
            case "tool-call-start" | "tool-call-delta" | "tool-call-end" as step:
                delta = self._called(step, event.get("index"), mapping(message.get("tool_calls")))
            case "citation-start" if citation := mapping(message.get("citations")):
                delta = {"citations": [citation]}
            case "message-end":
                return self._finish(told)
            case _ if event.get("message") or event.get("error"):
                return _error(event, self._head)
        logprobs = _logprobs([event["logprobs"]]) if isinstance(event.get("logprobs"), dict) else None
        return [self._chunk(delta, logprobs=logprobs)] if delta else []

    def _called(self, step: str, index: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Return the delta of a call: the vendor counts them from wherever it likes, OpenAI from 0."""
        number = self._calls.setdefault(index if isinstance(index, int) else 0, len(self._calls))
        function = mapping(given.get("function"))
        arguments = text(function.get("arguments"))
        if step == "tool-call-start":
            call = tool_call(text(given.get("id")), text(function.get("name")), arguments)
            self._silent |= set() if arguments else {number}
            return {"tool_calls": [{"index": number, **call}]}
        if step == "tool-call-end" and number in self._silent:
            arguments = "{}"
        self._silent -= {number} if arguments else set()
        return {"tool_calls": [{"index": number, "function": {"arguments": arguments}}]} if arguments else {}

    def _finish(self, told: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        reason = text(told.get("finish_reason"))
        if told.get("error") or reason in _FAILED:
            kind = _FAILED.get(reason, ErrorKind.SERVER_ERROR)
            return refusal(self._head, kind, _KEY.sub("***", text(told.get("error"))) or "the generation failed")
        if not reason:
            return broken(self._head, "the stream ends without a reason")
        self.usage = _usage(mapping(told.get("usage")))
        counted = [] if self.usage.estimated else [self._chunk(usage=usage_shape(self.usage))]
        return [self._chunk({}, _finish(reason)), *counted]

    def _chunk(
        self,
        delta: dict[str, Any] | None = None,
        reason: str | None = None,
        *,
        logprobs: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason} | ({"logprobs": logprobs} if logprobs else {})
        choices = [] if delta is None else [choice]
        return {**self._shape, "object": "chat.completion.chunk", "created": 0, "choices": choices, **more}
