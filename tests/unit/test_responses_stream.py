"""The events of a streamed response: the SDK's own types and accumulator judge them."""

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from shared.providers._stream import Assembly
from shared.responses import ChatToResponseEvents, from_chat

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
BODY: dict[str, Any] = {"model": "fast", "input": "hi", "stream": True, "tools": [TOOL]}

Delta = dict[str, Any]


def call(index: int, arguments: str = "", **more: Any) -> Delta:
    return {"tool_calls": [{"index": index, **more, "function": {"arguments": arguments}}]}


def opening(index: int, arguments: str = "") -> Delta:
    function = {"name": f"f{index}", "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}


def streamed(deltas: list[Delta], reason: str = "stop", **more: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events of a chat that streams these deltas, and the response of the whole."""
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    assembly, reading = Assembly(), ChatToResponseEvents(BODY, id="resp_0a", created=1_700_000_000)
    events = []
    for chunk in chunks:
        chunk |= {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model"}
        assembly.add(chunk)
        events += reading.feed(chunk)
    completion = orjson.loads(orjson.dumps(assembly.completion()))
    events += reading.finish(completion)
    whole = from_chat(completion, BODY, id="resp_0a", created=1_700_000_000)
    judge(events, whole)
    return events, whole


def judge(events: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Check what holds for every stream."""
    Response.model_validate(whole)
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == f"response.{whole['status']}"
    assert events[-1]["response"] == whole
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = {event["item"]["id"]: event for event in events if event["type"] == "response.output_item.done"}
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert done.keys() == {event["item"]["id"] for event in added} >= {item["id"] for item in whole["output"]}
    for event in added:
        assert done[event["item"]["id"]]["output_index"] == event["output_index"]
    if [event["item"]["id"] for event in added] == [item["id"] for item in whole["output"]]:
        assert [ordered(done[event["item"]["id"]]["item"]) for event in added] == [*map(ordered, whole["output"])]
    judge_order(events)


def ordered(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item whose parts stand in one order: a chat message does not say which of its two came first."""
    return item | {"content": sorted(item.get("content") or [], key=lambda part: str(part["type"]))}


def judge_order(events: list[dict[str, Any]]) -> None:
    """Check that reasoning and messages end before anything else begins, and that nothing follows an item's end."""
    current, ended = None, set()
    for event in events:
        item = event.get("item", {})
        if event["type"] == "response.output_item.added":
            assert current is None
            current = item["id"] if item["type"] != "function_call" else None
        elif event["type"] == "response.output_item.done":
            ended.add(item["id"])
            current = None if item["id"] == current else current
        else:
            assert event.get("item_id") not in ended


def said(events: list[dict[str, Any]], name: str) -> str:
    """Return the deltas of a name, joined."""
    return "".join(event["delta"] for event in events if event["type"] == f"response.{name}.delta")


def arguments(events: list[dict[str, Any]]) -> dict[str, str]:
    """Return the deltas of arguments, joined by the id of the call they belong to."""
    found: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.function_call_arguments.delta":
            found[event["item_id"]] = found.get(event["item_id"], "") + event["delta"]
    return found


def held(whole: dict[str, Any], kind: str, name: str) -> str:
    """Return what a response holds in its parts of a kind."""
    parts = [part for item in whole["output"] for part in item.get("content", item.get("summary", []))]
    return "".join(part[name] for part in parts if part["type"] == kind)


def asked(whole: dict[str, Any]) -> dict[str, str]:
    """Return the arguments of a response's calls that have any."""
    calls = [item for item in whole["output"] if item["type"] == "function_call"]
    return {item["id"]: item["arguments"] for item in calls if item["arguments"]}


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_text() -> None:
    events, _ = streamed([{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}])
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    at = {"item_id": "msg_0a", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    assert events[3]["part"] == part | {"text": ""}
    assert events[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        **at,
        "delta": "Hel",
        "logprobs": [],
    }
    assert events[6] == {
        "type": "response.output_text.done",
        "sequence_number": 6,
        **at,
        "text": "Hello",
        "logprobs": [],
    }
    assert events[7] == {"type": "response.content_part.done", "sequence_number": 7, **at, "part": part}
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["model"] == "the-model"


def test_reasoning_ends_where_the_answer_begins() -> None:
    events, whole = streamed([{"reasoning_content": "Hm"}, {"reasoning_content": "."}, {"content": "Yes"}])
    assert types(events)[2:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    assert events[8]["item"] == whole["output"][0]


def test_parallel_calls() -> None:
    deltas = [opening(0), call(0, '{"a"'), opening(1, "{"), call(0, ":1}"), call(1, "}")]
    events, whole = streamed(deltas, "tool_calls")
    assert arguments(events) == {"fc_0a_0": '{"a":1}', "fc_0a_1": "{}"}
    ended = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [(event["name"], event["arguments"]) for event in ended] == [("f0", '{"a":1}'), ("f1", "{}")]
    assert [item["call_id"] for item in whole["output"]] == ["call_0", "call_1"]


def test_calls_whose_name_comes_late_or_whose_numbers_have_gaps() -> None:
    named = {"tool_calls": [{"index": 2, "function": {"name": "f2", "arguments": "}"}}]}
    events, whole = streamed([call(2, "{", id="call_2"), named, opening(5, "[]")], "tool_calls")
    assert arguments(events) == {"fc_0a_0": "{}", "fc_0a_1": "[]"}
    assert [item["name"] for item in whole["output"]] == ["f2", "f5"]
    streamed([call(0, "{}", id="call_0")], "tool_calls")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_incomplete(reason: str) -> None:
    events, whole = streamed([{"content": "Hel"}], reason)
    assert events[-1]["type"] == "response.incomplete"
    assert whole["output"][0]["status"] == "incomplete"


def test_a_refusal() -> None:
    events, _ = streamed([{"refusal": "I "}, {"refusal": "can't."}])
    assert types(events)[3:8] == [
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
    ]
    assert events[6]["refusal"] == "I can't."


def test_an_answer_of_nothing() -> None:
    events, whole = streamed([{"role": "assistant", "content": ""}])
    assert types(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert whole["output"][0]["content"][0]["text"] == ""


def test_logprobs() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    events, whole = streamed([{"content": "a"}], logprobs=logprobs)
    expected = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    assert [event["logprobs"] for event in events if "logprobs" in event] == [expected, expected]
    assert whole["output"][0]["content"][0]["logprobs"] == expected


def test_what_no_chunk_said_is_said_at_the_end() -> None:
    reading = ChatToResponseEvents(BODY, id="resp_0a", created=1)
    events = reading.feed({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
    calls = [{"id": "call_0", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": "Hello", "tool_calls": calls}
    completion = {"model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    events += reading.finish(completion)
    judge(events, from_chat(completion, BODY, id="resp_0a", created=1))
    assert said(events, "output_text") == "Hello"
    assert arguments(events) == {"fc_0a_0": "{}"}


def test_only_the_first_choice_counts() -> None:
    reading = ChatToResponseEvents(BODY, id="resp_0a", created=1)
    assert len(reading.feed({"choices": [{"index": 1, "delta": {"content": "other"}}]})) == 2
    assert reading.feed({"choices": [None, {"index": 0, "delta": None}]}) == []


TEXTS = st.text(max_size=6)
ANSWERS = st.lists(
    st.builds(lambda text: {"content": text}, TEXTS)
    | st.builds(lambda text: {"refusal": text}, TEXTS)
    | st.builds(call, st.integers(0, 2), TEXTS)
    | st.builds(
        lambda text, index, arguments: {"content": text} | call(index, arguments), TEXTS, st.integers(0, 2), TEXTS
    ),
    max_size=12,
)
THOUGHTS = st.lists(st.builds(lambda text: {"reasoning_content": text}, TEXTS), max_size=4)


def named(deltas: list[Delta]) -> list[Delta]:
    """Return deltas where a call begins with its id and name, and calls begin in their order."""
    numbers: dict[int, int] = {}
    made = []
    for delta in deltas:
        for piece in delta.get("tool_calls", []):
            begins = piece["index"] not in numbers
            number = numbers.setdefault(piece["index"], len(numbers))
            delta = delta | (opening if begins else call)(number, piece["function"]["arguments"])
        made.append(delta)
    return made


def test_who_speaks_or_thinks_again_is_heard_again() -> None:
    deltas = [
        {"reasoning_content": "a"},
        {"content": "b"},
        {"reasoning_content": "c"},
        opening(0, "{}"),
        {"content": "d"},
    ]
    events, whole = streamed(deltas, "tool_calls")
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert added == ["rs_0a", "msg_0a", "rs_0a_1", "fc_0a_0", "msg_0a_1"]
    assert [item["id"] for item in whole["output"]] == ["rs_0a", "msg_0a", "fc_0a_0"]
    assert held(whole, "summary_text", "text") == "ac"
    assert held(whole, "output_text", "text") == "bd"


@given(THOUGHTS, ANSWERS, st.sampled_from(["stop", "length"]), st.randoms(use_true_random=False), st.booleans())
def test_deltas_make_the_whole(
    thoughts: list[Delta], answers: list[Delta], reason: str, random: Any, between: bool
) -> None:
    deltas = named(answers)
    for position, thought in enumerate(thoughts):
        deltas.insert(random.randint(0, len(deltas)) if between else position, thought)
    events, whole = streamed(deltas, reason)
    assert said(events, "reasoning_summary_text") == held(whole, "summary_text", "text")
    assert said(events, "output_text") == held(whole, "output_text", "text")
    assert said(events, "refusal") == held(whole, "refusal", "refusal")
    assert arguments(events) == asked(whole)


def sse(events: list[dict[str, Any]]) -> httpx.MockTransport:
    text = "".join(f"event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n" for event in events)
    return httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())
    )


FULL = [
    {"reasoning_content": "Hm"},
    {"reasoning_content": "."},
    {"content": "Let me "},
    {"content": "see."},
    opening(0),
    call(0, '{"city":'),
    call(0, '"Rome"}'),
    opening(1, "{}"),
]


def test_the_sdk_accumulates_the_stream() -> None:
    events, whole = streamed(FULL, "tool_calls")
    client = OpenAI(api_key="k", base_url="http://x.example/v1", http_client=httpx.Client(transport=sse(events)))
    with client.responses.stream(model="fast", input="hi") as stream:
        seen = [(event.type, getattr(event, "snapshot", None)) for event in stream]
        final = stream.get_final_response()
    assert ("response.output_text.delta", "Let me see.") in seen
    assert ("response.function_call_arguments.delta", '{"city":"Rome"}') in seen
    assert len(seen) == len(events)
    assert final.output_text == "Let me see."
    assert final.usage is not None
    assert final.usage.total_tokens == 5
    assert [item.id for item in final.output] == [item["id"] for item in whole["output"]]


async def test_the_asynchronous_sdk_iterates_the_stream() -> None:
    events, _ = streamed(FULL, "tool_calls")
    http_client = httpx.AsyncClient(transport=sse(events))
    client = AsyncOpenAI(api_key="k", base_url="http://x.example/v1", http_client=http_client)
    seen = [event.type async for event in await client.responses.create(model="fast", input="hi", stream=True)]
    assert seen == [event["type"] for event in events]
    await client.close()
