"""What golden files cannot say of Mistral: ids of any kind become its own, and no message breaks a request."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers import Call, Deployment
from shared.providers import mistral as speaks
from shared.providers._mistral_messages import short
from tests.providers import golden

WHERE = Deployment("mistral", "mistral", "https://api.mistral.ai/v1", "mistral-small-latest")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "reasoning_content",
    "type",
    "file",
    "text",
]
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", 5, None])


def sent(**body: Any) -> dict[str, Any]:
    request = speaks.request(Call(golden.CHAT, {**golden.PLAIN, **body}, "job_1-1"), WHERE, "k")
    found: dict[str, Any] = orjson.loads(request.body)
    return found


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_becomes_nine_letters_and_stays_the_same(given_id: str) -> None:
    found = short(given_id)
    assert re.fullmatch(r"[A-Za-z0-9]{9}", found)
    assert short(found) == found
    assert short(given_id) == found


def test_different_ids_stay_different() -> None:
    assert len({short(f"call_{number}") for number in range(2_000)}) == 2_000


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING), ROLES)
def test_no_message_breaks_a_request(message: dict[str, Any], role: Any) -> None:
    call = Call(golden.CHAT, {"model": "m", "messages": [{**message, "role": role}]}, "job_1-1")
    speaks.faults(call)
    assert orjson.loads(speaks.request(call, WHERE, None).body)["model"] == WHERE.model


@pytest.mark.parametrize("messages", [None, "x", 5, {}, [None, "x", 5, []]])
def test_messages_that_are_none_break_nothing(messages: Any) -> None:
    assert isinstance(sent(messages=messages)["messages"], list)


def test_the_callers_body_is_left_alone() -> None:
    body = {**golden.PLAIN, "tools": [], "tool_choice": "required", "seed": 1, "max_completion_tokens": 5}
    before = orjson.dumps(body)
    speaks.request(Call(golden.CHAT, body, "job_1-1"), WHERE, "k")
    assert orjson.dumps(body) == before


def test_the_key_goes_into_one_header() -> None:
    request = speaks.request(Call(golden.CHAT, golden.PLAIN, "job_1-1"), WHERE, "secret-key")
    assert [name for name, value in request.headers.items() if "secret-key" in value] == ["authorization"]
    assert request.headers["x-client-request-id"] == "job_1-1"
