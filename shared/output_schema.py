"""Structured output: where a request carries its JSON schema, whether that is one, and what must fit it. Pure.

Answers are held against schemas in `workers/checking.py`, where a schema may take as long and as much as it likes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from shared.errors import Fault

_DEEPEST = 100
_MOST_PATTERNS = 16
"""How many of a schema's patterns are tried at submission; each is cheap, but a request may have many."""

PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=2**19)
"""Linear in the text; a pattern with look-around or back-references, which is not, gives up."""

_DRAFTS = frozenset(
    {f"http://json-schema.org/draft-{number}/schema" for number in ("04", "06", "07")}
    | {f"https://json-schema.org/draft/{date}/schema" for date in ("2019-09", "2020-12")}
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_VALUES = frozenset({"const", "enum", "default", "examples", "example"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose keys are names and not keywords."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How a route's requests and answers speak of structured output.

    `format` leads to the object whose `type` is `json_schema`, `schema` from there to the schema; `answers` reads of a
    whole answer what must fit, `again` continues the conversation with an answer and a word on it.
    """

    format: tuple[str, ...]
    schema: tuple[str, ...]
    answers: Callable[[dict[str, Any]], list[str]]
    again: Callable[[dict[str, Any], str, str], dict[str, Any]]


def _chat_answers(answer: dict[str, Any]) -> list[str]:
    """Return the contents that are final answers: no tool calls, no refusals, nothing that was cut off."""
    found = []
    for choice in answer.get("choices") or ():
        message = choice.get("message") or {}
        if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
            continue
        if choice.get("finish_reason") not in ("length", "content_filter"):
            content = message.get("content")
            found.append(content if isinstance(content, str) else "")
    return found


def _response_answers(answer: dict[str, Any]) -> list[str]:
    """Return a complete response's text; none where it refuses or calls a function."""
    items = [item for item in answer.get("output") or () if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or ()]
    if answer.get("status") == "incomplete" or any(part.get("type") == "refusal" for part in parts):
        return []
    texts = [part["text"] for part in parts if part.get("type") == "output_text"]
    if not texts and any(str(item.get("type")).endswith("_call") for item in items):
        return []
    return ["".join(texts)]


def _message_answers(answer: dict[str, Any]) -> list[str]:
    """Return a complete message's text; none where it refuses or calls a tool."""
    if answer.get("stop_reason") not in ("end_turn", "stop_sequence"):
        return []
    blocks = [block for block in answer.get("content") or () if isinstance(block, dict)]
    return ["".join(block.get("text", "") for block in blocks if block.get("type") == "text")]


def _chat_again(body: dict[str, Any], answer: str, said: str) -> dict[str, Any]:
    return body | {"messages": [*body["messages"], *_turns(answer, said)]}


def _response_again(body: dict[str, Any], answer: str, said: str) -> dict[str, Any]:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return body | {"input": [*items, *_turns(answer, said)]}


def _turns(answer: str, said: str) -> list[dict[str, str]]:
    # An empty message is refused by some vendors.
    return [{"role": "assistant", "content": answer or "(nothing)"}, {"role": "user", "content": said}]


# A further route whose requests carry schemas is a line here.
_PLACES = {
    "/v1/chat/completions": _Place(("response_format",), ("json_schema", "schema"), _chat_answers, _chat_again),
    "/v1/responses": _Place(("text", "format"), ("schema",), _response_answers, _response_again),
    "/v1/messages": _Place(("output_config", "format"), ("schema",), _message_answers, _chat_again),
}


def schema_of(url: str, body: dict[str, Any]) -> Any:
    """Return the JSON schema that a request's answer must fit, None where it has none."""
    place = _PLACES.get(url)
    if place is None or place.format[0] not in body:
        return None
    form = _at(body, place.format)
    return _at(form, place.schema) if isinstance(form, dict) and form.get("type") == "json_schema" else None


def answers_of(url: str, answer: dict[str, Any]) -> list[str]:
    """Return the texts of an answer that must fit its request's schema."""
    return _PLACES[url].answers(answer)


def asked_again(url: str, body: dict[str, Any], answer: str, words: str) -> dict[str, Any]:
    """Return a request continued with an answer that does not fit, and `words` on why, asking for one that does."""
    said = f"Your answer does not fit the JSON schema: {words}. Answer again with JSON that fits it, and nothing else."
    return _PLACES[url].again(body, answer, said)


def schema_faults(url: str, body: dict[str, Any]) -> list[Fault]:
    """Return what is wrong with a request's schema, if it has one; params start at `body`.

    What can only be found by resolving and compiling all of it is found when an answer is checked.
    """
    schema = schema_of(url, body)
    if schema is None:
        return []
    wrong = _wrong_with(schema)
    place = _PLACES[url]
    return [Fault(".".join(("body", *place.format, *place.schema)), wrong)] if wrong else []


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _wrong_with(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return "must be an object"
    patterns: dict[str, None] = {}
    references: list[str] = []
    ids: set[str] = set()
    for depth, part in _parts(schema):
        if depth > _DEEPEST:
            return f"is nested more than {_DEEPEST} levels deep"
        if isinstance(draft := part.get("$schema"), str) and draft.removesuffix("#") not in _DRAFTS:
            return f"has a `$schema` that is not known here: {draft[:100]!r}"
        if isinstance(name := part.get("$id"), str):
            ids.add(name.removesuffix("#"))
        if isinstance(pattern := part.get("pattern"), str):
            patterns[pattern] = None
        if isinstance(named := part.get("patternProperties"), dict):
            patterns |= dict.fromkeys(named)
        references += [part[name] for name in _REFERENCES if isinstance(part.get(name), str)]
    for reference in references:
        at, _, pointer = reference.partition("#")
        if at and at not in ids:
            return f"refers to something outside it, {reference[:100]!r}: only `#...` is followed"
        if not ids and pointer.startswith("/") and not _resolves(schema, pointer):
            return f"refers to something that is not there: {reference[:100]!r}"
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        return f"is not a JSON schema: {path(error.instance_path)}: {error.message}"[:300]
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return f"is not a JSON schema: {error}"[:300]
    for pattern in [*patterns][:_MOST_PATTERNS]:
        if not _is_pattern(pattern):
            return f"has a pattern that is no regular expression, or too large a one: {pattern[:100]!r}"
    return None


def _parts(schema: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a schema that hold keywords, each with its depth."""
    ahead: list[tuple[int, Any, bool]] = [(0, schema, False)]
    while ahead:
        depth, part, names = ahead.pop()
        if isinstance(part, list):
            ahead += [(depth + 1, item, False) for item in part]
        elif isinstance(part, dict):
            if not names:
                yield depth, part
            elif depth > _DEEPEST:
                yield depth, {}
            ahead += [
                (depth + 1, item, not names and key in _NAMED)
                for key, item in part.items()
                if isinstance(item, dict | list) and (names or key not in _VALUES)
            ]


def _resolves(schema: Any, pointer: str) -> bool:
    found = schema
    for part in unquote(pointer).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return False
    return True


@lru_cache(maxsize=1024)
def _is_pattern(pattern: str) -> bool:
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=PATTERNS, offline=True)
    except ValueError:
        return False
    return True


def path(parts: list[str | int]) -> str:
    """Return where a value is, such as `$.lines[2].price`."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
