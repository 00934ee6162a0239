"""The messages of OpenAI's chat request as Gemini's contents of parts."""

import re
from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._chat_request import content_blocks, inline, spelled_object
from shared.providers._dialect import text, unsupported

UNSIGNED = "skip_thought_signature_validator"
"""What Google documents for calls that another model has made, and that therefore carry no signature of a thought."""

_EARLIER = re.compile(r"gemini-[12]\.")
_ADDRESSES = ("https://", "http://", "gs://")
_AUDIO = frozenset({"wav", "mp3", "aiff", "aac", "ogg", "flac"})
_TYPES = {
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "webp": "image/webp",
}


def is_earlier(model: str) -> bool:
    """Return whether a model is older than Gemini 3: it thinks within a budget and asks for no signatures."""
    return _EARLIER.search(model) is not None


def conversation(messages: Any, model: str, faults: list[Fault]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of the system's instruction and the contents; the results of calls made together stay so."""
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for index, given in enumerate(sequence(messages)):
        message, where = mapping(given), f"body.messages[{index}]"
        role, content = message.get("role"), message.get("content")
        parts: list[dict[str, Any]] = []
        match role:
            case "system" | "developer":
                system += _parts(content, f"{where}.content", faults, only=("text",))
            case "user":
                parts = _parts(content, f"{where}.content", faults)
            case "assistant":
                parts = _spoken(message, names, where, faults)
                _sign(parts, model)
            case "tool":
                parts = [_result(message, names, where, faults)]
            case _:
                faults.append(unsupported(where, "Gemini has no such role"))
        if message.get("name") and role != "tool":
            faults.append(unsupported(f"{where}.name", "Gemini's messages carry no names"))
        if role == "tool" and contents and "functionResponse" in contents[-1]["parts"][0]:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": "model" if role == "assistant" else "user", "parts": parts})
    if not contents:
        faults.append(unsupported("body.messages", "Gemini wants a message that is not the system's"))
    return system, contents


def _spoken(message: dict[str, Any], names: dict[str, str], where: str, faults: list[Fault]) -> list[dict[str, Any]]:
    """Return the parts of an assistant's message, words before calls; `names` learns whose ids are whose."""
    faults += [
        unsupported(f"{where}.{name}", f"Gemini's messages have no `{name}`")
        for name in ("audio", "function_call")
        if message.get(name)
    ]
    parts = []
    for name in ("content", "refusal"):
        parts += _parts(message.get(name), f"{where}.{name}", faults, only=("text", "refusal"))
    if signature := _signature(message):
        parts = parts or [{"text": ""}]
        parts[-1]["thoughtSignature"] = signature
    for index, given in enumerate(sequence(message.get("tool_calls"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}} if (
                spelled := spelled_object(about.get("arguments") or "{}")
            ) is not None:
                call: dict[str, Any] = {"name": name, "args": spelled}
                if called := text(given.get("id")):
                    names[called] = name
                    call["id"] = called
                signature = _signature(given)
                signed = {"thoughtSignature": signature} if signature else {}
                parts.append({"functionCall": call, **signed})
            case _:
                at = f"{where}.tool_calls[{index}]"
                faults.append(unsupported(at, "Gemini's calls name a function and carry a JSON object"))
    return parts


def _sign(parts: list[dict[str, Any]], model: str) -> None:
    """Say of calls without any signature that they have none: newer models refuse them otherwise."""
    calls = [part for part in parts if "functionCall" in part]
    if calls and not is_earlier(model) and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = UNSIGNED


def _signature(given: dict[str, Any]) -> str:
    """Return the signature that a message or a call was given in our answer."""
    return text(mapping(mapping(given.get("extra_content")).get("google")).get("thought_signature"))


def _result(message: dict[str, Any], names: dict[str, str], where: str, faults: list[Fault]) -> dict[str, Any]:
    called = text(message.get("tool_call_id"))
    name = names.get(called) or text(message.get("name"))
    if not name:
        faults.append(unsupported(f"{where}.tool_call_id", "no call before it has this id, so that it has no name"))
    said = "".join(part["text"] for part in _parts(message.get("content"), f"{where}.content", faults, only=("text",)))
    whole = spelled_object(said)
    result = {"name": name, "response": {"output": said} if whole is None else whole}
    return {"functionResponse": result | ({"id": called} if called else {})}


def _parts(
    content: Any,
    where: str,
    faults: list[Fault],
    *,
    only: tuple[str, ...] = ("text", "image_url", "input_audio", "file"),
) -> list[dict[str, Any]]:
    """Return a message's content as parts, without empty texts, which say nothing."""
    found = content_blocks(content, where, faults, vendor="Gemini", only=only, read=_part)
    return [part for part, _ in found]


def _part(part: dict[str, Any]) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": str() as words} | {"type": "refusal", "refusal": str() as words}:
            return {"text": words}
        case {"type": "image_url", "image_url": {"url": str() as url, **about}} if about.get("detail") != "low":
            return _remote(url) if url.startswith(_ADDRESSES) else _inline(url)
        case {"type": "input_audio", "input_audio": {"data": str() as encoded, "format": str() as format}}:
            return {"inlineData": {"mimeType": f"audio/{format}", "data": encoded}} if format in _AUDIO else None
        case {"type": "file", "file": {"file_data": str() as url}}:
            return _inline(url)
        case {"type": "file", "file": {"file_id": str() as url}} if url.startswith(_ADDRESSES):
            return _remote(url)  # what Google's own Files API calls a file
    return None


def _remote(url: str) -> dict[str, Any]:
    ending = re.split(r"[?#]", url, maxsplit=1)[0].rpartition(".")[2].lower()
    media = {"mimeType": _TYPES[ending]} if ending in _TYPES else {}
    return {"fileData": {"fileUri": url, **media}}


def _inline(url: str) -> dict[str, Any] | None:
    """Return what a `data:` URL holds, None for anything else."""
    media, encoded = inline(url)
    if not media or not encoded:
        return None
    return {"inlineData": {"mimeType": "image/jpeg" if media == "image/jpg" else media, "data": encoded}}
