"""The messages of OpenAI's chat request as Anthropic's turns of blocks."""

import base64
import binascii
import re
from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._chat_request import content_blocks, inline, spelled_object
from shared.providers._dialect import unsupported

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
                spelled := spelled_object(about.get("arguments") or "{}")
            ) is not None:
                blocks.append({"type": "tool_use", "id": _id(given.get("id")), "name": name, "input": spelled})
            case _:
                at = f"{where}.tool_calls[{index}]"
                faults.append(unsupported(at, "Anthropic's calls name a function and carry a JSON object"))
    return blocks


def _id(given: Any) -> Any:
    """Return a call's id in the letters that Anthropic takes: another vendor may have made it."""
    return _NOT_IN_AN_ID.sub("_", given) if isinstance(given, str) else given


def _blocks(
    content: Any, where: str, faults: list[Fault], *, only: tuple[str, ...] = ("text", "image_url", "file")
) -> list[dict[str, Any]]:
    """Return a message's content as blocks, without empty texts, which the vendor refuses and nobody misses."""
    found = content_blocks(content, where, faults, vendor="Anthropic", only=only, read=_block)
    return [cached(block, part) for block, part in found]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": str() as words} | {"type": "refusal", "refusal": str() as words}:
            return {"type": "text", "text": words}
        case {"type": "image_url", "image_url": {"url": str() as url, **about}} if about.get("detail") != "low":
            if url.startswith(("https://", "http://")):
                return {"type": "image", "source": {"type": "url", "url": url}}
            media, encoded = inline(url)
            media = "image/jpeg" if media == "image/jpg" else media
            source = {"type": "base64", "media_type": media, "data": encoded}
            return {"type": "image", "source": source} if media in _IMAGES else None
        case {"type": "file", "file": {"file_data": str() as url, **about}}:
            source = _document(*inline(url))
            titled = {"title": about["filename"]} if about.get("filename") else {}
            return {"type": "document", "source": source, **titled} if source else None
    return None


def _document(media: str, encoded: str) -> dict[str, Any]:
    if media == "application/pdf":
        return {"type": "base64", "media_type": media, "data": encoded}
    if media == "text/plain":
        try:
            return {"type": "text", "media_type": media, "data": base64.b64decode(encoded, validate=True).decode()}
        except (binascii.Error, ValueError):
            return {}
    return {}


def cached(block: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the mark that ends a cached prefix, where the caller set one as Anthropic's own do."""
    return block | {"cache_control": given["cache_control"]} if given.get("cache_control") else block
