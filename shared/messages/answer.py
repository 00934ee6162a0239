"""A chat completion as a message, whole, in the shape in which Anthropic's SDK reads it."""

from typing import Any

import orjson
from pydantic_core import from_json

from shared.json_values import first_choice, mapping, sequence, text

_STOPS = {"length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use", "function_call": "tool_use"}
_TIERS = {"default": "standard", "standard": "standard", "priority": "priority"}


def from_chat(completion: dict[str, Any], body: dict[str, Any], *, id: str) -> dict[str, Any]:
    """Return the message that a chat completion is; `body` is the message's request.

    Raises ValueError where the arguments of a call are no JSON object, though the answer was not cut off.
    """
    choice = first_choice(completion)
    message = mapping(choice.get("message"))
    stopped = stop(choice, body)
    content = [*thoughts(message), *texts(message)]
    for number, call in enumerate(sequence(message.get("tool_calls"))):
        spelled = text(mapping(mapping(call).get("function")).get("arguments"))
        given = _arguments(spelled, cut_off=stopped["stop_reason"] in ("max_tokens", "refusal"))
        content.append(call_block(id, number, mapping(call)) | {"input": given})
    tier = _TIERS.get(text(completion.get("service_tier")))
    usage = counted(completion.get("usage")) | ({"service_tier": tier} if tier else {})
    return shell(body, id=id, model=text(completion.get("model"))) | {"content": content, **stopped, "usage": usage}


def shell(body: dict[str, Any], *, id: str, model: str) -> dict[str, Any]:
    """Return a message that has only begun."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model or text(body.get("model")),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def stop(choice: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return why an answer ended."""
    message, reason = mapping(choice.get("message")), _STOPS.get(text(choice.get("finish_reason")), "end_turn")
    matched = choice.get("stop_reason")  # some vendors say which sequence it was
    if reason == "end_turn" and message.get("tool_calls"):
        reason = "tool_use"
    if reason == "end_turn" and isinstance(matched, str) and matched in sequence(body.get("stop_sequences")):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    stopped: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
    if reason == "refusal":
        explanation = text(message.get("refusal")) or None
        stopped["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation}
    return stopped


def counted(given: Any) -> dict[str, Any]:
    """Return a usage, whose input does not count what the cache held or took."""
    usage = mapping(given)
    of_input = usage.get("prompt_tokens_details")
    cached, written = _count(of_input, "cached_tokens"), _count(of_input, "cache_write_tokens")
    shape: dict[str, Any] = {
        "input_tokens": max(0, _count(usage, "prompt_tokens") - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": _count(usage, "completion_tokens"),
    }
    if reasoning := _count(usage.get("completion_tokens_details"), "reasoning_tokens"):
        shape["output_tokens_details"] = {"thinking_tokens": reasoning}
    return shape


def thoughts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of what a message, or a chunk's delta, says was thought: signed ones where there are such."""
    if signed := [block for block in sequence(message.get("thinking_blocks")) if isinstance(block, dict)]:
        return signed
    thought = text(message.get("reasoning_content"))
    return [{"type": "thinking", "thinking": thought, "signature": ""}] if thought else []


def texts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of what a message says."""
    said = text(message.get("content")) + text(message.get("refusal"))
    return [{"type": "text", "text": said}] if said else []


def call_block(id: str, number: int, call: dict[str, Any]) -> dict[str, Any]:
    """Return the block of the tool call that is the `number`th of its message, without its input."""
    own = id.removeprefix("msg_")
    name = text(mapping(call.get("function")).get("name"))
    return {"type": "tool_use", "id": text(call.get("id")) or f"toolu_{own}_{number}", "name": name, "input": {}}


def whole_object(spelled: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None where it is none, or not whole."""
    try:
        value = orjson.loads(spelled)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _arguments(spelled: str, *, cut_off: bool) -> dict[str, Any]:
    given = whole_object(spelled) if spelled else {}
    if given is None and cut_off:
        try:
            given = mapping(from_json(spelled, allow_partial=True))
        except ValueError:
            given = {}
    if given is None:
        raise ValueError("the arguments of a call are not a JSON object")
    return given


def _count(given: Any, name: str) -> int:
    value = mapping(given).get(name)
    return value if isinstance(value, int) else 0
