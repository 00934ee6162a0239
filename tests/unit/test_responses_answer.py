"""A chat completion as a response that OpenAI's SDK can read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from shared.responses import faults, from_chat, to_chat

BODY: dict[str, Any] = {"model": "fast", "input": "hi"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None}


def completion(message: dict[str, Any], reason: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "the-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, "logprobs": None}
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        **more,
    }


def response(
    message: dict[str, Any], reason: str = "stop", body: dict[str, Any] | None = None, **more: Any
) -> Response:
    made = from_chat(completion(message, reason, **more), BODY | (body or {}), id="resp_0a", created=1_700_000_000)
    return Response.model_validate(made)


def test_text() -> None:
    made = from_chat(completion({"content": "Hello"}), BODY, id="resp_0a", created=1_700_000_000)
    assert made == {
        "id": "resp_0a",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "the-model",
        "output": [
            {
                "id": "msg_0a",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": None,
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": None,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 17,
        },
        "user": None,
    }
    assert Response.model_validate(made).output_text == "Hello"


def test_what_was_asked_is_echoed() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "service_tier": "flex",
        "temperature": 0.5,
        "text": {"format": schema, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "f"},
        "tools": [TOOL],
        "top_logprobs": 2,
        "top_p": 0.9,
        "user": "u",
    }
    made = from_chat(completion({"content": "{}"}), BODY | asked, id="resp_0a", created=1)
    Response.model_validate(made)
    assert {name: made[name] for name in asked} == asked


def test_reasoning_text_and_calls_in_this_order() -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    message = {"content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": calls}
    made = response(message, "tool_calls")
    assert [(item.type, item.id) for item in made.output] == [
        ("reasoning", "rs_0a"),
        ("message", "msg_0a"),
        ("function_call", "fc_0a_0"),
        ("function_call", "fc_0a_1"),
    ]
    assert made.output[0].to_dict()["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert [item.to_dict()["call_id"] for item in made.output[2:]] == ["call_1", "call_0a_1"]
    assert made.output[2].to_dict()["arguments"] == '{"a":1}'
    assert made.status == "completed"


def test_what_was_answered_can_be_sent_back() -> None:
    message = {
        "content": "Let me see.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    made = from_chat(completion(message), BODY, id="resp_0a", created=1)
    body = {
        "model": "fast",
        "input": [*made["output"], {"type": "function_call_output", "call_id": "call_1", "output": ""}],
    }
    assert faults(body) == []
    assert to_chat(body)["messages"][0] == {"role": "assistant", **message}


def test_a_refusal() -> None:
    made = response({"content": None, "refusal": "I can't."})
    assert made.output[0].to_dict()["content"] == [{"type": "refusal", "refusal": "I can't."}]
    assert made.status == "completed"


@pytest.mark.parametrize(("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_incomplete(reason: str, said: str) -> None:
    made = response({"content": "Hel", "reasoning_content": "Hm."}, reason)
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == said
    assert [item.to_dict()["status"] for item in made.output] == ["completed", "incomplete"]


def test_an_answer_of_nothing_has_an_empty_text() -> None:
    made = response({"content": None})
    assert [item.type for item in made.output] == ["message"]
    assert made.output_text == ""


def test_logprobs_have_bytes() -> None:
    tokens = [{"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1}]}]
    given = completion({"content": "é"})
    given["choices"][0]["logprobs"] = {"content": tokens}
    made = from_chat(given, BODY, id="resp_0a", created=1)
    Response.model_validate(made)
    assert made["output"][0]["content"][0]["logprobs"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
        }
    ]


def test_citations() -> None:
    cited = {"url": "https://x.example", "title": "X", "start_index": 0, "end_index": 2}
    made = response({"content": "Hello", "annotations": [{"type": "url_citation", "url_citation": cited}]})
    assert made.output[0].to_dict()["content"][0]["annotations"] == [{"type": "url_citation", **cited}]  # type: ignore[index]


def test_a_vendors_own_tier_and_a_missing_usage_are_null() -> None:
    made = response({"content": "Hello"}, service_tier="on_demand", usage=None)
    assert made.service_tier is None
    assert made.usage is None
    assert response({"content": "Hello"}, service_tier="priority").service_tier == "priority"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["index", "message", "content", "tool_calls", "function", "url_citation", "token"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage", "model"]), JSON), JSON)
def test_any_completion_at_all_is_a_response(given: dict[str, Any], held: Any) -> None:
    message = {"content": held, "tool_calls": held, "annotations": held}
    for each in (given, given | {"choices": [{"message": message, "logprobs": {"content": held}}]}):
        assert from_chat(each, BODY, id="resp_0a", created=1)["output"]
