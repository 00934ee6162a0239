"""A streamed chat completion as the events of a streamed message, one block after the other.

Chat may go on with any of its calls at any time, a message only with its last block. So a block ends when another has
begun and it is over for certain: words and thoughts at once, a call when its arguments are a whole JSON object, which
nothing can be added to. Until then what belongs to later blocks waits.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.json_values import mapping, sequence, text
from shared.messages.answer import call_block, counted, from_chat, shell, whole_object

_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


@dataclass(slots=True)
class _Block:
    """A block as it is announced, what of it has not gone out yet, and what a call's arguments are so far."""

    begun: dict[str, Any]
    index: int
    pending: list[dict[str, Any]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    announced: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing can follow, another block having begun."""
        return self.begun["type"] != "tool_use" or whole_object("".join(self.arguments)) is not None

    def events(self) -> list[dict[str, Any]]:
        """Return what has not gone out yet."""
        found: list[dict[str, Any]] = []
        if not self.announced:
            found.append({"type": "content_block_start", "index": self.index, "content_block": self.begun})
            self.announced = True
        found += [{"type": "content_block_delta", "index": self.index, "delta": delta} for delta in self.pending]
        self.pending = []
        return found


class ChatToMessageEvents:
    """Makes the events of a message from the chunks of one chat completion, in order."""

    def __init__(self, body: dict[str, Any], *, id: str) -> None:
        self._body, self._id = body, id
        self._begun = False
        self._blocks: deque[_Block] = deque()
        """Those that have not ended: the first is going out."""
        self._count = 0
        self._calls: dict[int, _Block] = {}

    def feed(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that a chunk is."""
        events = self._begin(chunk)
        for choice in sequence(chunk.get("choices")):
            if mapping(choice).get("index", 0) == 0:
                self._delta(mapping(mapping(choice).get("delta")))
        return events + self._ready(ended=False)

    def finish(self, completion: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that close the message; `completion` is what the chunks are together.

        Raises ValueError as `from_chat`.
        """
        message = from_chat(completion, self._body, id=self._id)
        events = self._begin(completion) + self._ready(ended=True)
        return events + _closing(message, counted(completion.get("usage")))

    def _begin(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        if self._begun:
            return []
        self._begun = True
        begun = shell(self._body, id=self._id, model=text(given.get("model")))
        return [{"type": "message_start", "message": begun}]

    def _delta(self, delta: dict[str, Any]) -> None:
        if thought := text(delta.get("reasoning_content")):
            self._add("thinking", thought)
        for block in map(mapping, sequence(delta.get("thinking_blocks"))):
            self._thought(block)
        if said := text(delta.get("content")) + text(delta.get("refusal")):
            self._add("text", said)
        for position, call in enumerate(sequence(delta.get("tool_calls"))):
            if isinstance(call, dict):
                index = call.get("index")
                self._call(index if isinstance(index, int) else position, call)

    def _add(self, kind: str, words: str) -> None:
        named, held = _DELTAS[kind]
        block = self._blocks[-1] if self._blocks else None
        if block is None or block.begun["type"] != kind:
            block = self._open({"type": kind, held: ""} | ({"signature": ""} if kind == "thinking" else {}))
        block.pending.append({"type": named, held: words})

    def _thought(self, block: dict[str, Any]) -> None:
        """Take a whole thought: one whose words have come already adds its signature."""
        if block.get("type") != "thinking":
            self._open(block)
            return
        if not self._blocks or self._blocks[-1].begun["type"] != "thinking":
            self._add("thinking", text(block.get("thinking")))
        self._blocks[-1].pending.append({"type": "signature_delta", "signature": text(block.get("signature"))})

    def _call(self, index: int, call: dict[str, Any]) -> None:
        if index not in self._calls:
            self._calls[index] = self._open(call_block(self._id, len(self._calls), call))
        block = self._calls[index]
        if not block.announced and text(mapping(call.get("function")).get("name")):
            block.begun["name"] = call["function"]["name"]
            block.begun["id"] = text(call.get("id")) or block.begun["id"]
        if piece := text(mapping(call.get("function")).get("arguments")):
            block.arguments.append(piece)
            block.pending.append({"type": "input_json_delta", "partial_json": piece})

    def _open(self, begun: dict[str, Any]) -> _Block:
        block = _Block(begun, self._count)
        self._count += 1
        self._blocks.append(block)
        return block

    def _ready(self, *, ended: bool) -> list[dict[str, Any]]:
        """Return what can go out; of an answer that has `ended`, everything."""
        events: list[dict[str, Any]] = []
        while self._blocks:
            block = self._blocks[0]
            if block.begun.get("name") == "" and not ended:
                break
            events += block.events()
            if not ended and (len(self._blocks) == 1 or not block.over):
                break
            events.append({"type": "content_block_stop", "index": block.index})
            self._blocks.popleft()
        return events


def as_events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a whole message as the few events of a stream that has nothing more to say."""
    begun = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(map(mapping, sequence(message.get("content")))):
        begun, delta = block, None
        match block:
            case {"type": "text" | "thinking" as kind}:
                named, held = _DELTAS[kind]
                begun, delta = block | {held: ""}, {"type": named, held: text(block.get(held))}
            case {"type": "tool_use"}:
                spelled = orjson.dumps(block.get("input")).decode()
                begun, delta = block | {"input": {}}, {"type": "input_json_delta", "partial_json": spelled}
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        if delta is not None:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    return events + _closing(message, mapping(message.get("usage")))


def _closing(message: dict[str, Any], usage: dict[str, Any]) -> list[dict[str, Any]]:
    told = {name: message.get(name) for name in ("stop_reason", "stop_sequence", "stop_details") if name in message}
    return [{"type": "message_delta", "delta": told, "usage": usage}, {"type": "message_stop"}]
