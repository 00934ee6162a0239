"""What the simulated provider imitates."""

from typing import Any

import pytest
from pydantic import BaseModel

from shared import imitation


class Inner(BaseModel):
    name: str
    kind: str | None


class Outer(BaseModel):
    items: list[Inner]
    count: int
    share: float
    open: bool


def test_an_instance_fits_its_schema() -> None:
    made = Outer.model_validate(imitation.instance(Outer.model_json_schema(), "said"))
    assert made.items[0].name == "said"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["a", "b"]}, "a"),
        ({"const": 7}, 7),
        ({"type": ["string", "null"]}, "said"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "string", "maxLength": 2}, "sa"),
        ({"type": "string", "minLength": 6}, "said.."),
        ({"type": "number", "minimum": 3, "maximum": 4}, 3),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -1}, -1),
        ({"$ref": "#/nowhere"}, None),
        ({"$ref": "#"}, None),  # without end
        (5, None),
    ],
)
def test_instances(schema: Any, value: Any) -> None:
    assert imitation.instance(schema, "said") == value


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("a", "b")]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, []),
        ({"tool_choice": "auto"}, []),
        ({"tool_choice": "required"}, ["a", "b"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["a"]),
        ({"tool_choice": {"type": "function", "function": {"name": "b"}}}, ["b"]),
    ],
)
def test_tools_are_called_where_they_must_be(asked: dict[str, Any], names: list[str]) -> None:
    calls = imitation.tool_calls({"tools": TOOLS, **asked}, "said", "0" * 24)
    assert [call["function"]["name"] for call in calls] == names
