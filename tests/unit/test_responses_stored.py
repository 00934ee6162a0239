"""Stored responses: their events once more, the numbers of these, and what a later turn has of an earlier one."""

from typing import Any

import httpx
import orjson
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

from shared.responses import attempt_of, before, closes, continued, faults, from_chat, input_items, numbered, replay

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def stored(reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    completion = {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": usage}
    return from_chat(completion, {"model": "fast", "input": "hi"}, id="resp_0a", created=1)


@pytest.mark.parametrize(
    "response",
    [
        stored(content="Hello"),
        stored(content=""),
        stored("length", content="Hel"),
        stored(refusal="No."),
        stored(reasoning_content="Hm.", content="Hello", tool_calls=[CALL, CALL | {"id": "call_2"}]),
        stored(content=None, tool_calls=[{"id": "call_1", "function": {"name": "f", "arguments": ""}}]),
        stored(content="Hi")
        | {
            "output": [
                {
                    "id": "ws_1",
                    "type": "web_search_call",
                    "status": "completed",
                    "action": {"type": "search", "query": "x"},
                }
            ]
        },
    ],
)
def test_a_stored_response_is_streamed_once_more(response: dict[str, Any]) -> None:
    events = replay(response, attempt=1)
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [closes(event) for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["type"] == f"response.{response['status']}"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response["output"] == events[-1]["response"]["output"]
    body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    headers = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=body))
    with (
        OpenAI(api_key="k", http_client=httpx.Client(transport=transport)) as client,
        client.responses.stream(model="fast", input="hi") as stream,
    ):
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert said == Response.model_validate(response).output_text


def test_a_number_says_of_which_attempt_it_is() -> None:
    events = replay(stored(content="Hello"), attempt=3)
    assert events[0]["sequence_number"] == 0
    assert events[1]["sequence_number"] == before(3) + 1
    assert [attempt_of(event["sequence_number"]) for event in events] == [0] + [3] * (len(events) - 1)
    assert numbered({"type": "x"}, 1, 7) == {"type": "x", "sequence_number": 7}
    assert [attempt_of(number) for number in (-1, 0, 1, before(2), before(2) + 1)] == [0, 0, 1, 2, 2]


def test_a_later_turn_has_the_earlier_ones_before_it() -> None:
    first = stored(reasoning_content="Hm.", content="Hello", tool_calls=[CALL])
    body = {"model": "fast", "input": "And now?", "previous_response_id": "resp_0a", "instructions": "Be brief."}
    made = continued(body, {"input": "hi", "instructions": "Be long."}, first)
    assert made == body | {
        "input": [
            {"role": "user", "content": "hi"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'},
            {"role": "user", "content": "And now?"},
        ]
    }
    assert faults(made) == []
    third = continued({"input": [{"role": "user", "content": "more"}]}, made, stored(refusal="No."))
    assert third["input"][:4] == made["input"]
    assert third["input"][4]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert "input" in continued({"model": "m"}, made, first)


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ({"type": "reasoning", "id": "rs_1", "summary": []}, False),
        ({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}, True),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, False),
        ({"type": "mcp_list_tools", "id": "mcp_1", "tools": []}, False),
        ({"type": "mcp_approval_request", "id": "mcpr_1", "name": "n", "arguments": "{}", "server_label": "s"}, True),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a', "status": "incomplete"}, False),
        ({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ""}]}, False),
    ],
)
def test_what_says_nothing_without_its_vendor_is_not_carried_over(item: dict[str, Any], kept: bool) -> None:
    made = continued({"input": "b"}, {"input": "a"}, {"output": [item]})
    assert made["input"][1:-1] == ([item] if kept else [])


def test_the_input_of_a_response_is_listed_with_ids() -> None:
    body = {
        "input": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello"},
            {"id": "fc_own", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ]
    }
    items = input_items(body, "0a")
    for item in items:
        ITEM.validate_python(item)
    assert [item["id"] for item in items] == ["msg_0a_0", "msg_0a_1", "fc_own", "fco_0a_3"]
    assert [item["content"][0]["type"] for item in items[:2]] == ["input_text", "output_text"]
    [only] = input_items({"input": "hi"}, "0a")
    assert only["content"] == [{"type": "input_text", "text": "hi"}]
