"""A streamed chat completion as the events of a streamed response, one output item after the other."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from shared.json_values import mapping, sequence, text
from shared.responses.answer import (
    call_item,
    from_chat,
    message_item,
    reasoning_item,
    refusal_part,
    shell,
    summary_part,
    text_part,
    token_logprobs,
)

_THOUGHT, _TEXT, _REFUSAL, _ARGUMENTS = (
    "reasoning_summary_text",
    "output_text",
    "refusal",
    "function_call_arguments",
)
_NAMES = {"summary_text": _THOUGHT, "output_text": _TEXT, "refusal": _REFUSAL}
"""What the events of a part are called, by the part's type."""


@dataclass(slots=True)
class _Item:
    """An output item as it was announced, and what was said of it: by the name of the events, in order of arrival."""

    begun: dict[str, Any]
    index: int
    said: dict[str, list[str]] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def at(self, name: str) -> dict[str, Any]:
        """Return where the text of a name stands."""
        place = {"item_id": self.begun["id"], "output_index": self.index}
        match name:
            case "function_call_arguments":
                return place
            case "reasoning_summary_text":
                return place | {"summary_index": 0}
            case _:
                return place | {"content_index": list(self.said).index(name)}

    def whole(self) -> dict[str, Any]:
        """Return reasoning or a message as it was said."""
        parts = [_part(name, "".join(pieces)) for name, pieces in self.said.items()]
        for part in parts:
            if part["type"] == _TEXT:
                part["logprobs"] = self.logprobs
        return self.begun | {_held(self.begun): parts, "status": "completed"}


@dataclass(slots=True)
class _Unnamed:
    """A tool call whose name has not come yet, and so could not be announced."""

    call: dict[str, Any] = field(default_factory=dict)
    arguments: str = ""


