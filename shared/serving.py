"""Which adapter serves a route: the vendor's own, or, for `/v1/responses`, its chat underneath OpenAI's Responses."""

from dataclasses import replace
from functools import cache
from typing import Any, cast

import orjson

from shared import responses
from shared.errors import Fault, ProviderError
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


@cache
def serving(kind: str, url: str) -> Adapter:
    """Return what serves a route at providers of a kind; where nothing does, its `faults` say so."""
    speaks = adapter(kind)
    if url in speaks.ROUTES:
        return speaks
    if url == RESPONSES and _CHAT in speaks.ROUTES:
        return cast("Adapter", _ResponsesOverChat(speaks))
    return cast("Adapter", _NotServed(kind))


class _NotServed:
    """An adapter for a route that a vendor does not have."""

    DEFAULT_BASE_URL = ""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def faults(self, call: Call) -> list[Fault]:
        return [unsupported("url", f"{self._kind} does not serve {call.url}")]


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
        self._events = responses.Events(call.body, **_identity(call))

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        return [event for chunk in self._chunks.feed(data) for event in self._events.feed(chunk)]

    @property
    def done(self) -> bool:
        return self._chunks.done

    def last(self) -> list[dict[str, Any]]:
        """Return what was still open, and the events that close the response."""
        events = [event for chunk in self._chunks.last() for event in self._events.feed(chunk)]
        found = self._chunks.end()
        if isinstance(found, Completion):
            events += self._events.finish(orjson.loads(found.body))
        return events

    def end(self) -> Completion | ProviderError:
        return _as_response(self._chunks.end(), self._call)


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
