"""Which adapter serves a route: the vendor's own, or its chat underneath OpenAI's Responses and Anthropic's Messages.

Whoever makes a response, it is ours: it has its job's id, is kept here, and its events have numbers that say of which
attempt they are.
"""

from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, cast

import orjson

from shared import messages, responses
from shared.errors import ErrorKind, Fault, ProviderError
from shared.providers import (
    Adapter,
    Call,
    Completion,
    Deployment,
    HttpRequest,
    HttpResponse,
    StreamReader,
    adapter,
)
from shared.providers._dialect import unsupported

_CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"


@cache
def serving(kind: str, url: str) -> Adapter:
    """Return what serves a route at providers of a kind; where nothing does, its `faults` say so."""
    speaks = adapter(kind)
    if url == RESPONSES and url in speaks.ROUTES:
        return cast("Adapter", _OwnResponses(speaks))
    if url in speaks.ROUTES:
        return speaks
    if url == RESPONSES and _CHAT in speaks.ROUTES:
        return cast("Adapter", _ResponsesOverChat(speaks))
    if url == MESSAGES and _CHAT in speaks.ROUTES:
        return cast("Adapter", _MessagesOverChat(speaks, kind))
    return cast("Adapter", _NotServed(kind))


def closes(chunk: dict[str, Any]) -> bool:
    """Tell whether a chunk of any route's stream ends what the answer says; only its usage may follow."""
    if any(choice.get("finish_reason") for choice in chunk.get("choices") or ()):
        return True
    return responses.closes(chunk) or chunk.get("type") in ("message_delta", "message_stop")


class _NotServed:
    """An adapter for a route that a vendor does not have."""

    DEFAULT_BASE_URL = ""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def faults(self, call: Call) -> list[Fault]:
        return [unsupported("url", f"{self._kind} does not serve {call.url}")]


