"""Jobs of a batch that wait for others of it: in which order they can run, and how those answers get into their bodies.

A text in the body of a job with `depends_on` may hold `{{jobs.CUSTOM_ID.output}}`: when the job is called, it is the
text that the job of that custom id answered, and nothing where that one has not completed. Pure.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import orjson

_PLACEHOLDER = re.compile(r"\{\{ ?jobs\.([^{}]{1,512}?)\.output ?\}\}")
_MARK = b"{{"


def placeholders(value: object) -> Iterator[str]:
    """Yield the custom ids whose answers a body asks for, each as often as it does."""
    match value:
        case str():
            yield from _PLACEHOLDER.findall(value)
        case dict():
            for one in value.values():
                yield from placeholders(one)
        case list():
            for one in value:
                yield from placeholders(one)


def filled(body: bytes, outputs: Mapping[str, str], *, most: int) -> bytes | None:
    """Return a body, as JSON, with answers in place of what asks for them.

    None where it would have more than `most` bytes: it may ask for the same answer again and again.
    """
    if _MARK not in body:
        return body
    value = orjson.loads(body)
    sizes = {name: len(orjson.dumps(text)) for name, text in outputs.items()}
    if len(body) + sum(sizes.get(name, 0) for name in placeholders(value)) > most:
        return None
    return orjson.dumps(_fill(value, outputs))


def _fill(value: Any, outputs: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda found: outputs.get(found[1], ""), value)
        case dict():
            return {name: _fill(one, outputs) for name, one in value.items()}
        case list():
            return [_fill(one, outputs) for one in value]
    return value


def output(url: str, result: bytes) -> str:
    """Return the text of an answer: of a chat's first choice, of a response or a message; else the answer as JSON."""
    match url, orjson.loads(result):
        case "/v1/chat/completions", {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case "/v1/responses", {"output": [*items]}:
            return "".join(map(_said, items))
        case "/v1/messages", {"content": [*blocks]}:
            return _texts(blocks, "text")
    return result.decode()


def _said(item: object) -> str:
    match item:
        case {"type": "message", "content": [*parts]}:
            return _texts(parts, "output_text")
    return ""


def _texts(parts: Iterable[object], kind: str) -> str:
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and part.get("type") == kind and isinstance(part.get("text"), str)
    )


def cycle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the custom ids of jobs that wait for each other, so that none of them could ever run; else nothing."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
