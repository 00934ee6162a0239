"""A response that goes on from an earlier one: the earlier turns as input of the new request. Pure.

What is carried over is what any vendor can be sent again; nothing refers to what a vendor may have stored.
"""

from collections.abc import Mapping
from typing import Any

from shared.json_values import mapping, sequence, text

_RUN_BY_THE_VENDOR = frozenset(
    f"{tool}_call" for tool in ("web_search", "file_search", "code_interpreter", "image_generation", "mcp")
) | {"mcp_list_tools"}
"""Calls that the vendor made and answered itself: what it learned by them is in what it said."""
_PREFIXES = {"function_call": "fc", "function_call_output": "fco", "message": "msg", "reasoning": "rs"}


def continued(body: dict[str, Any], earlier: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request whose input is all that was said before, and then its own; `earlier` is a request like it.

    The earlier request's `instructions` are not carried over.
    """
    said = [kept for item in sequence(response.get("output")) if (kept := _carried(mapping(item)))]
    return body | {"input": [*items(earlier.get("input")), *said, *items(body.get("input"))]}


def items(given: Any) -> list[Any]:
    """Return a request's `input` as a list of items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else sequence(given)


def input_items(body: Mapping[str, Any], own: str) -> list[dict[str, Any]]:
    """Return the input items of a stored request as OpenAI lists them; `own` tells its ids from other responses'."""
    return [_listed(mapping(item), index, own) for index, item in enumerate(items(body.get("input")))]


def _listed(item: dict[str, Any], index: int, own: str) -> dict[str, Any]:
    kind = text(item.get("type")) or "message"
    shape = {"id": f"{_PREFIXES.get(kind, 'item')}_{own}_{index}", "type": kind, "status": "completed", **item}
    if kind == "message" and isinstance(shape.get("content"), str):
        spoken = "output_text" if shape.get("role") == "assistant" else "input_text"
        more: dict[str, Any] = {"annotations": []} if spoken == "output_text" else {}
        shape["content"] = [{"type": spoken, "text": shape["content"], **more}]
    return shape


def _carried(item: dict[str, Any]) -> dict[str, Any] | None:
    """Return an output item as an input item, None for one that says nothing to who has not made it."""
    match item.get("type"):
        case "message":
            parts = [_part(part) for part in map(mapping, sequence(item.get("content")))]
            content = [part for part in parts if part is not None]
            return {"type": "message", "role": "assistant", "content": content} if content else None
        case "reasoning":
            # Without its encrypted content it is but a reference to what the vendor has stored.
            return _without(item, "status") if item.get("encrypted_content") else None
        case "function_call" | "custom_tool_call":
            return None if item.get("status") == "incomplete" else _without(item, "id", "status")
        case str(kind) if kind not in _RUN_BY_THE_VENDOR:
            return item
        case _:
            return None


def _part(part: dict[str, Any]) -> dict[str, Any] | None:
    kind = part.get("type")
    held = "refusal" if kind == "refusal" else "text"
    said = text(part.get(held))
    return {"type": kind, held: said} if said and kind in ("output_text", "refusal") else None


def _without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in names}
