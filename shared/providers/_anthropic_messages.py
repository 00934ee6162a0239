"""The messages of OpenAI's chat request as Anthropic's turns of blocks."""

import base64
import binascii
import re
from typing import Any

import orjson

from shared.errors import Fault
from shared.providers._dialect import json_object, mapping, sequence, unsupported

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")


def conversation(messages: Any, faults: list[Fault]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system's blocks and the turns; messages of one side in a row are one turn."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, given in enumerate(sequence(messages)):
        message, where = mapping(given), f"body.messages[{index}]"
        role, content = message.get("role"), message.get("content")
        side = "assistant" if role == "assistant" else "user"
        match role:
            case "system" | "developer":
                system += _blocks(content, f"{where}.content", faults, only=("text",))
                blocks = []
            case "user":
                blocks = _blocks(content, f"{where}.content", faults)
            case "assistant":
                blocks = _spoken(message, where, faults)
            case "tool":
                results = _blocks(content, f"{where}.content", faults)
                blocks = [{"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}]
                blocks[0] |= {"content": results} if results else {}
            case _:
                faults.append(unsupported(where, "Anthropic has no such role"))
                continue
        if message.get("name") and role != "tool":
            faults.append(unsupported(f"{where}.name", "Anthropic's messages carry no names"))
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": side, "content": blocks})
    if not turns:
        faults.append(unsupported("body.messages", "Anthropic wants a message that is not the system's"))
    return system, turns


def _spoken(message: dict[str, Any], where: str, faults: list[Fault]) -> list[dict[str, Any]]:
    """Return the blocks of an assistant's message: thoughts, then words, then calls, as the vendor orders them."""
    faults += [
        unsupported(f"{where}.{name}", f"Anthropic's messages have no `{name}`")
        for name in ("audio", "function_call")
        if message.get(name)
    ]
    blocks = [thought for thought in sequence(message.get("thinking_blocks")) if isinstance(thought, dict)]
    for name in ("content", "refusal"):
        blocks += _blocks(message.get(name), f"{where}.{name}", faults, only=("text", "refusal"))
    for index, given in enumerate(sequence(message.get("tool_calls"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}} if (
                spelled := _arguments(about.get("arguments"))
            ) is not None:
                blocks.append({"type": "tool_use", "id": _id(given.get("id")), "name": name, "input": spelled})
            case _:
                at = f"{where}.tool_calls[{index}]"
                faults.append(unsupported(at, "Anthropic's calls name a function and carry a JSON object"))
    return blocks


def _arguments(given: Any) -> orjson.Fragment | None:
    """Return the arguments of a call exactly as they are spelled, None where they are no JSON object."""
    spelled = given or "{}"
    return orjson.Fragment(spelled) if isinstance(spelled, str) and json_object(spelled.encode()) is not None else None


def _id(given: Any) -> Any:
    """Return a call's id in the letters that Anthropic takes: another vendor may have made it."""
    return _NOT_IN_AN_ID.sub("_", given) if isinstance(given, str) else given


def _blocks(
    content: Any, where: str, faults: list[Fault], *, only: tuple[str, ...] = ("text", "image_url", "file")
) -> list[dict[str, Any]]:
    """Return a message's content as blocks, without empty texts, which the vendor refuses and nobody misses."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if content is not None and not isinstance(content, list):
        faults.append(unsupported(where, "must be a string or a list of parts"))
    blocks = []
    for index, given in enumerate(sequence(content)):
        part = mapping(given)
        if part.get("type") not in only:
            faults.append(unsupported(f"{where}[{index}]", "Anthropic has no such part in such a message"))
        elif (block := _block(part)) is None:
            faults.append(unsupported(f"{where}[{index}]", "is not of a form that Anthropic takes"))
        elif block.get("text") != "":
            blocks.append(cached(block, part))
    return blocks


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": str() as words} | {"type": "refusal", "refusal": str() as words}:
            return {"type": "text", "text": words}
        case {"type": "image_url", "image_url": {"url": str() as url, **about}} if about.get("detail") != "low":
            if url.startswith(("https://", "http://")):
                return {"type": "image", "source": {"type": "url", "url": url}}
            media, inline = _inline(url)
            media = "image/jpeg" if media == "image/jpg" else media
            source = {"type": "base64", "media_type": media, "data": inline}
            return {"type": "image", "source": source} if media in _IMAGES else None
        case {"type": "file", "file": {"file_data": str() as url, **about}}:
            source = _document(*_inline(url))
            titled = {"title": about["filename"]} if about.get("filename") else {}
            return {"type": "document", "source": source, **titled} if source else None
    return None


def _inline(url: str) -> tuple[str, str]:
    """Return media type and base64 of a `data:` URL, two empty strings of anything else."""
    head, _, inline = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        return "", ""
    return head.removeprefix("data:").partition(";")[0].lower(), inline


def _document(media: str, inline: str) -> dict[str, Any]:
    if media == "application/pdf":
        return {"type": "base64", "media_type": media, "data": inline}
    if media == "text/plain":
        try:
            return {"type": "text", "media_type": media, "data": base64.b64decode(inline, validate=True).decode()}
        except (binascii.Error, ValueError):
            return {}
    return {}


def cached(block: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the mark that ends a cached prefix, where the caller set one as Anthropic's own do."""
    return block | {"cache_control": given["cache_control"]} if given.get("cache_control") else block
