"""Streamed answers: server-sent events from bytes, and a whole completion from its chunks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from shared.errors import ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Completion, HttpResponse
from shared.providers._dialect import broken


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    data: str


class SseDecoder:
    """Decodes `text/event-stream` (https://html.spec.whatwg.org/multipage/server-sent-events.html), cut anywhere."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete."""
        self._rest.append(data)
        if b"\n" not in data:  # a line may be long, and is looked at once it is whole
            return []
        lines = b"".join(self._rest).split(b"\n")
        self._rest = [lines.pop()]
        return [event for line in lines if (event := self._line(line.rstrip(b"\r"))) is not None]

    def end(self) -> list[Event]:
        """Return the event that was not followed by an empty line, where the stream ended."""
        return [*self.feed(b"\n"), *self.feed(b"\n")]

    def _line(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None


class Assembly:
    """Puts a chat completion together from its chunks."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def finished(self) -> bool:
        """Whether every choice that began has said why it ended."""
        return bool(self._choices) and all(one["finish_reason"] is not None for one in self._choices.values())

    def add(self, chunk: dict[str, Any]) -> None:
        """Take one chunk in OpenAI's shape; what is not of that shape is passed over."""
        for name, value in chunk.items():
            if name not in ("choices", "object", "obfuscation") and value is not None:
                self._head[name] = value
        for given in sequence(chunk.get("choices")):
            index = mapping(given).get("index", 0)
            if not isinstance(given, dict) or not isinstance(index, int):
                continue
            choice = self._choices.setdefault(
                index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
            )
            _add_delta(choice["message"], mapping(given.get("delta")))
            for name, value in given.items():
                if name == "logprobs" and isinstance(value, dict):
                    _add_logprobs(choice, value)
                elif name not in ("delta", "index", "logprobs", "message") and value is not None:
                    choice[name] = value

    def completion(self) -> dict[str, Any]:
        """Return what came so far as a chat completion."""
        choices = [
            self._choices[index] | {"message": _joined(self._choices[index]["message"])}
            for index in sorted(self._choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices}


class ChunkStream:
    """A `StreamReader` over server-sent events.

    `translate` makes an event's JSON into chunks in OpenAI's shape, or into the error it is; it is called in order, and
    keeps what it must remember itself. `whole` reads the completion assembled from them.
    """

    def __init__(
        self,
        head: HttpResponse,
        translate: Callable[[str, dict[str, Any]], list[dict[str, Any]] | ProviderError],
        whole: Callable[[dict[str, Any]], Completion | ProviderError],
    ) -> None:
        self._head = head
        self._translate = translate
        self._whole = whole
        self._decoder = SseDecoder()
        self._assembly = Assembly()
        self._error: ProviderError | None = None
        self.done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the chunks that these bytes complete."""
        return self._read(self._decoder.feed(data))

    def last(self) -> list[dict[str, Any]]:
        """Return the chunks of an event that no empty line followed."""
        return self._read(self._decoder.end())

    def end(self) -> Completion | ProviderError:
        """Return the whole answer."""
        self.last()
        if self._error is not None:
            return self._error
        if not self._assembly.finished:
            return broken(self._head, "the stream broke off")
        try:
            return self._whole(self._assembly.completion())
        except orjson.JSONEncodeError:
            return broken(self._head, "the answer is nested too deeply")

    def _read(self, events: list[Event]) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        for event in events:
            if self._error is not None or event.data == "[DONE]":
                self.done = True
                continue
            try:
                value = orjson.loads(event.data)
            except orjson.JSONDecodeError:
                value = None
            found = self._translate(event.name, value) if isinstance(value, dict) else None
            if found is None:
                self._error = broken(self._head, "an event of the stream is not a JSON object")
            elif isinstance(found, ProviderError):
                self._error = found
            else:
                for chunk in found:
                    self._assembly.add(chunk)
                chunks += found
        return chunks


class _Pieces(list[str]):
    """A text that is still arriving: joined once, since adding to it again and again would copy it each time."""


def _joined(message: dict[str, Any]) -> dict[str, Any]:
    whole = {name: "".join(value) if isinstance(value, _Pieces) else value for name, value in message.items()}
    if "tool_calls" in message:
        calls = message["tool_calls"]
        whole["tool_calls"] = [_joined_call(calls[index]) for index in sorted(calls)]
    return whole


def _joined_call(call: dict[str, Any]) -> dict[str, Any]:
    if "function" not in call:
        return call
    return call | {"function": call["function"] | {"arguments": "".join(call["function"]["arguments"])}}


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for given in sequence(value):
                if isinstance(given, dict):
                    calls = message.setdefault("tool_calls", {})
                    _add_call(calls.setdefault(_place(given, calls), {}), given)
        elif isinstance(value, str) and name != "role":
            held = message.get(name)
            if not isinstance(held, _Pieces):
                held = message[name] = _Pieces()
            held.append(value)
        elif isinstance(value, list):
            held = message.get(name)
            message[name] = [*held, *value] if type(held) is list else value
        elif value is not None:
            message[name] = value


def _place(given: dict[str, Any], calls: dict[int, Any]) -> int:
    """Return which call a delta belongs to; without an index, an id begins another and what has none goes on."""
    index = given.get("index")
    if isinstance(index, int):
        return index
    last = max(calls, default=-1)
    return last + 1 if last < 0 or given.get("id") not in (None, calls[last].get("id")) else last


def _add_call(call: dict[str, Any], given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name == "function" and isinstance(value, dict):
            function = call.setdefault("function", {"name": "", "arguments": _Pieces()})
            if isinstance(value.get("name"), str) and value["name"]:
                function["name"] = value["name"]
            if isinstance(value.get("arguments"), str):
                function["arguments"].append(value["arguments"])
        elif name not in ("index", "function") and value is not None:
            call[name] = value


def _add_logprobs(choice: dict[str, Any], given: dict[str, Any]) -> None:
    held = choice.setdefault("logprobs", {})
    for name, value in given.items():
        if isinstance(value, list):
            held[name] = [*(held.get(name) or []), *value]
        else:
            held.setdefault(name, value)
