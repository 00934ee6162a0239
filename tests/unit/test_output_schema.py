"""Which answers must fit a schema, what is wrong with a schema, and how a request is asked again."""

from typing import Any

import pytest

from shared.output_schema import answers_of, asked_again, schema_faults, schema_of

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"$ref": "#/$defs/day"}}},
    "required": ["city"],
    "$defs": {"day": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"}},
}


def chat(schema: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    return {"messages": [{"role": "user", "content": "hi"}], "response_format": form, **fields}


def response(schema: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    return {"input": "hi", "text": {"format": {"type": "json_schema", "name": "it", "schema": schema}}, **fields}


def wrong(schema: Any) -> str:
    [fault] = schema_faults(CHAT, chat(schema))
    assert fault.param == "body.response_format.json_schema.schema"
    return fault.message


# ------------------------------------------------------------------ where it is


def test_where_the_schema_of_a_request_is() -> None:
    assert schema_of(CHAT, chat()) is SCHEMA
    assert schema_of(RESPONSES, response()) is SCHEMA


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (CHAT, {}),
        (RESPONSES, chat()),
        ("/v1/embeddings", chat()),
        (CHAT, {"response_format": None}),
        (CHAT, {"response_format": "json"}),
        (CHAT, {"response_format": {"type": "json_object"}}),
        (CHAT, {"response_format": {"type": "json_schema"}}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": []}}),
        (CHAT, {"response_format": {"type": "text", "json_schema": {"schema": SCHEMA}}}),
        (RESPONSES, {"text": {"format": {"type": "text"}}}),
        (RESPONSES, {"text": None}),
    ],
)
def test_a_request_without_a_schema_has_none(url: str, body: dict[str, Any]) -> None:
    assert schema_of(url, body) is None
    assert schema_faults(url, body) == []


# ------------------------------------------------------------------ whether it is one


def test_a_good_schema_has_no_faults() -> None:
    for schema in (
        SCHEMA,
        {},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$id": "https://example.com/a", "$ref": "https://example.com/a#/$defs/b", "$defs": {"b": {}}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"enum": ["("]}}},
        {"enum": [{"$ref": "https://example.com/x"}], "default": {"$schema": "x"}},
        {"$ref": "#"},
        {"$defs": {"a/b": {}}, "$ref": "#/$defs/a~1b"},
        {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},  # pydantic's of a decimal
    ):
        assert schema_faults(CHAT, chat(schema)) == [], schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], "must be an object"),
        (True, "must be an object"),
        ({"type": "strong"}, "is not a JSON schema: $.type: "),
        ({"properties": {"a": {"type": 1}}}, "is not a JSON schema: $.properties.a.type: "),
        ({"$ref": "https://example.com/x.json"}, "refers to something outside it"),
        ({"$ref": "file:///etc/passwd"}, "refers to something outside it"),
        ({"anyOf": [{"items": {"$ref": "other.json#/a"}}]}, "refers to something outside it"),
        ({"$ref": "#/$defs/none"}, "refers to something that is not there"),
        ({"$schema": "https://example.com/x"}, "has a `$schema` that is not known here"),
        ({"$schema": "https://example.com/?json-schema.org/draft-07/schema"}, "has a `$schema` that is not known"),
        ({"pattern": "(a"}, "has a pattern that is no regular expression"),
        ({"patternProperties": {"[": {}}}, "has a pattern that is no regular expression"),
        ({"pattern": "((a{100}){100}){100}"}, "or too large a one"),
    ],
)
def test_a_bad_schema_is_a_fault(schema: Any, said: str) -> None:
    assert said in wrong(schema)
    [fault] = schema_faults(RESPONSES, response(schema))
    assert fault.param == "body.text.format.schema"


def test_a_schema_that_is_nested_too_deeply_is_a_fault() -> None:
    for key in ("properties", "items", "anyOf"):
        schema: Any = {}
        for _ in range(400):
            schema = {"properties": {"a": schema}, "items": {"items": schema}, "anyOf": [schema]}[key]
            schema = schema if key == "properties" else {key: schema}
            schema = {"properties": schema} if key == "properties" else schema
        assert "is nested more than" in wrong(schema)


def test_what_is_slow_to_compile_is_not_compiled() -> None:
    doubled: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    explosive = {"$ref": "#/$defs/d0", "unevaluatedProperties": False, "$defs": doubled | {"d40": {}}}
    assert schema_faults(CHAT, chat(explosive)) == []


# ------------------------------------------------------------------ what must fit


def said(content: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}


def test_each_final_answer_of_a_completion_must_fit() -> None:
    assert answers_of(CHAT, {"choices": [said("{}"), said("[]")]}) == ["{}", "[]"]
    assert answers_of(CHAT, {"choices": [said(None)]}) == [""]
    for other in (
        said("{", "length"),
        said("{", "content_filter"),
        said(None, "tool_calls", tool_calls=[{"id": "1"}]),
        said(None, refusal="no"),
    ):
        assert answers_of(CHAT, {"choices": [other]}) == []


def test_the_text_of_a_complete_response_must_fit() -> None:
    def message(*parts: Any) -> dict[str, Any]:
        return {"type": "message", "content": list(parts)}

    first, second = ({"type": "output_text", "text": text} for text in ('{"a"', ":1}"))
    whole = [{"type": "reasoning"}, message(first), message(second)]
    assert answers_of(RESPONSES, {"status": "completed", "output": whole}) == ['{"a":1}']
    assert answers_of(RESPONSES, {"status": "incomplete", "output": whole}) == []
    assert answers_of(RESPONSES, {"status": "completed", "output": []}) == [""]
    refused = [message({"type": "refusal", "refusal": "no"})]
    assert answers_of(RESPONSES, {"status": "completed", "output": refused}) == []
    assert answers_of(RESPONSES, {"status": "completed", "output": [{"type": "function_call"}]}) == []


def test_a_request_is_continued_with_what_was_wrong() -> None:
    body = chat()
    again = asked_again(CHAT, body, "{}", "`city` is missing")
    assert again["messages"][:2] == [*body["messages"], {"role": "assistant", "content": "{}"}]
    assert "`city` is missing" in again["messages"][2]["content"]
    assert len(body["messages"]) == 1
    assert again["response_format"] == body["response_format"]
    of_text = asked_again(RESPONSES, response(), "{}", "no")["input"]
    of_items = asked_again(RESPONSES, response(input=[{"role": "user", "content": "hi"}]), "{}", "no")["input"]
    assert of_text == of_items
    assert [one["role"] for one in of_text] == ["user", "assistant", "user"]
