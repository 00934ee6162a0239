"""Anthropic's Messages for callers who speak it themselves: bodies, answers and events pass as they are.

What this file knows of them is only what everybody must: which model, what was used, where an answer ends.
"""

import re
from typing import Any

import orjson

from shared.errors import Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.messages import BETA
from shared.providers import Call, Completion, HttpResponse, Usage
from shared.providers._anthropic_errors import read_error
from shared.providers._dialect import broken, finished, json_object, request_id_of, text, token_count, unsupported
from shared.providers._stream import SseDecoder

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def faults(call: Call) -> list[Fault]:
    """Return what cannot be passed on; all else the vendor judges itself."""
    names = call.body.get(BETA)
    if names is None or (
        isinstance(names, list) and all(isinstance(one, str) and _NAME.fullmatch(one) for one in names)
    ):
        return []
    return [unsupported(f"body.{BETA}", "must be a list of names")]


def sent(call: Call, model: str) -> tuple[dict[str, str], bytes]:
    """Return the headers that a request has besides, and its body."""
    names = call.body.get(BETA)
    body = {name: value for name, value in call.body.items() if name != BETA} | {"model": model}
    return {"anthropic-beta": ",".join(names)} if names else {}, orjson.dumps(body)


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer."""
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    return _whole(answer, response, call, response.body)


def usage_of(given: dict[str, Any]) -> Usage:
    """Read the vendor's `usage`, whose input does not count what the cache held or took."""
    fresh, output = token_count(given, "input_tokens"), token_count(given, "output_tokens")
    if fresh is None or output is None:
        return Usage(estimated=True)
    cached = token_count(given, "cache_read_input_tokens") or 0
    written = token_count(given, "cache_creation_input_tokens") or 0
    return Usage(
        input=fresh + cached + written,
        output=output,
        cached=cached,
        cache_write=written,
        reasoning=min(token_count(given.get("output_tokens_details"), "thinking_tokens") or 0, output),
    )


def tier_of(answer: dict[str, Any]) -> dict[str, str]:
    """Return the tier that a message was served at, by OpenAI's names."""
    tier = text(mapping(answer.get("usage")).get("service_tier"), 64)
    return {"service_tier": "default" if tier == "standard" else tier} if tier else {}


class MessageStream:
    """Reads a streamed message: its events pass, and are put together to the message they are."""

    def __init__(self, head: HttpResponse, call: Call) -> None:
        self._head, self._call = head, call
        self._decoder = SseDecoder()
        self._message: dict[str, Any] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        """Texts that are still arriving, by block and name: joined once."""
        self._error: ProviderError | None = None
        self.done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the events that these bytes complete."""
        return self._read([event.data for event in self._decoder.feed(data)])

    def last(self) -> list[dict[str, Any]]:
        """Return an event that no empty line followed."""
        return self._read([event.data for event in self._decoder.end()])

    def end(self) -> Completion | ProviderError:
        """Return the whole message."""
        self.last()
        if self._error is not None:
            return self._error
        if not self._message.get("stop_reason"):
            return broken(self._head, "the stream broke off")
        message = self._message | {"content": [dict(block) for block in self._message["content"]]}
        for (index, name), pieces in self._pieces.items():
            joined = "".join(pieces)
            own = {"input": json_object(joined.encode()) or {}} if name == "partial_json" else {name: joined}
            message["content"][index] |= own
        try:
            return _whole(message, self._head, self._call, orjson.dumps(message))
        except orjson.JSONEncodeError:
            return broken(self._head, "the answer is nested too deeply")

    def _read(self, spelled: list[str]) -> list[dict[str, Any]]:
        events = []
        for data in spelled:
            event = None if self.done else json_object(data.encode())
            if event is None or event.get("type") == "ping":
                continue
            if event.get("error"):
                self._error, self.done = read_error(event, self._head), True
                continue
            self._add(event)
            events.append(event)
        return events

    def _add(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                self._message = mapping(event.get("message")) | {"content": []}
                self._pieces = {}
            case "content_block_start":
                self._message.setdefault("content", []).append(dict(mapping(event.get("content_block"))))
            case "content_block_delta":
                self._grow(event.get("index"), mapping(event.get("delta")))
            case "message_delta":
                usage = {name: value for name, value in mapping(event.get("usage")).items() if value is not None}
                held = mapping(self._message.get("usage")) | usage
                told = event | mapping(event.get("delta")) | {"usage": held}
                self._message |= {name: told[name] for name in told if name not in ("type", "delta", "content")}
            case "message_stop":
                self.done = True

    def _grow(self, index: Any, delta: dict[str, Any]) -> None:
        """Add a piece to its block: texts follow each other, whatever they are called; the rest replaces."""
        content = self._message.get("content", [])
        if not isinstance(index, int) or not 0 <= index < len(content):
            return
        block = content[index]
        for name, value in delta.items():
            match name, value:
                case "type", _:
                    pass
                case "citation", _:
                    block["citations"] = [*sequence(block.get("citations")), value]
                case _, str():
                    self._pieces.setdefault((index, name), [text(block.get(name))]).append(value)
                case _:
                    block[name] = value


def _whole(answer: dict[str, Any], response: HttpResponse, call: Call, body: bytes) -> Completion | ProviderError:
    if answer.get("error"):
        return read_error(answer, response)
    if not isinstance(answer.get("content"), list) or not (answer["content"] or answer.get("stop_reason")):
        return broken(response, "the answer holds no output")
    usage = usage_of(mapping(answer.get("usage")))
    return finished(answer | tier_of(answer), call, usage, request_id_of(response), body=body)
