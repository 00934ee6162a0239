"""A whole response as the events of a streamed one: for answers that nobody streamed, or whose chunks are gone."""

from typing import Any

from shared.json_values import mapping, sequence, text
from shared.responses.numbering import numbered

_DELTAS = {"output_text": "output_text", "refusal": "refusal", "summary_text": "reasoning_summary_text"}
"""What the events of a part's text are called, by the part's type."""


def replay(response: dict[str, Any], *, attempt: int) -> list[dict[str, Any]]:
    """Return the events of a stored response, the same for the same response; each text comes in one piece."""
    begun = response | {"status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    events = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
    for index, item in enumerate(sequence(response.get("output"))):
        if isinstance(item, dict):
            events += _item(item, index)
    events.append({"type": f"response.{response.get('status') or 'completed'}", "response": response})
    return [numbered(event, attempt, number) for number, event in enumerate(events)]


def _item(item: dict[str, Any], index: int) -> list[dict[str, Any]]:
    place = {"item_id": item.get("id"), "output_index": index}
    empty: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    match item.get("type"):
        case "message":
            empty = {"content": []}
            for number, part in enumerate(sequence(item.get("content"))):
                events += _part(mapping(part), "content_part", place | {"content_index": number})
        case "reasoning":
            empty = {"summary": []}
            for number, part in enumerate(sequence(item.get("summary"))):
                events += _part(mapping(part), "reasoning_summary_part", place | {"summary_index": number})
        case "function_call":
            empty, arguments = {"arguments": ""}, text(item.get("arguments"))
            name = "response.function_call_arguments"
            if arguments:
                events.append({"type": f"{name}.delta", **place, "delta": arguments})
            events.append({"type": f"{name}.done", **place, "name": item.get("name"), "arguments": arguments})
    added = {"type": "response.output_item.added", "output_index": index}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    return [added | {"item": item | empty | {"status": "in_progress"}}, *events, done]


def _part(part: dict[str, Any], kind: str, at: dict[str, Any]) -> list[dict[str, Any]]:
    name = _DELTAS.get(text(part.get("type")))
    held = "refusal" if name == "refusal" else "text"
    said = text(part.get(held))
    more = {"logprobs": part.get("logprobs") or []} if name == "output_text" else {}
    events: list[dict[str, Any]] = [
        {"type": f"response.{kind}.added", **at, "part": part | ({held: ""} if name else {})}
    ]
    if name and said:
        events.append({"type": f"response.{name}.delta", **at, "delta": said, **more})
    if name:
        events.append({"type": f"response.{name}.done", **at, held: said, **more})
    return [*events, {"type": f"response.{kind}.done", **at, "part": part}]
