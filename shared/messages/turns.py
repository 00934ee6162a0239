"""The turns of Anthropic's Messages, made of blocks, as the messages of a chat, and what of them no message can hold.

What only looks like a loss: a result's images and files follow it in the user's message, since a tool's message is text
almost everywhere; thoughts that somebody else signed or encrypted are of no use to another vendor.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from shared.errors import Fault


def unsupported(param: str, message: str) -> Fault:
    """Return the fault of something that chat completions cannot express."""
    return Fault(param, message, "unsupported_parameter")


def chat_messages(given: Mapping[str, Any], found: list[Fault], *, marks: bool, thoughts: bool) -> list[dict[str, Any]]:
    """Return the messages that `system` and `messages` are; what is wrong with them is added to `found`.

    `marks`: the vendor reads the marks of cached prefixes and signed thoughts as Anthropic's own do. `thoughts`: it
    takes `reasoning_content`.
    """
    turns = _Turns(found, marks=marks, thoughts=thoughts)
    if given.get("system"):
        turns.system(given["system"], "body.system")
    messages = given.get("messages")
    listed = messages if isinstance(messages, list) else []
    for index, message in enumerate(listed):
        turns.add(message if isinstance(message, dict) else {}, f"body.messages[{index}]")
    if listed and isinstance(listed[-1], dict) and listed[-1].get("role") == "assistant":
        said = "chat completions cannot go on with an answer that was begun: end with a user's message"
        found.append(unsupported(f"body.messages[{len(listed) - 1}]", said))
    return turns.messages


class _Turns:
    """The messages so far."""

    def __init__(self, found: list[Fault], *, marks: bool, thoughts: bool) -> None:
        self.messages: list[dict[str, Any]] = []
        self._found = found
        self._marks = marks
        self._thoughts = thoughts
        self._calls: set[str] = set()

    def system(self, content: Any, at: str) -> None:
        """Take instructions."""
        parts = [part for block, where in self._blocks(content, at) for part in self._parts(block, where)]
        self._found += [unsupported(at, "holds text only") for part in parts if part["type"] != "text"]
        self.messages.append({"role": "system", "content": _plain(parts, "\n\n")})

    def add(self, message: dict[str, Any], at: str) -> None:
        """Take the next turn; `at` is its param."""
        content, where = message.get("content"), f"{at}.content"
        match message.get("role"):
            case "user":
                self._user(content, where)
            case "assistant":
                self._assistant(content, where)
            case "system":
                self.system(content, where)
            case _:
                self._found.append(Fault(f"{at}.role", "must be one of user, assistant, system"))

    def _user(self, content: Any, at: str) -> None:
        parts: list[dict[str, Any]] = []
        carried: list[dict[str, Any]] = []
        blocks = self._blocks(content, at)
        for block, where in blocks:
            if block.get("type") == "tool_result":
                carried += self._result(block, where)
            else:
                parts += self._parts(block, where)
        if carried or parts or not blocks:
            self.messages.append({"role": "user", "content": _plain([*carried, *parts], "\n\n")})

    def _result(self, block: dict[str, Any], at: str) -> list[dict[str, Any]]:
        """Take a tool's result; return what of it a tool's message cannot hold."""
        call = self._string(block, "tool_use_id", at)
        if call and call not in self._calls:
            self._found.append(Fault(f"{at}.tool_use_id", "is not the id of an earlier tool_use"))
        held = self._blocks(block.get("content") or [], f"{at}.content")
        parts = [part for inner, where in held for part in self._parts(inner, where)]
        texts = [part for part in parts if part["type"] == "text"]
        if block.get("is_error"):
            texts.insert(0, {"type": "text", "text": "The tool failed."})
        if texts:
            texts[-1] = self._marked(texts[-1], block)
        self.messages.append({"role": "tool", "tool_call_id": call, "content": _plain(texts, "\n\n")})
        return [part for part in parts if part["type"] != "text"]

    def _assistant(self, content: Any, at: str) -> None:
        said: list[dict[str, Any]] = []
        thoughts, signed, calls = [], [], []
        for block, where in self._blocks(content, at):
            match block.get("type"):
                case "thinking":
                    thoughts.append(self._string(block, "thinking", where, empty=True))
                    if block.get("signature"):
                        signed.append(block)
                case "redacted_thinking":
                    signed.append(block)
                case "tool_use":
                    calls.append(self._call(block, where))
                case "text":
                    said += self._parts(block, where)
                case other:
                    self._found.append(unsupported(where, f"chat completions have no `{other}` of an assistant"))
        turn: dict[str, Any] = {"role": "assistant", "content": _plain(said, "") or (None if calls else "")}
        if self._thoughts and any(thoughts):
            turn["reasoning_content"] = "\n\n".join(filter(None, thoughts))
        if self._marks and signed:
            turn["thinking_blocks"] = signed
        self.messages.append(turn | ({"tool_calls": calls} if calls else {}))

    def _call(self, block: dict[str, Any], at: str) -> dict[str, Any]:
        id_, name = self._string(block, "id", at), self._string(block, "name", at)
        self._calls.add(id_)
        given, arguments = block.get("input"), ""
        if not isinstance(given, dict):
            self._found.append(Fault(f"{at}.input", "must be an object"))
        try:
            arguments = orjson.dumps(given).decode()
        except orjson.JSONEncodeError:
            self._found.append(Fault(f"{at}.input", "is nested too deeply"))
        return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _parts(self, block: dict[str, Any], at: str) -> list[dict[str, Any]]:
        """Return a block as the parts of a chat's message: one but for a document that is blocks itself."""
        kind = block.get("type")
        match kind:
            case "text":
                parts = [{"type": "text", "text": self._string(block, "text", at, empty=True)}]
            case "image":
                parts = self._image(block.get("source"), f"{at}.source")
            case "document":
                parts = self._document(block, at)
            case _:
                shown = kind[:64] if isinstance(kind, str) else kind
                self._found.append(unsupported(at, f"chat completions cannot hold a block of type `{shown}` here"))
                return []
        return [*parts[:-1], self._marked(parts[-1], block)] if parts else []

    def _image(self, source: Any, at: str) -> list[dict[str, Any]]:
        match source:
            case {"type": "base64", "media_type": str(media), "data": str(data)}:
                url = f"data:{media};base64,{data}"
            case {"type": "url", "url": str(url)}:
                pass
            case _:
                self._found.append(unsupported(at, "must be base64 with a media_type, or a url"))
                return []
        return [{"type": "image_url", "image_url": {"url": url}}]

    def _document(self, block: dict[str, Any], at: str) -> list[dict[str, Any]]:
        about = [text for name in ("title", "context") if isinstance(text := block.get(name), str) and text]
        cited = block.get("citations")
        if isinstance(cited, dict) and cited.get("enabled"):
            self._found.append(unsupported(f"{at}.citations", "chat completions cite no documents"))
        heading = [{"type": "text", "text": "\n".join(about)}] if about else []
        match block.get("source"):
            case {"type": "base64", "media_type": "application/pdf", "data": str(data)}:
                name = block.get("title") or "document.pdf"
                file = {"filename": name, "file_data": f"data:application/pdf;base64,{data}"}
                return [*heading[: "context" in block], {"type": "file", "file": file}]
            case {"type": "text", "data": str(data)}:
                return [*heading, {"type": "text", "text": data}]
            case {"type": "content", "content": content}:
                inner = self._blocks(content, f"{at}.source.content")
                nested = [where for one, where in inner if one.get("type") == "document"]
                self._found += [Fault(where, "a document holds text and images only") for where in nested]
                texts = [(one, where) for one, where in inner if where not in nested]
                return [*heading, *(part for one, where in texts for part in self._parts(one, where))]
            case _:
                self._found.append(unsupported(f"{at}.source", "chat completions take a document's data only"))
                return []

    def _marked(self, part: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        mark = block.get("cache_control") if self._marks else None
        return part | {"cache_control": mark} if mark else part

    def _blocks(self, content: Any, at: str) -> list[tuple[dict[str, Any], str]]:
        if isinstance(content, str):
            return [({"type": "text", "text": content}, at)]
        if not isinstance(content, list):
            self._found.append(Fault(at, "must be a string or a list of blocks"))
            return []
        blocks = [(block, f"{at}[{index}]") for index, block in enumerate(content)]
        self._found += [Fault(where, "must be an object") for block, where in blocks if not isinstance(block, dict)]
        return [(block, where) for block, where in blocks if isinstance(block, dict)]

    def _string(self, block: dict[str, Any], name: str, at: str, *, empty: bool = False) -> str:
        value = block.get(name)
        if isinstance(value, str) and (value or empty):
            return value
        self._found.append(Fault(f"{at}.{name}", "must be a string" if empty else "must be a non-empty string"))
        return ""


def _plain(parts: list[dict[str, Any]], joint: str) -> str | list[dict[str, Any]]:
    """Return texts without marks as one string, for vendors that take no parts."""
    if all(part.keys() == {"type", "text"} for part in parts):
        return joint.join(part["text"] for part in parts)
    return parts
