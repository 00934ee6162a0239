"""A chat completion as a message: the SDK's own type judges it."""

from typing import Any

import orjson
import pytest
from anthropic.types import Message

from shared.errors import ErrorKind, ProviderError
from shared.messages import from_chat
from shared.output_schema import answers_of, asked_again, schema_of
from shared.providers import Call, HttpResponse
from shared.serving import serving

MESSAGES = "/v1/messages"
BODY: dict[str, Any] = {"model": "fast", "max_tokens": 9, "stop_sequences": ["END"], "messages": []}
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def message(given: dict[str, Any], reason: str = "stop", *, usage: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": given, "finish_reason": reason, **more}
    completion = {"id": "chatcmpl-1", "model": "the-model", "choices": [choice], "usage": usage}
    found = from_chat(completion, BODY, id="msg_0a")
    Message.model_validate(found)
    return found


def call(arguments: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look", "arguments": arguments}, **more}


def test_words() -> None:
    assert message({"content": "Hello"}, usage=USAGE) == {
        "id": "msg_0a",
        "type": "message",
        "role": "assistant",
        "model": "the-model",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 20,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    }


def test_thoughts_words_and_calls() -> None:
    given = {"reasoning_content": "Hm.", "content": "I look.", "tool_calls": [call('{"a": 1}', id="c1"), call("")]}
    found = message(given, "tool_calls")
    assert found["stop_reason"] == "tool_use"
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_0a_1", "name": "look", "input": {}},
    ]


def test_signed_thoughts_come_as_they_are() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]
    assert message({"reasoning_content": "Hm.", "thinking_blocks": blocks})["content"] == blocks


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("function_call", "tool_use")],
)
def test_why_it_ended(reason: str, stop: str) -> None:
    assert message({"content": "x"}, reason)["stop_reason"] == stop


def test_a_refusal_a_matched_sequence_and_calls_that_nobody_announced() -> None:
    refused = message({"refusal": "No."}, "content_filter")
    assert refused["content"] == [{"type": "text", "text": "No."}]
    assert refused["stop_details"] == {"type": "refusal", "category": None, "explanation": "No."}
    matched = message({"content": "x"}, stop_reason="END")
    assert (matched["stop_reason"], matched["stop_sequence"]) == ("stop_sequence", "END")
    assert message({"content": "x"}, stop_reason="other")["stop_reason"] == "end_turn"
    assert message({"tool_calls": [call("{}")]})["stop_reason"] == "tool_use"


def test_nothing_at_all() -> None:
    found = from_chat({}, BODY, id="msg_0a")
    Message.model_validate(found)
    assert (found["content"], found["model"], found["usage"]["input_tokens"]) == ([], "fast", 0)


def test_arguments_that_were_cut_off_are_kept_and_broken_ones_are_no_answer() -> None:
    cut_off = message({"tool_calls": [call('{"a": "on')]}, "length")
    assert cut_off["content"][0]["input"] == {}
    assert message({"tool_calls": [call('{"a": 1, "b": "on')]}, "length")["content"][0]["input"] == {"a": 1}
    for broken in ('{"a": "on', "[]", "look!"):
        with pytest.raises(ValueError, match="arguments"):
            message({"tool_calls": [call(broken)]}, "tool_calls")


def test_what_must_fit_a_schema() -> None:
    schema = {"type": "object"}
    body = BODY | {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    assert schema_of(MESSAGES, body) is schema
    assert schema_of(MESSAGES, BODY | {"output_config": {"effort": "low"}}) is None
    assert answers_of(MESSAGES, message({"reasoning_content": "Hm.", "content": "{}"})) == ["{}"]
    assert answers_of(MESSAGES, message({"content": "{"}, "length")) == []
    assert answers_of(MESSAGES, message({"tool_calls": [call("{}")]})) == []
    again = asked_again(MESSAGES, body, "{", "no")["messages"]
    assert [one["role"] for one in again] == ["assistant", "user"]


@pytest.mark.parametrize("arguments", ["look!", '{"a": ' * 400 + "1" + "}" * 400])
def test_what_no_message_can_hold_is_an_invalid_answer(arguments: str) -> None:
    choice = {"index": 0, "message": {"tool_calls": [call(arguments)]}, "finish_reason": "tool_calls"}
    asked = Call(MESSAGES, BODY, "job_0a-1")
    speaks = serving("openai", MESSAGES)
    found = speaks.completion(HttpResponse(200, {}, orjson.dumps({"choices": [choice]})), asked)
    assert isinstance(found, ProviderError)
    assert found.kind is ErrorKind.INVALID_RESPONSE
    choice["delta"] = choice.pop("message")
    reader = speaks.stream(HttpResponse(200, {}, b""), asked)
    events = reader.feed(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\ndata: [DONE]\n\n") + reader.last()
    assert isinstance(reader.end(), ProviderError)
    assert events[0]["type"] == "message_start"
