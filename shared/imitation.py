"""What the simulated provider imitates of a vendor: JSON that fits a schema, tool calls, chunks, embeddings."""

import base64
import math
import random
import re
import struct
from typing import Any

import orjson

DIMENSIONS = 64
MOST_INPUTS = 2048
_PIECE = re.compile(r"\s*\S+")
_DEEPEST = 16


def instance(schema: Any, said: str, *, depth: int = 0, root: Any = None) -> Any:
    """Return a value that fits a JSON schema, with the text `said` for its strings; the same for the same schema."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None

    def inner(part: Any) -> Any:
        return instance(part, said, depth=depth + 1, root=root)

    match schema:
        case {"$ref": str(ref)}:
            return inner(_referred(root, ref))
        case {"const": value}:
            return value
        case {"enum": [first, *_]}:
            return first
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]} | {"allOf": [first, *_]}:
            return inner(first)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties")
            return {name: inner(part) for name, part in properties.items()} if isinstance(properties, dict) else {}
        case "array":
            return [inner(schema.get("items"))] * max(1, int(schema.get("minItems") or 1))
        case "string":
            return said.ljust(_whole(schema, "minLength"), ".")[: _whole(schema, "maxLength", len(said) + 10**4)]
        case "integer" | "number":
            return _number(schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum"))
        case "boolean":
            return True
        case _:
            return None


def _number(least: Any, above: Any, most: Any) -> Any:
    if isinstance(least, int | float):
        return least
    if isinstance(above, int | float):
        return above + 1
    return min(1, most) if isinstance(most, int | float) else 1


def _whole(schema: dict[str, Any], name: str, otherwise: int = 0) -> int:
    value = schema.get(name)
    return min(value, 10**4) if isinstance(value, int) and value >= 0 else otherwise


def _referred(root: Any, ref: str) -> Any:
    found = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if part and isinstance(found, dict) else found
    return found


def tool_calls(body: dict[str, Any], said: str, same: str) -> list[dict[str, Any]]:
    """Return the calls that a request for tools gets: the tool it names, or each it offers where it requires one."""
    offered = [tool["function"] for tool in body.get("tools") or () if isinstance(tool, dict) and "function" in tool]
    match body.get("tool_choice"):
        case {"function": {"name": str(name)}}:
            chosen = [tool for tool in offered if tool.get("name") == name]
        case "required":
            chosen = offered if body.get("parallel_tool_calls", True) else offered[:1]
        case _:
            chosen = []
    return [
        {
            "id": f"call_{same[:12]}{index}",
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "arguments": orjson.dumps(instance(tool.get("parameters"), said) or {}).decode(),
            },
        }
        for index, tool in enumerate(chosen)
    ]


def chunks(answer: dict[str, Any], *, include_usage: bool) -> list[dict[str, Any]]:
    """Return a chat completion as the chunks it is streamed in: a word each, and tool calls in pieces."""
    head = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choice = answer["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _PIECE.findall(message.get("content") or "")]
    for index, call in enumerate(message.get("tool_calls") or ()):
        spelled = call["function"]["arguments"]
        begun = {"index": index, **call, "function": call["function"] | {"arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": spelled[start : start + 16]}}]}
            for start in range(0, len(spelled), 16)
        ]
    shown = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    shown.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if include_usage:
        shown.append({**head, "choices": [], "usage": answer["usage"]})
    return shown


def embeddings(body: dict[str, Any], prompt: int, *, seed: int) -> dict[str, Any] | None:
    """Return embeddings of a request's inputs, unit vectors in random directions; None for inputs that are none."""
    given = body.get("input")
    several = isinstance(given, list) and not all(isinstance(one, int) for one in given)
    texts = given if several and isinstance(given, list) else [given]
    if given in (None, "", []) or len(texts) > MOST_INPUTS:
        return None
    asked = body.get("dimensions")
    size = asked if isinstance(asked, int) and 0 < asked <= 4096 else DIMENSIONS
    as_text = body.get("encoding_format") == "base64"
    rows = []
    for index, text in enumerate(texts):
        vector = _vector(f"{seed} {text}", size)
        shown = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if as_text else vector
        rows.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"object": "list", "model": body.get("model"), "data": rows, "usage": usage}


def _vector(seed: str, size: int) -> list[float]:
    rng = random.Random(seed)
    drawn = [rng.gauss(0, 1) for _ in range(size)]
    norm = math.hypot(*drawn)
    return [one / norm for one in drawn]