class _OwnResponses:
    """A vendor's own Responses."""

    def __init__(self, vendor: Adapter) -> None:
        self.vendor = vendor
        self.DEFAULT_BASE_URL = vendor.DEFAULT_BASE_URL

    def faults(self, call: Call) -> list[Fault]:
        """What the vendor stores under its key is of all tenants together: nobody may name any of it."""
        named = [f"body.{name}" for name in ("conversation", "prompt") if call.body.get(name)]
        given = call.body.get("input")
        named += [
            f"body.input[{index}]"
            for index, item in enumerate(given if isinstance(given, list) else ())
            if isinstance(item, dict) and item.get("type") == "item_reference"
        ]
        stored = [unsupported(name, "refers to what the provider stores, which is not kept apart") for name in named]
        return stored or self.vendor.faults(_upstream(call))

    def request(self, call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
        return self.vendor.request(_upstream(call), deployment, key)

    def completion(self, response: HttpResponse, call: Call) -> Completion | ProviderError:
        return _as_ours(self.vendor.completion(response, call), call)

    def stream(self, head: HttpResponse, call: Call) -> StreamReader:
        return _OwnEvents(self.vendor.stream(head, call), call)

    def error(self, response: HttpResponse) -> ProviderError:
        return self.vendor.error(response)


class _OwnEvents:
    """Reads the events of a vendor's response as ours."""

    def __init__(self, events: StreamReader, call: Call) -> None:
        self._events, self._call = events, call
        self._attempt, self._count = _attempt(call), 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        return [self._ours(event) for event in self._events.feed(data)]

    @property
    def done(self) -> bool:
        return self._events.done

    def last(self) -> list[dict[str, Any]]:
        return [self._ours(event) for event in self._events.last()]

    def end(self) -> Completion | ProviderError:
        return _as_ours(self._events.end(), self._call)

    def _ours(self, event: dict[str, Any]) -> dict[str, Any]:
        if isinstance(event.get("response"), dict):
            event = event | {"response": event["response"] | _kept(self._call)}
        if event.get("type") == "response.created":
            return responses.numbered(event, self._attempt, 0)
        self._count += 1  # the vendor's own numbers may leave some out
        return responses.numbered(event, self._attempt, self._count)


class _ResponsesOverChat:
    """OpenAI's Responses, made of a vendor's chat completions."""

    def __init__(self, chat: Adapter) -> None:
        self.chat = chat
        self.DEFAULT_BASE_URL = chat.DEFAULT_BASE_URL

    def faults(self, call: Call) -> list[Fault]:
        return responses.faults(call.body) or self.chat.faults(_as_chat(call))

    def request(self, call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
        return self.chat.request(_as_chat(call), deployment, key)

    def completion(self, response: HttpResponse, call: Call) -> Completion | ProviderError:
        return _as_response(self.chat.completion(response, _as_chat(call)), call)

    def stream(self, head: HttpResponse, call: Call) -> StreamReader:
        return _Events(self.chat.stream(head, _as_chat(call)), call)

    def error(self, response: HttpResponse) -> ProviderError:
        return self.chat.error(response)


class _Events:
    """Reads a streamed chat completion as the events of a response."""

    def __init__(self, chunks: StreamReader, call: Call) -> None:
        self._chunks, self._call = chunks, call
        self._events, self._attempt = responses.ChatToResponseEvents(call.body, **_identity(call)), _attempt(call)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        return self._numbered([event for chunk in self._chunks.feed(data) for event in self._events.feed(chunk)])

    @property
    def done(self) -> bool:
        return self._chunks.done

    def last(self) -> list[dict[str, Any]]:
        """Return what was still open, and the events that close the response."""
        events = [event for chunk in self._chunks.last() for event in self._events.feed(chunk)]
        found = self._chunks.end()
        if isinstance(found, Completion):
            events += self._events.finish(orjson.loads(found.body))
        return self._numbered(events)

    def _numbered(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [responses.numbered(event, self._attempt, event["sequence_number"]) for event in events]

    def end(self) -> Completion | ProviderError:
        return _as_response(self._chunks.end(), self._call)


class _MessagesOverChat:
    """Anthropic's Messages, made of a vendor's chat completions."""

    def __init__(self, chat: Adapter, kind: str) -> None:
        self.chat, self._kind = chat, kind
        self.DEFAULT_BASE_URL = chat.DEFAULT_BASE_URL

    def faults(self, call: Call) -> list[Fault]:
        found = messages.faults(call.body)
        return found or [messages.as_asked(fault, call.body) for fault in self.chat.faults(self._as_chat(call))]

    def request(self, call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
        return self.chat.request(self._as_chat(call), deployment, key)

    def completion(self, response: HttpResponse, call: Call) -> Completion | ProviderError:
        return _as_message(self.chat.completion(response, self._as_chat(call)), call)

    def stream(self, head: HttpResponse, call: Call) -> StreamReader:
        return _MessageEvents(self.chat.stream(head, self._as_chat(call)), call)

    def error(self, response: HttpResponse) -> ProviderError:
        return self.chat.error(response)

    def _as_chat(self, call: Call) -> Call:
        return replace(call, url=_CHAT, body=messages.to_chat(call.body, self._kind))


class _MessageEvents:
    """Reads a streamed chat completion as the events of a message."""

    def __init__(self, chunks: StreamReader, call: Call) -> None:
        self._chunks, self._call = chunks, call
        self._events = messages.Events(call.body, id=_message_id(call))

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        return [event for chunk in self._chunks.feed(data) for event in self._events.feed(chunk)]

    @property
    def done(self) -> bool:
        return self._chunks.done

    def last(self) -> list[dict[str, Any]]:
        """Return what was still open, and the events that close a message that is one."""
        events = [event for chunk in self._chunks.last() for event in self._events.feed(chunk)]
        found = self._chunks.end()
        if isinstance(found, Completion):
            with suppress(ValueError):
                events += self._events.finish(orjson.loads(found.body))
        return events

    def end(self) -> Completion | ProviderError:
        return _as_message(self._chunks.end(), self._call)


def _as_message(found: Completion | ProviderError, call: Call) -> Completion | ProviderError:
    if isinstance(found, ProviderError):
        return found
    try:
        shape = messages.from_chat(orjson.loads(found.body), call.body, id=_message_id(call))
        return replace(found, body=orjson.dumps(shape))
    except (ValueError, orjson.JSONEncodeError) as error:
        return ProviderError(ErrorKind.INVALID_RESPONSE, str(error), request_id=found.request_id)


def _message_id(call: Call) -> str:
    """Return the id of a job's message: the job's."""
    return "msg_" + call.attempt_id.removeprefix("job_").partition("-")[0]


def _upstream(call: Call) -> Call:
    """Return the call without what only we know of: our queue is the background, and earlier turns are in the input."""
    ours = ("background", "previous_response_id")
    return replace(call, body={name: value for name, value in call.body.items() if name not in ours})


def _kept(call: Call) -> dict[str, Any]:
    return responses.kept(call.body, id=_identity(call)["id"])


def _as_ours(found: Completion | ProviderError, call: Call) -> Completion | ProviderError:
    if isinstance(found, ProviderError):
        return found
    return replace(found, body=orjson.dumps(orjson.loads(found.body) | _kept(call)))


def _as_chat(call: Call) -> Call:
    return replace(call, url=_CHAT, body=responses.to_chat(call.body))


def _as_response(found: Completion | ProviderError, call: Call) -> Completion | ProviderError:
    if isinstance(found, ProviderError):
        return found
    shape = responses.from_chat(orjson.loads(found.body), call.body, **_identity(call))
    return replace(found, body=orjson.dumps(shape))


def _identity(call: Call) -> dict[str, Any]:
    """Return id and creation of a job's response: the id is the job's, and a UUIDv7 begins with its time."""
    digits = call.attempt_id.removeprefix("job_").partition("-")[0]
    return {"id": f"resp_{digits}", "created": int(digits[:12], 16) // 1000}


def _attempt(call: Call) -> int:
    """Return which attempt a call is; one that names none is the first."""
    number = call.attempt_id.partition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 1