class ChatToResponseEvents:
    """Makes the events of a response from the chunks of one chat completion, in order.

    Reasoning and messages end where something else begins. A chat completion holds one of each, so the response at the
    end does too; a vendor that thinks or speaks again between its calls is heard as further items until then. Calls end
    with the answer, since chat may go on with any of them.
    """

    def __init__(self, body: dict[str, Any], *, id: str, created: int) -> None:
        self._body, self._id, self._created = body, id, created
        self._events: list[dict[str, Any]] = []
        self._sequence = 0
        self._count = 0
        self._current: _Item | None = None
        """The reasoning or the message that has not ended."""
        self._times: Counter[str] = Counter()
        self._length: Counter[str] = Counter()
        self._calls: dict[int, _Item] = {}
        self._unnamed: dict[int, _Unnamed] = {}

    def feed(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that a chunk is."""
        self._begin(chunk)
        for choice in sequence(chunk.get("choices")):
            if mapping(choice).get("index", 0) == 0:
                self._delta(mapping(mapping(choice).get("delta")), mapping(choice).get("logprobs"))
        return self._taken()

    def finish(self, completion: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that close the response; `completion` is what the chunks are together."""
        self._begin(completion)
        response = from_chat(completion, self._body, id=self._id, created=self._created)
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        said = {item["type"]: item for item in response["output"] if item["type"] != "function_call"}
        for item in said.values():
            self._rest(item)
        if self._current is not None:
            kind = self._current.begun["type"]
            self._leave(said.get(kind) if self._times[kind] == 1 else None)
        indexes = sorted({*self._calls, *self._unnamed})
        for number, item in enumerate(calls):
            self._end_call(self._calls.get(indexes[number]) if number < len(indexes) else None, item)
        self._say(f"response.{response['status']}", response=response)
        return self._taken()

    def _begin(self, given: dict[str, Any]) -> None:
        if self._sequence == 0:
            begun = shell(self._body, id=self._id, created=self._created, model=text(given.get("model")))
            self._say("response.created", response=begun)
            self._say("response.in_progress", response=begun)

    def _delta(self, delta: dict[str, Any], logprobs: Any) -> None:
        if thought := text(delta.get("reasoning_content")):
            self._add(self._enter(_THOUGHT), _THOUGHT, thought)
        if said := text(delta.get("content")):
            item, tokens = self._enter(_TEXT), token_logprobs(logprobs)
            item.logprobs += tokens
            self._add(item, _TEXT, said, logprobs=tokens)
        if refused := text(delta.get("refusal")):
            self._add(self._enter(_REFUSAL), _REFUSAL, refused)
        for position, call in enumerate(sequence(delta.get("tool_calls"))):
            if isinstance(call, dict):
                index = call.get("index")
                self._call(index if isinstance(index, int) else position, call)

    def _call(self, index: int, given: dict[str, Any]) -> None:
        arguments = text(mapping(given.get("function")).get("arguments"))
        if index not in self._calls:
            waiting = self._unnamed.setdefault(index, _Unnamed())
            waiting.call |= {name: value for name, value in given.items() if value}
            waiting.arguments += arguments
            if not text(mapping(waiting.call.get("function")).get("name")):
                return
            del self._unnamed[index]
            arguments = waiting.arguments
            self._leave()
            self._calls[index] = self._open(call_item(self._id, len(self._calls), waiting.call, "in_progress"))
        if arguments:
            self._add(self._calls[index], _ARGUMENTS, arguments)

    def _rest(self, item: dict[str, Any]) -> None:
        """Say what no chunk has said of reasoning or a message."""
        for part in item[_held(item)]:
            name = _NAMES[part["type"]]
            whole = text(part.get("text")) or text(part.get("refusal"))
            if len(whole) > self._length[name] or not self._times[item["type"]]:
                current = self._enter(name)
                if rest := whole[self._length[name] :]:
                    self._add(current, name, rest, **({"logprobs": []} if name == _TEXT else {}))

    def _enter(self, name: str) -> _Item:
        """Return the item that a text belongs to; where none of its type is open, it is announced."""
        begun = (reasoning_item if name == _THOUGHT else message_item)(self._id, [], "in_progress")
        kind = begun["type"]
        if self._current is None or self._current.begun["type"] != kind:
            self._leave()
            if self._times[kind]:
                begun["id"] += f"_{self._times[kind]}"
            self._times[kind] += 1
            self._current = self._open(begun)
        if name not in self._current.said:
            self._current.said[name] = []
            self._say(f"response.{_kind(name)}.added", **self._current.at(name), part=_part(name, ""))
        return self._current

    def _leave(self, whole: dict[str, Any] | None = None) -> None:
        """End the reasoning or message that is open; `whole` is the item, unless it is just what was said."""
        item, self._current = self._current, None
        if item is None:
            return
        whole = whole or item.whole()
        for part in whole[_held(whole)]:
            name = _NAMES[part["type"]]
            words = {key: part[key] for key in ("text", "refusal", "logprobs") if key in part}
            self._say(f"response.{name}.done", **item.at(name), **words)
            self._say(f"response.{_kind(name)}.done", **item.at(name), part=part)
        self._say("response.output_item.done", output_index=item.index, item=whole)

    def _end_call(self, item: _Item | None, whole: dict[str, Any]) -> None:
        arguments = whole["arguments"]
        if item is None:
            item = self._open(whole | {"arguments": "", "status": "in_progress"})
        if rest := arguments[sum(map(len, item.said.get(_ARGUMENTS, []))) :]:
            self._add(item, _ARGUMENTS, rest)
        self._say(f"response.{_ARGUMENTS}.done", **item.at(_ARGUMENTS), name=whole["name"], arguments=arguments)
        self._say("response.output_item.done", output_index=item.index, item=whole)

    def _open(self, begun: dict[str, Any]) -> _Item:
        item = _Item(begun, self._count)
        self._count += 1
        self._say("response.output_item.added", output_index=item.index, item=begun)
        return item

    def _add(self, item: _Item, name: str, said: str, /, **more: Any) -> None:
        item.said.setdefault(name, []).append(said)
        self._length[name] += len(said)
        self._say(f"response.{name}.delta", **item.at(name), delta=said, **more)

    def _say(self, type: str, /, **fields: Any) -> None:
        self._events.append({"type": type, "sequence_number": self._sequence, **fields})
        self._sequence += 1

    def _taken(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events


def _part(name: str, said: str) -> dict[str, Any]:
    match name:
        case "reasoning_summary_text":
            return summary_part(said)
        case "output_text":
            return text_part(said)
        case _:
            return refusal_part(said)


def _kind(name: str) -> str:
    """Return what the events of a part itself are called."""
    return "reasoning_summary_part" if name == _THOUGHT else "content_part"


def _held(item: dict[str, Any]) -> str:
    """Return the field of an item that holds its parts."""
    return "summary" if item["type"] == "reasoning" else "content"
