"""The events of a streamed message: the SDK's own types and accumulator judge them."""

from itertools import groupby, pairwise
from typing import Any

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.messages import Events, as_events, from_chat
from shared.providers._stream import Assembly

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
BODY: dict[str, Any] = {"model": "fast", "max_tokens": 9, "messages": [], "stream": True}

Delta = dict[str, Any]
EventsOf = list[dict[str, Any]]


def piece(index: int, arguments: str) -> Delta:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def opening(index: int, arguments: str = "") -> Delta:
    function = {"name": f"f{index}", "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}


def streamed(deltas: list[Delta], reason: str = "stop") -> tuple[list[EventsOf], dict[str, Any]]:
    """Return the events of each chunk of a chat that streams these deltas, and the message of the whole."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    assembly, reading = Assembly(), Events(BODY, id="msg_0a")
    groups = []
    for chunk in chunks:
        chunk |= {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model"}
        assembly.add(chunk)
        groups.append(reading.feed(chunk))
    completion = orjson.loads(orjson.dumps(assembly.completion()))
    groups.append(reading.finish(completion))
    whole = from_chat(completion, BODY, id="msg_0a")
    judge([event for group in groups for event in group], whole)
    return groups, whole


def judge(events: EventsOf, whole: dict[str, Any]) -> None:
    """Check what holds for every stream: one block after the other, and together they are the message."""
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip
    blocks = events[1:-2]
    for before, after in pairwise(blocks):
        opens = after["type"] == "content_block_start"
        assert opens == (before["type"] == "content_block_stop")
        assert after["index"] == before["index"] + opens
    assert not blocks or (blocks[0]["index"], blocks[-1]["type"]) == (0, "content_block_stop")
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        snapshot = accumulate_event(event=EVENT.validate_python(event), current_snapshot=snapshot, json_bufs=buffers)
    said = snapshot.to_dict(mode="json")
    for block in said["content"]:
        block.pop("parsed_output", None)
    assert ordered(said["content"]) == ordered(whole["content"])
    assert {name: said[name] for name in ("id", "model", "stop_reason", "usage")} == {
        name: whole[name] for name in ("id", "model", "stop_reason", "usage")
    }


def ordered(content: list[Any]) -> list[Any]:
    """Return blocks in one order: a chat completion does not say which of them came first."""
    return sorted(content, key=lambda block: orjson.dumps(block, option=orjson.OPT_SORT_KEYS))


def deltas_of(groups: list[EventsOf]) -> list[list[Any]]:
    return [[event["delta"] for event in group if event["type"] == "content_block_delta"] for group in groups]


def test_words_go_out_as_they_come() -> None:
    groups, _ = streamed([{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}])
    said = [{"type": "text_delta", "text": "Hel"}], [{"type": "text_delta", "text": "lo"}]
    assert deltas_of(groups)[1:3] == [*said]
    assert groups[-1] == [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                   "output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip


def test_a_thought_with_its_signature_then_words_then_calls() -> None:
    signed = {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "sig"}]}
    hidden = {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]}
    deltas = [
        {"reasoning_content": "H"}, {"reasoning_content": "m."}, signed, hidden, {"content": "I look."},
        opening(0, '{"a"'), piece(0, ": 1}"), opening(1), piece(1, "{}"),
    ]  # fmt: skip
    groups, whole = streamed(deltas, "tool_calls")
    assert [block["type"] for block in whole["content"]] == [
        "thinking", "redacted_thinking", "text", "tool_use", "tool_use",
    ]  # fmt: skip
    assert deltas_of(groups)[6] == [{"type": "input_json_delta", "partial_json": ": 1}"}], "a call is streamed"
    assert deltas_of(groups)[8] == [{"type": "input_json_delta", "partial_json": "{}"}], "so is the one after it"


def test_calls_that_come_mixed_are_told_one_after_the_other() -> None:
    deltas = [opening(0), opening(1), piece(1, '{"b"'), piece(0, '{"a": '), piece(1, ": 2}"), piece(0, "1}")]
    groups, _ = streamed(deltas, "tool_calls")
    first, second = ({"type": "input_json_delta", "partial_json": one} for one in ('{"b"', ": 2}"))
    begun, ended = ({"type": "input_json_delta", "partial_json": one} for one in ('{"a": ', "1}"))
    assert deltas_of(groups)[:7] == [[], [], [], [begun], [], [ended, first, second], []]


def test_a_call_waits_for_its_name() -> None:
    late = [{"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, opening(0, "}")]
    groups, whole = streamed(late, "tool_calls")
    assert groups[0][1:] == []
    assert whole["content"][0]["name"] == "f0"


def test_a_refusal_and_a_cut_off_call() -> None:
    groups, _ = streamed([{"refusal": "No."}], "content_filter")
    assert groups[-1][-2]["delta"]["stop_details"]["type"] == "refusal"
    streamed([opening(0, '{"a": 1, ')], "length")


def test_broken_arguments_are_no_message() -> None:
    reading = Events(BODY, id="msg_0a")
    with pytest.raises(ValueError, match="arguments"):
        reading.finish({"choices": [{"message": {"tool_calls": opening(0, "{")["tool_calls"]}}]})


WORDS = st.text(max_size=3)
DELTAS = st.one_of(
    WORDS.map(lambda word: {"content": word}),
    WORDS.map(lambda word: {"reasoning_content": word}),
    st.integers(0, 2).map(lambda index: opening(index, "")),
)


@given(st.lists(DELTAS, max_size=8), st.randoms())
def test_any_order_of_deltas_makes_a_message(deltas: list[Delta], rng: Any) -> None:
    kinds = [kind for kind, _ in groupby(name for delta in deltas for name, said in delta.items() if said)]
    assume(kinds.count("content") <= 1 and kinds.count("reasoning_content") <= 1)  # so has a completion
    left = {delta["tool_calls"][0]["index"]: ['{"k": ', "[1, 2]", "}"] for delta in deltas if "tool_calls" in delta}
    pieces = []
    while left:
        index = rng.choice(sorted(left))
        pieces.append(piece(index, left[index].pop(0)))
        left = {index: rest for index, rest in left.items() if rest}
    streamed([*deltas, *pieces], "tool_calls")


def test_a_whole_message_as_events() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t", "name": "look", "input": {"a": [1]}},
        {"type": "redacted_thinking", "data": "x"},
    ]
    whole = {
        "id": "msg_0a", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2},
    }  # fmt: skip
    judge(as_events(whole), whole)
