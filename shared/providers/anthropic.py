"""Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages), in OpenAI's shape.

Requests are translated in `_anthropic_request.py`; here answers are read, whole and streamed. What the model thought is
`reasoning_content`; `thinking_blocks` holds the same with the signatures that the vendor wants back in a later turn.
Who speaks the vendor's own dialect is served by `_anthropic_native.py`, where nothing is translated.
"""

from dataclasses import replace
from typing import Any

import orjson

from shared.errors import Fault, ProviderError
from shared.json_values import mapping
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, Usage
from shared.providers import _anthropic_native as native
from shared.providers._anthropic_errors import read_error
from shared.providers._anthropic_native import tier_of, usage_of
from shared.providers._anthropic_request import translated
from shared.providers._dialect import (
    broken,
    chat_completion,
    finished,
    json_object,
    request_id_of,
    text,
    tool_call,
    usage_shape,
)
from shared.providers._stream import ChunkStream

MESSAGES = "/v1/messages"
DEFAULT_BASE_URL = "https://api.anthropic.com/v1"
ROUTES = frozenset({"/v1/chat/completions", MESSAGES})

_VERSION = "2023-06-01"
"""The version that still takes `temperature` and `top_p`, for the models that do."""

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the vendor's own tools took too many rounds: what came is not the whole answer
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}


def faults(call: Call) -> list[Fault]:
    """Return what Anthropic cannot do of what is asked."""
    return native.faults(call) if call.url == MESSAGES else translated(call.body, call.model)[1]


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build a request to the Messages API."""
    headers = {
        "content-type": "application/json",
        "anthropic-version": _VERSION,
        "x-client-request-id": call.attempt_id,
    }
    if key:
        headers["x-api-key"] = key
    if call.url == MESSAGES:
        more, body = native.sent(call, deployment.model)
        headers |= more
    else:
        body = orjson.dumps(translated(call.body, deployment.model)[0])
    return HttpRequest(url=f"{deployment.base_url}/messages", headers=headers, body=body)


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models."""
    headers = {"anthropic-version": _VERSION, **({"x-api-key": key} if key else {})}
    return HttpRequest(url=f"{base_url}/models?limit=1", headers=headers, body=b"", method="GET")


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a message."""
    response = _identified(response)
    if call.url == MESSAGES:
        return native.completion(response, call)
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    if answer.get("error"):
        return read_error(answer, response)
    content, reason = answer.get("content"), answer.get("stop_reason")
    if not isinstance(content, list) or not (content or reason):
        return broken(response, "the answer holds no output")
    try:
        message = _message(content) | _refused(answer)
    except orjson.JSONEncodeError:
        return broken(response, "the arguments of a call are nested too deeply")
    usage = usage_of(mapping(answer.get("usage")))
    choice = {"message": message, "finish_reason": _finish(reason)}
    identity = _identity(answer)
    shape = chat_completion(id=identity["id"], model=identity["model"], choices=[choice], usage=usage)
    return finished(shape | tier_of(answer), call, usage, request_id_of(response))


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed message."""
    head = _identified(head)
    if call.url == MESSAGES:
        return native.MessageStream(head, call)
    chunks = _Chunks(head)

    def whole(shape: dict[str, Any]) -> Completion:
        shape["choices"] = [{"logprobs": None, **choice} for choice in shape["choices"]]
        return finished({"usage": None, **shape}, call, chunks.usage, request_id_of(head))

    return ChunkStream(head, chunks.of, whole)


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return read_error(json_object(response.body) or {}, _identified(response))


def _identified(response: HttpResponse) -> HttpResponse:
    """Return an answer with the vendor's request id where everybody else's is."""
    found = request_id_of(response, "request-id")
    return replace(response, headers=response.headers | {"x-request-id": found}) if found else response


def _identity(answer: dict[str, Any]) -> dict[str, str]:
    return {"id": text(answer.get("id"), 256), "model": text(answer.get("model"), 256)}


def _finish(reason: Any) -> str:
    return _FINISH.get(text(reason), "stop")


def _refused(told: dict[str, Any]) -> dict[str, str]:
    why = text(mapping(told.get("stop_details")).get("explanation"))
    return {"refusal": why} if why else {}


