"""An Anthropic request as a chat completions request: what each part becomes, and what has no words there."""

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_api.messages import with_betas
from shared import tokens
from shared.catalog import needs
from shared.errors import Fault
from shared.messages import as_asked, faults, fetched, to_chat
from shared.providers._anthropic_request import translated
from shared.schemas import body_faults, end_user
from shared.serving import MESSAGES

MARK = {"type": "ephemeral"}
ASKED: dict[str, Any] = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
CHAT: dict[str, Any] = {"model": "fast", "max_completion_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}


def chat(kind: str = "openai", **more: Any) -> dict[str, Any]:
    assert faults(ASKED | more) == []
    return to_chat(ASKED | more, kind)


def said(kind: str, *turns: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a conversation that a user ends."""
    found: list[dict[str, Any]] = chat(kind, messages=[*turns, {"role": "user", "content": "go on"}])["messages"]
    assert found[-1] == {"role": "user", "content": "go on"}
    return found[:-1]


def params(**more: Any) -> list[str]:
    return [fault.param.removeprefix("body.") for fault in faults(ASKED | more)]


def test_a_plain_request() -> None:
    assert chat() == CHAT
    assert chat(temperature=0.5, top_p=0.9, stream=True) == CHAT | {"temperature": 0.5, "top_p": 0.9, "stream": True}


def test_hints_to_anthropic_are_left_out_and_unknown_parameters_stay() -> None:
    hints = {"cache_control": MARK, "anthropic_beta": ["a"], "speed": "standard", "context_management": None}
    assert chat(**hints, simulate={"a": 1}) == CHAT | {"simulate": {"a": 1}}


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8193}}, {"reasoning_effort": "high"}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": SCHEMA, "strict": True},
                }
            },
        ),
    ],
)
def test_a_parameter_becomes(given: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert chat(**given) == CHAT | becomes


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "tool", "name": "look"}, {"tool_choice": {"type": "function", "function": {"name": "look"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
def test_tools_and_their_choice(choice: dict[str, Any], becomes: dict[str, Any]) -> None:
    function = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
    tools = [{"type": "function", "function": function}]
    assert chat(tools=[TOOL], tool_choice=choice) == CHAT | {"tools": tools} | becomes
    marked = chat("bedrock", tools=[TOOL | {"cache_control": MARK, "strict": True, "type": "custom"}])
    assert marked["tools"] == [{"type": "function", "function": function | {"strict": True}, "cache_control": MARK}]
    assert chat(tools=[], tool_choice=choice) == CHAT


def test_system_as_text_and_as_blocks() -> None:
    first = {"role": "system", "content": "Be kind.\n\nBe brief."}
    blocks = [{"type": "text", "text": "Be kind.", "cache_control": MARK}, {"type": "text", "text": "Be brief."}]
    assert chat(system="Be kind.\n\nBe brief.")["messages"] == [first, *CHAT["messages"]]
    assert chat(system=blocks)["messages"] == [first, *CHAT["messages"]]
    assert chat("openrouter", system=blocks)["messages"][0] == {"role": "system", "content": blocks}
    assert said("openai", {"role": "system", "content": "Now rhyme."}) == [{"role": "system", "content": "Now rhyme."}]


def test_pictures_and_documents() -> None:
    content = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
        {"type": "document", "title": "b.pdf", "source": PDF},
        {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "words"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
    ]
    assert said("openai", {"role": "user", "content": content})[0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "file", "file": {"filename": "b.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        {"type": "text", "text": "T\nC"},
        {"type": "text", "text": "words"},
        {"type": "text", "text": "inner"},
    ]


CALLING: dict[str, Any] = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "I "},
        {"type": "text", "text": "look."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": "ü"}},
    ],
}


def test_thoughts_words_and_calls_of_one_turn() -> None:
    calls = [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":"ü"}'}}]
    turn = {"role": "assistant", "content": "I look.", "tool_calls": calls}
    assert said("openai", CALLING) == [turn]
    assert said("deepseek", CALLING) == [turn | {"reasoning_content": "Hm."}]
    signed = {"reasoning_content": "Hm.", "thinking_blocks": CALLING["content"][:2]}
    assert said("bedrock", CALLING) == [turn | signed]


def test_results_of_tools() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "here"}, image]},
        {"type": "text", "text": "Well?"},
    ]
    assert said("openai", CALLING, {"role": "user", "content": results})[1:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "here"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                {"type": "text", "text": "Well?"},
            ],
        },
    ]
    failed = {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True, "cache_control": MARK}
    assert said("openai", CALLING, {"role": "user", "content": [failed]})[1:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "The tool failed.\n\nno"}
    ]
    empty = {"type": "tool_result", "tool_use_id": "t1"}
    assert said("openai", CALLING, {"role": "user", "content": [empty]})[1:] == [
        {"role": "tool", "tool_call_id": "t1", "content": ""}
    ]


def test_a_round_trip_keeps_marks_and_signatures() -> None:
    """Through chat and back into the vendor's words, as a vendor's chat adapter puts them."""
    asked = {
        "model": "claude-opus-5",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be kind.", "cache_control": MARK}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look", "cache_control": MARK}]},
            CALLING,
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "here", "cache_control": MARK}],
                    }
                ],
            },
        ],
        "tools": [{"name": "look", "input_schema": SCHEMA, "cache_control": MARK}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "metadata": {"user_id": "u1"},
        "stop_sequences": ["x"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    back, found = translated(to_chat(asked, "bedrock"), "claude-opus-5")
    assert found == []
    spoken = {"role": "assistant", "content": [*CALLING["content"][:2], {"type": "text", "text": "I look."}]}
    assert back["messages"][0] == asked["messages"][0]
    assert back["messages"][1]["content"][:3] == spoken["content"]
    assert back["messages"][2] == asked["messages"][2]
    assert {name: back[name] for name in asked if name != "messages"} == {
        name: asked[name] for name in asked if name != "messages"
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"top_k": 5}, ["top_k"]),
        ({"max_tokens": 0}, ["max_tokens"]),
        ({"container": "c"}, ["container"]),
        ({"stop": "x", "n": 2}, ["stop", "n"]),
        ({"speed": "fast"}, ["speed"]),
        ({"thinking": {"type": "between_tools"}}, ["thinking"]),
        ({"output_config": {"format": {"type": "xml"}, "more": 1}}, ["output_config.more", "output_config.format"]),
        ({"metadata": {"user_id": "a", "x": "y"}}, ["metadata.x"]),
        ({"service_tier": "flex"}, ["service_tier"]),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, ["tools[0]"]),
        ({"tools": [TOOL | {"defer_loading": True}]}, ["tools[0].defer_loading"]),
        ({"tools": [{"name": "x"}, 5]}, ["tools[0].input_schema", "tools[1]"]),
        ({"tools": [TOOL], "tool_choice": "auto"}, ["tool_choice"]),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, ["system"]),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, ["messages[1]"]),
        ({"messages": [{"role": "tool", "content": "a"}]}, ["messages[0].role"]),
        ({"messages": [{"role": "user", "content": 5}]}, ["messages[0].content"]),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}, 5]}]},
         ["messages[0].content[1]", "messages[0].content[0]"]),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t9"}]}]},
         ["messages[0].content[0].tool_use_id"]),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
         ["messages[0].content[0].source"]),
        ({"messages": [{"role": "user", "content": [
            {"type": "document", "source": PDF, "citations": {"enabled": True}}]}]},
         ["messages[0].content[0].citations"]),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 5}]},
                       {"role": "user", "content": "x"}]},
         ["messages[0].content[0].input"]),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]},
                       {"role": "user", "content": "x"}]},
         ["messages[0].content[0]"]),
    ],
)  # fmt: skip
def test_what_chat_cannot_hold_is_named(more: dict[str, Any], expected: list[str]) -> None:
    assert params(**more) == expected


def test_no_depth_breaks_it() -> None:
    deep: Any = "x"
    for _ in range(330):
        deep = [{"type": "document", "source": {"type": "content", "content": deep}}]
    place = "messages[0].content[0].source.content[0]"
    assert params(messages=[{"role": "user", "content": deep}]) == [place]
    for _ in range(300):
        deep = {"a": deep}
    call = {"type": "tool_use", "id": "a", "name": "b", "input": deep}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": "x"}]
    assert params(messages=turns) == ["messages[0].content[0].input"]


WORDS = [
    "role", "user", "assistant", "content", "type", "text", "image", "document", "source", "base64", "url", "data",
    "system", "media_type", "application/pdf", "tool_use", "tool_result", "tool_use_id", "id", "name", "input",
    "thinking", "signature", "messages", "tools", "tool_choice", "input_schema", "output_config", "format",
    "citations", "metadata",
]  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=5), st.lists(ANYTHING, max_size=3))
def test_no_body_breaks_it(body: dict[str, Any], blocks: list[Any]) -> None:
    turns = [{"role": role, "content": blocks} for role in ("user", "assistant", "system")]
    for one in (body, {**body, "messages": turns}):
        assert all(isinstance(fault, Fault) for fault in faults(one))
        assert isinstance(to_chat(one, "bedrock"), dict)
        assert isinstance(fetched(one), str | None)


def test_a_vendors_fault_is_said_of_what_was_asked() -> None:
    def param(name: str, **body: Any) -> str:
        return as_asked(Fault(f"body.{name}", "no"), body).param

    assert param("stop") == "body.stop_sequences"
    assert param("response_format.json_schema") == "body.output_config.format"
    assert param("reasoning_effort", thinking={}) == "body.thinking"
    assert param("reasoning_effort") == "body.output_config.effort"
    assert param("messages[4].content[0]") == "body.messages"
    assert param("tools[1]") == "body.tools[1]"


def test_what_the_vendor_fetches_itself_is_found() -> None:
    def asked(block: dict[str, Any]) -> dict[str, Any]:
        return ASKED | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, block]}]}

    linked = {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}}
    assert fetched(asked({"type": "document", "source": PDF})) is None
    assert fetched(asked({"type": "image", "source": {"type": "url", "url": "u"}})) is None
    assert fetched(asked(linked)) == "messages[0].content[1].source"
    assert fetched(asked({"type": "tool_result", "content": [linked]})) == "messages[0].content[1].content[0].source"
    assert fetched(ASKED | {"tools": [TOOL, {"type": "web_fetch_20260209"}]}) == "tools[1]"
    assert fetched(ASKED | {"mcp_servers": [{}]}) == "mcp_servers"


def test_what_other_floors_read_of_a_request() -> None:
    format_ = {"format": {"type": "json_schema", "schema": SCHEMA}}
    image = {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}
    assert needs(ASKED | {"tools": [TOOL], "output_config": format_, "messages": [image]}) == [
        "tools",
        "json_schema",
        "images",
    ]
    assert end_user(MESSAGES, {"metadata": {"user_id": "ann"}, "user": "bob"}) == "ann"
    assert end_user(MESSAGES, {"metadata": {"user_id": 5}}) is None
    assert end_user("/v1/chat/completions", {"metadata": {"user_id": "ann"}, "user": "b" * 300}) == "b" * 256
    assert [fault.param for fault in body_faults(MESSAGES, {"model": "m", "messages": []})] == [
        "body.messages",
        "body.max_tokens",
    ]


def test_a_plain_documents_words_are_all_counted() -> None:
    words = "Füße " * 20_000
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": words}}
    asked = ASKED | {"messages": [{"role": "user", "content": [document]}]}
    assert tokens.most_input(asked, ["claude-opus-5"]) > len(words) // 2


def test_the_betas_of_a_header_travel_in_the_body() -> None:
    request = make_mocked_request("POST", MESSAGES, headers={"anthropic-beta": "a-1, b-2"})
    assert with_betas(request, {"x": 1}) == {"anthropic_beta": ["a-1", "b-2"], "x": 1}
    assert with_betas(request, {"anthropic_beta": []}) == {"anthropic_beta": []}
    assert with_betas(make_mocked_request("POST", MESSAGES), {"x": 1}) == {"x": 1}
