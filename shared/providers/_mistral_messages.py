"""OpenAI's chat messages as Mistral takes them: its own parts, tool calls with short ids, thoughts as content."""

import hashlib
import re
from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._dialect import unsupported

_ID = re.compile(r"[A-Za-z0-9]{9}")


def translated(given: Any, where: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return one message as Mistral takes it, and what of it cannot be said there; `where` is its path."""
    said = {name: value for name, value in mapping(given).items() if value is not None}
    role = said.get("role")
    faults: list[Fault] = []
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content = said.get("content")
    if isinstance(content, list):
        content = [_part(part, f"{where}.content[{index}]", faults) for index, part in enumerate(content)]
    match role:
        case "assistant":
            content = _with_thought(content or said.get("refusal"), said.get("reasoning_content"))
            if said.get("tool_calls"):
                message["tool_calls"] = [
                    _call(call, f"{where}.tool_calls[{index}]", faults)
                    for index, call in enumerate(sequence(said["tool_calls"]))
                ]
            faults += [
                unsupported(f"{where}.{name}", "Mistral has no such thing in a message")
                for name in ("audio", "function_call")
                if name in said
            ]
        case "tool":
            message["tool_call_id"] = short(said.get("tool_call_id"))
        case "function":
            faults.append(
                unsupported(f"{where}.role", "Mistral has tools only, and their results have the role `tool`")
            )
    if content is not None:
        message["content"] = content
    if said.get("name"):
        if role == "tool":
            message["name"] = said["name"]
        else:
            faults.append(unsupported(f"{where}.name", "Mistral takes no names of who speaks"))
    known = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "refusal"}
    own = {name: value for name, value in said.items() if name not in known | {"audio", "function_call", "annotations"}}
    return message | own, faults


def short(given: Any) -> Any:
    """Return the id of a tool call as Mistral demands it, nine letters or digits; the same for the same id."""
    if not isinstance(given, str) or _ID.fullmatch(given):
        return given
    return hashlib.sha256(given.encode(errors="replace")).hexdigest()[:9]


def _with_thought(content: Any, thought: Any) -> Any:
    if not isinstance(thought, str) or not thought:
        return content
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else sequence(content)
    return [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}, *parts]


def _call(given: Any, where: str, faults: list[Fault]) -> dict[str, Any]:
    call = mapping(given)
    if call.get("type", "function") != "function":
        faults.append(unsupported(where, "Mistral calls functions only"))
    return {"id": short(call.get("id")), "type": "function", "function": call.get("function")}


def _part(given: Any, where: str, faults: list[Fault]) -> Any:
    part = mapping(given)
    match part.get("type"):
        case "refusal":
            return {"type": "text", "text": part.get("refusal")}
        case "input_audio":
            return {"type": "input_audio", "input_audio": mapping(part.get("input_audio")).get("data")}
        case "file":
            file = mapping(part.get("file"))
            if not isinstance(file.get("file_data"), str):
                faults.append(unsupported(where, "Mistral takes a file's content, as a data URL"))
            document = {"type": "document_url", "document_url": file.get("file_data")}
            return document | ({"document_name": file["filename"]} if file.get("filename") else {})
    return given