def _message(content: list[Any]) -> dict[str, Any]:
    """Return the message that blocks are; the vendor's own tools, which it has run itself, leave no trace in it."""
    words, thoughts, signed, calls = [], [], [], []
    for block in map(mapping, content):
        match block.get("type"):
            case "text":
                words.append(text(block.get("text")))
            case "thinking":
                thoughts.append(text(block.get("thinking")))
                signed.append(_thought(thoughts[-1], text(block.get("signature"))))
            case "redacted_thinking":
                signed.append({"type": "redacted_thinking", "data": text(block.get("data"))})
            case "tool_use":
                calls.append(tool_call(text(block.get("id")), text(block.get("name")), mapping(block.get("input"))))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words) or None}
    optional = {"reasoning_content": "".join(thoughts), "thinking_blocks": signed, "tool_calls": calls}
    return message | {name: value for name, value in optional.items() if value}


def _thought(words: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": words, "signature": signature}


class _Chunks:
    """Makes chunks of the events of one streamed message."""

    def __init__(self, head: HttpResponse) -> None:
        self._head = head
        self._shape: dict[str, str] = {"id": "", "model": ""}
        self._counted: dict[str, Any] = {}
        self._open: dict[int, dict[str, Any]] = {}
        self._calls = 0

    @property
    def usage(self) -> Usage:
        """What the call used, as far as the vendor has said."""
        return usage_of(self._counted)

    def of(self, _: str, event: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        """Return the chunks that an event is."""
        index = event.get("index")
        place = index if isinstance(index, int) else 0
        delta: dict[str, Any] = {}
        if event.get("error"):
            return read_error(event, self._head)
        match event.get("type"):
            case "message_start":
                started = mapping(event.get("message"))
                self._counted |= mapping(started.get("usage"))
                self._shape = _identity(started) | tier_of(started)
                delta = {"role": "assistant"}
            case "content_block_start":
                delta = self._begin(place, mapping(event.get("content_block")))
            case "content_block_delta" if place in self._open:
                delta = self._add(self._open[place], mapping(event.get("delta")))
            case "content_block_stop" if place in self._open:
                try:
                    delta = self._end(self._open.pop(place))
                except orjson.JSONEncodeError:
                    return broken(self._head, "the arguments of a call are nested too deeply")
            case "message_delta":
                return self._finish(event)
        return [self._chunk(delta)] if delta else []

    def _begin(self, place: int, block: dict[str, Any]) -> dict[str, Any]:
        opened: dict[str, Any] = {"type": block.get("type"), "pieces": []}
        self._open[place] = opened
        match block.get("type"):
            case "text":
                return _some("content", text(block.get("text")))
            case "thinking":
                opened["pieces"].append(text(block.get("thinking")))
                opened["signature"] = text(block.get("signature"))
                return _some("reasoning_content", opened["pieces"][0])
            case "redacted_thinking":
                return {"thinking_blocks": [{"type": "redacted_thinking", "data": text(block.get("data"))}]}
            case "tool_use":
                opened |= {"call": self._calls, "input": mapping(block.get("input"))}
                self._calls += 1
                call = tool_call(text(block.get("id")), text(block.get("name")), "")
                return {"tool_calls": [{"index": opened["call"], **call}]}
        return {}

    def _add(self, opened: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
        match opened["type"], delta.get("type"):
            case "text", "text_delta":
                return _some("content", text(delta.get("text")))
            case "thinking", "thinking_delta":
                opened["pieces"].append(text(delta.get("thinking")))
                return _some("reasoning_content", opened["pieces"][-1])
            case "thinking", "signature_delta":
                opened["signature"] += text(delta.get("signature"))
            case "tool_use", "input_json_delta" if piece := text(delta.get("partial_json")):
                opened["pieces"].append(piece)
                return _arguments(opened["call"], piece)
        return {}

    def _end(self, opened: dict[str, Any]) -> dict[str, Any]:
        match opened["type"]:
            case "thinking":
                return {"thinking_blocks": [_thought("".join(opened["pieces"]), opened["signature"])]}
            case "tool_use" if not opened["pieces"]:  # without arguments nothing is streamed, not even a `{}`
                return _arguments(opened["call"], orjson.dumps(opened["input"]).decode())
        return {}

    def _finish(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        told = mapping(event.get("delta"))
        self._counted |= {name: value for name, value in mapping(event.get("usage")).items() if value is not None}
        if not told.get("stop_reason"):
            return []
        usage = self.usage
        counted = [] if usage.estimated else [self._chunk(usage=usage_shape(usage))]
        return [self._chunk(_refused(told), _finish(told["stop_reason"])), *counted]

    def _chunk(self, delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {**self._shape, "object": "chat.completion.chunk", "created": 0, "choices": choices, **more}


def _some(name: str, words: str) -> dict[str, Any]:
    return {name: words} if words else {}


def _arguments(call: int, piece: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": call, "function": {"arguments": piece}}]}
