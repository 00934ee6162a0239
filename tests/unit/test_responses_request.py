"""A response's request as a chat completions request, and what chat cannot express."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_includable import ResponseIncludable
from pydantic import TypeAdapter

from shared.responses import faults, to_chat

USER = {"role": "user", "content": "hi"}
CHAT = TypeAdapter(CompletionCreateParamsNonStreaming)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def chat(**body: Any) -> dict[str, Any]:
    """Return the chat request of a request that has no faults, without what it always has."""
    whole = {"model": "m", "input": "hi", **body}
    assert faults(whole) == []
    made = to_chat(whole)
    CHAT.validate_python(made)
    assert made.pop("model") == "m"
    if "input" not in body and "instructions" not in body:
        assert made.pop("messages") == [USER]
    return made


def messages(*items: Any, **body: Any) -> list[dict[str, Any]]:
    made = chat(input=list(items), **body)["messages"]
    assert isinstance(made, list)
    return made


def params(**body: Any) -> list[tuple[str, str]]:
    return [(fault.param, fault.code) for fault in faults({"model": "m", "input": "hi", **body})]


def lacking(*names: str) -> list[tuple[str, str]]:
    return [(name, "unsupported_parameter") for name in names]


def malformed(*names: str) -> list[tuple[str, str]]:
    return [(name, "invalid_request") for name in names]


def call(number: int, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{number}", "call_id": f"c{number}", "name": "f", "arguments": arguments}


def output(number: int, said: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"c{number}", "output": said}


def called(number: int, arguments: str = "{}") -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_plain_input() -> None:
    assert to_chat({"model": "m", "input": "hi"}) == {"model": "m", "messages": [USER]}
    assert messages({"role": "user", "content": "hi"}, instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        USER,
    ]


def test_parameters_of_the_same_name_and_unknown_ones_pass() -> None:
    same = {
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "stream": False,
        "seed": 7,
        "stop": ["x"],
    }
    assert chat(**same) == same
    assert to_chat({"model": "m", "input": "hi", "stream": True, "safe_prompt": True}) == {
        "model": "m",
        "messages": [USER],
        "stream": True,
        "safe_prompt": True,
    }


def test_what_means_nothing_here_is_left_out() -> None:
    assert chat(
        background=True,
        store=True,
        truncation="disabled",
        max_tool_calls=3,
        stream_options={"include_obfuscation": False},
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        previous_response_id="resp_1",
        text={"format": {"type": "text"}},
        include=[],
        top_logprobs=0,
        n=1,
        modalities=["text"],
    ) == {"n": 1, "modalities": ["text"]}


def test_renamed_parameters() -> None:
    assert chat(max_output_tokens=9, reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "high"}) == {
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "verbosity": "high",
    }


def test_formats() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    assert chat(text={"format": {"type": "json_schema", **schema}}) == {
        "response_format": {"type": "json_schema", "json_schema": schema}
    }
    assert chat(text={"format": {"type": "json_object"}}) == {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_logprobs(asked: dict[str, Any], made: dict[str, Any]) -> None:
    assert chat(**asked) == made


def test_tools() -> None:
    nested = {"type": "function", "function": {name: value for name, value in WEATHER.items() if name != "type"}}
    made = chat(tools=[WEATHER | {"defer_loading": False, "cache_control": {"type": "ephemeral"}}])
    assert made == {"tools": [nested | {"cache_control": {"type": "ephemeral"}}]}
    assert chat(tools=[WEATHER], parallel_tool_calls=False) == {"tools": [nested], "parallel_tool_calls": False}
    assert chat(tools=[{"type": "function", "name": "f", "parameters": None, "strict": None}]) == {
        "tools": [{"type": "function", "function": {"name": "f"}}]
    }


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
        ),
    ],
)
def test_tool_choice(choice: Any, made: Any) -> None:
    assert chat(tools=[WEATHER], tool_choice=choice)["tool_choice"] == made


def test_content_parts() -> None:
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low", "file_id": None},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    assert messages({"type": "message", "role": "user", "content": parts}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ]


def test_a_single_text_is_a_string_unless_it_says_more() -> None:
    marked = {"type": "input_text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    assert messages(
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": [marked]},
    ) == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
    ]


def test_an_assistants_turn_is_one_message() -> None:
    said = {"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []}
    assert messages(
        USER,
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "status": "completed",
        },
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]},
        call(1),
        call(2, '{"a":1}'),
        output(1),
        output(2, [{"type": "input_text", "text": "two"}]),
        {"role": "assistant", "content": "Done."},
        USER,
    ) == [
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hm.",
            "tool_calls": [called(1), called(2, '{"a":1}')],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "assistant", "content": "Done."},
        USER,
    ]


def test_items_in_an_order_that_chat_does_not_have() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert messages(
        call(1),
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        thought,
        call(2),
        output(1),
    ) == [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "tool_calls": [called(1), called(2)],
            "reasoning_content": "Hm.",
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    assert messages({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert messages({"role": "assistant", "content": "a"}, thought, {"role": "assistant", "content": "b"}) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "Hm."},
    ]


def test_refusals_and_empty_reasoning() -> None:
    refused = {"type": "refusal", "refusal": "No."}
    empty = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert messages(empty, {"role": "assistant", "content": [refused]}, USER) == [
        {"role": "assistant", "content": [refused]},
        USER,
    ]


@pytest.mark.parametrize(
    "kind",
    ["web_search", "file_search", "code_interpreter", "computer_use_preview", "mcp", "image_generation", "custom"],
)
def test_tools_that_are_no_functions(kind: str) -> None:
    assert params(tools=[WEATHER, {"type": kind, "name": "x"}]) == lacking("body.tools[1]")
    assert params(tools=[WEATHER], tool_choice={"type": kind, "name": "x"}) == lacking("body.tool_choice")
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": kind}]}
    assert params(tools=[WEATHER], tool_choice=allowed) == lacking("body.tool_choice.tools[0]")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"conversation": "conv_1"}, lacking("body.conversation")),
        ({"prompt": {"id": "pmpt_1"}}, lacking("body.prompt")),
        ({"truncation": "auto"}, lacking("body.truncation")),
        ({"context_management": [{"type": "compaction"}]}, lacking("body.context_management")),
        ({"moderation": {"model": "m"}}, lacking("body.moderation")),
        ({"max_tokens": 3, "response_format": {}}, lacking("body.max_tokens", "body.response_format")),
        ({"n": 2}, lacking("body.n")),
        ({"modalities": ["text", "audio"]}, lacking("body.modalities")),
        ({"reasoning": {"summary": "concise"}}, lacking("body.reasoning.summary")),
        ({"reasoning": {"mode": "pro", "max_tokens": 1}}, lacking("body.reasoning.max_tokens", "body.reasoning.mode")),
        ({"text": {"format": {"type": "grammar"}}}, lacking("body.text.format")),
        ({"tools": [WEATHER | {"defer_loading": True}]}, lacking("body.tools[0].defer_loading")),
        ({"tools": "x"}, malformed("body.tools")),
        ({"tools": [1, {"type": "function"}]}, malformed("body.tools[0]", "body.tools[1].name")),
        ({"tools": [WEATHER | {"parameters": []}]}, malformed("body.tools[0].parameters")),
        ({"tool_choice": "weather"}, malformed("body.tool_choice")),
        ({"tool_choice": 1}, malformed("body.tool_choice")),
        ({"tool_choice": {"type": "function"}}, malformed("body.tool_choice")),
        ({"text": "json"}, malformed("body.text")),
        ({"text": {"format": "json"}}, malformed("body.text.format")),
        ({"text": {"format": {"type": "json_schema"}}}, malformed("body.text.format")),
        ({"reasoning": {"effort": 3}}, malformed("body.reasoning.effort")),
        ({"include": "logprobs"}, malformed("body.include")),
        ({"top_logprobs": True}, malformed("body.top_logprobs")),
        ({"instructions": []}, malformed("body.instructions")),
        ({"input": []}, malformed("body.input")),
        ({"input": None}, malformed("body.input")),
    ],
)
def test_parameters_that_are_faults(body: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert params(**body) == found


def test_only_logprobs_can_be_included() -> None:
    every = list(get_args(ResponseIncludable))
    others = [f"body.include[{index}]" for index, name in enumerate(every) if name != "message.output_text.logprobs"]
    assert params(include=every) == lacking(*others)


AT = "body.input[0]"


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ({"type": "item_reference", "id": "msg_1"}, lacking(AT)),
        ({"id": "msg_1"}, lacking(AT)),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, lacking(AT)),
        ({"type": "custom_tool_call", "call_id": "c", "name": "x", "input": "y"}, lacking(AT)),
        ({"type": "reasoning", "summary": [], "encrypted_content": "x"}, lacking(f"{AT}.encrypted_content")),
        ({"type": "reasoning", "summary": [{"text": "Hm."}]}, malformed(AT)),
        ({"type": "reasoning", "summary": "Hm."}, malformed(f"{AT}.summary")),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, malformed(f"{AT}.arguments")),
        ({"type": "function_call", "arguments": ""}, malformed(f"{AT}.call_id", f"{AT}.name")),
        (call(1) | {"namespace": "n"}, lacking(f"{AT}.namespace")),
        (output(1), malformed(f"{AT}.call_id")),
        ({"type": 7}, malformed(f"{AT}.type")),
        ("hi", malformed(AT)),
        ({"role": "tool", "content": "x"}, malformed(f"{AT}.role")),
        ({"role": "user"}, malformed(f"{AT}.content")),
        ({"role": "user", "content": ["x"]}, malformed(f"{AT}.content[0]")),
        ({"role": "user", "content": [{"type": "input_text"}]}, malformed(f"{AT}.content[0].text")),
        ({"role": "user", "content": [{"type": "input_image"}]}, malformed(f"{AT}.content[0].image_url")),
        ({"role": "user", "content": [{"type": "input_file"}]}, malformed(f"{AT}.content[0].file_data")),
        ({"role": "user", "content": [{"type": "input_audio"}]}, malformed(f"{AT}.content[0].input_audio")),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, lacking(f"{AT}.content[0].file_id")),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, lacking(f"{AT}.content[0].file_id")),
        ({"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}, lacking(f"{AT}.content[0].file_url")),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, lacking(f"{AT}.content[0]")),
        ({"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}, lacking(f"{AT}.content[0]")),
    ],
)
def test_items_that_are_faults(item: Any, found: list[tuple[str, str]]) -> None:
    assert params(input=[item]) == found


def test_a_tool_can_only_answer_in_text() -> None:
    image = {"type": "input_image", "image_url": "https://x.example/a.png"}
    assert params(input=[call(1), output(1, [image])]) == lacking("body.input[1].output[0]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["message", "function", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "summary", "call_id", "format", "tools"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "top_logprobs", "truncation", "n"]
)
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "item_reference", "x"])


@given(st.dictionaries(NAMES, JSON, max_size=4), st.lists(st.tuples(KINDS, JSON), max_size=3))
def test_any_body_at_all_can_be_read(body: dict[str, Any], items: list[tuple[str, Any]]) -> None:
    shaped = [{"type": kind, "role": "user", "content": held, "summary": held, "output": held} for kind, held in items]
    for each in (body, body | {"input": shaped}):
        assert isinstance(faults(each), list)
        assert isinstance(to_chat(each)["messages"], list)
