"""The messages of OpenAI's chat request as Converse's turns of blocks.

What the model thought goes back only with the signature in `thinking_blocks`: the vendor takes it from nobody without.
"""

import re
from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._chat_request import content_blocks, inline, spelled_object
from shared.providers._dialect import text, unsupported

_IMAGES = {f"image/{name}": name for name in ("png", "jpeg", "gif", "webp")} | {"image/jpg": "jpeg"}
_AUDIO = ("wav", "mp3")
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_.:-]")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9\-()\[\]]+")
_LONGEST_NAME = 200
_EVERY = ("text", "image_url", "file", "input_audio")


def conversation(messages: Any, faults: list[Fault]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system's blocks and the turns; messages of one side in a row are one turn."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, given in enumerate(sequence(messages)):
        message, where = mapping(given), f"body.messages[{index}]"
        role, content = message.get("role"), message.get("content")
        side = "assistant" if role == "assistant" else "user"
        blocks: list[dict[str, Any]] = []
        match role:
            case "system" | "developer":
                system += _blocks(content, f"{where}.content", faults, only=("text",))
            case "user":
                blocks = _blocks(content, f"{where}.content", faults)
            case "assistant":
                blocks = _spoken(message, where, faults)
            case "tool":
                results = _blocks(content, f"{where}.content", faults, only=("text", "image_url", "file"))
                marks = [block for block in results if "cachePoint" in block]
                results = [block for block in results if "cachePoint" not in block]
                used = {"toolUseId": _id(message.get("tool_call_id")), "content": results}
                blocks = [{"toolResult": used}, *marks]
            case _:
                faults.append(unsupported(where, "Bedrock has no such role"))
                continue
        if message.get("name") and role != "tool":
            faults.append(unsupported(f"{where}.name", "Bedrock's messages carry no names"))
        if turns and blocks and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": side, "content": blocks})
    if not turns:
        faults.append(unsupported("body.messages", "Bedrock wants a message that is not the system's"))
    _name_apart(turns)
    return system, turns


def cached(block: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a block, and after it the point up to which the prompt is cached, where the caller marked one."""
    mark = given.get("cache_control")
    if not mark:
        return [block]
    lasting = {"ttl": mark["ttl"]} if isinstance(mark, dict) and mark.get("ttl") else {}
    return [block, {"cachePoint": {"type": "default", **lasting}}]


def _spoken(message: dict[str, Any], where: str, faults: list[Fault]) -> list[dict[str, Any]]:
    """Return the blocks of an assistant's message: thoughts, then words, then calls."""
    faults += [
        unsupported(f"{where}.{name}", f"Bedrock's messages have no `{name}`")
        for name in ("audio", "function_call")
        if message.get(name)
    ]
    blocks: list[dict[str, Any]] = []
    for thought in sequence(message.get("thinking_blocks")):
        match thought:
            case {"type": "thinking", "thinking": str() as words, "signature": str() as signature} if signature:
                blocks.append({"reasoningContent": {"reasoningText": {"text": words, "signature": signature}}})
            case {"type": "redacted_thinking", "data": str() as hidden}:
                blocks.append({"reasoningContent": {"redactedContent": hidden}})
    for name in ("content", "refusal"):
        blocks += _blocks(message.get(name), f"{where}.{name}", faults, only=("text", "refusal"))
    for index, given in enumerate(sequence(message.get("tool_calls"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}} if (
                spelled := spelled_object(about.get("arguments") or "{}")
            ) is not None:
                blocks.append({"toolUse": {"toolUseId": _id(given.get("id")), "name": name, "input": spelled}})
            case _:
                at = f"{where}.tool_calls[{index}]"
                faults.append(unsupported(at, "Bedrock's calls name a function and carry a JSON object"))
    return blocks


def _id(given: Any) -> Any:
    """Return a call's id in the letters that Bedrock takes: another vendor may have made it."""
    return _NOT_IN_AN_ID.sub("_", given) if isinstance(given, str) else given


def _blocks(content: Any, where: str, faults: list[Fault], *, only: tuple[str, ...] = _EVERY) -> list[dict[str, Any]]:
    """Return a message's content as blocks, without empty texts, which the vendor refuses and nobody misses."""
    found = content_blocks(content, where, faults, vendor="Bedrock", only=only, read=_block)
    return [one for block, part in found for one in cached(block, part)]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": str() as words} | {"type": "refusal", "refusal": str() as words}:
            return {"text": words}
        case {"type": "image_url", "image_url": {"url": str() as url, **about}} if about.get("detail") != "low":
            media, encoded = inline(url)
            return {"image": {"format": _IMAGES[media], "source": {"bytes": encoded}}} if media in _IMAGES else None
        case {"type": "file", "file": {"file_data": str() as url, **about}}:
            media, encoded = inline(url)
            if media not in _DOCUMENTS:
                return None
            name = text(about.get("filename")).rpartition(".")[0] or text(about.get("filename"))
            named = _NOT_IN_A_NAME.sub(" ", name).strip()[:_LONGEST_NAME] or "document"
            return {"document": {"format": _DOCUMENTS[media], "name": named, "source": {"bytes": encoded}}}
        case {"type": "input_audio", "input_audio": {"data": str() as encoded, "format": str() as kind}}:
            return {"audio": {"format": kind, "source": {"bytes": encoded}}} if kind in _AUDIO else None
    return None


def _name_apart(turns: list[dict[str, Any]]) -> None:
    """Number the documents that have the name of another, which the vendor does not permit."""
    seen: set[str] = set()
    for document in [block["document"] for turn in turns for block in turn["content"] if "document" in block]:
        plain, number = document["name"], 1
        while document["name"] in seen:
            number += 1
            document["name"] = f"{plain[: _LONGEST_NAME - 6]} ({number})"
        seen.add(document["name"])
