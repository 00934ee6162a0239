"""The items of a response's `input` as the messages of a chat, and what of them no message can hold."""

from collections.abc import Mapping
from typing import Any

from shared.errors import Fault

ROLES = ("user", "assistant", "system", "developer")

_PLACED = frozenset(
    {"type", "text", "refusal", "image_url", "detail", "file_data", "filename", "file_id", "file_url", "input_audio"}
    | {"annotations", "logprobs"}
)
"""What is read from a content part, or describes an output only; anything else stays on the part."""


def unsupported(param: str, message: str) -> Fault:
    """Return the fault of something that chat completions cannot express."""
    return Fault(param, message, "unsupported_parameter")


def messages(given: Mapping[str, Any], found: list[Fault]) -> list[dict[str, Any]]:
    """Return the messages that `instructions` and `input` are; what is wrong with them is added to `found`."""
    chat = _Chat(found)
    instructions = given.get("instructions")
    if isinstance(instructions, str):
        chat.messages.append({"role": "system", "content": instructions})
    elif instructions is not None:
        found.append(Fault("body.instructions", "must be a string"))
    match given.get("input"):
        case str(asked) if asked:
            chat.messages.append({"role": "user", "content": asked})
        case [_, *_] as items:
            for index, item in enumerate(items):
                chat.add(item, f"body.input[{index}]")
            chat.end()
        case _:
            found.append(Fault("body.input", "must be a non-empty string or list"))
    return chat.messages


class _Chat:
    """The messages so far. What an assistant thought, said and called in one go is several items, but one message."""

    def __init__(self, found: list[Fault]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._found = found
        self._calls: set[str] = set()
        self._thought_at: str | None = None
        """Where the reasoning stands that nothing has followed yet."""

    def add(self, item: Any, at: str) -> None:
        """Take the next item; `at` is its param."""
        if not isinstance(item, dict):
            self._found.append(Fault(at, "must be an object"))
            return
        match item.get("type"):
            case "message":
                self._message(item, at)
            case None if "role" in item:
                self._message(item, at)
            case "function_call":
                self._call(item, at)
            case "function_call_output":
                self._call_output(item, at)
            case "reasoning":
                self._reasoning(item, at)
            case "item_reference":
                self._found.append(unsupported(at, "refers to a stored item, and none are stored"))
            case None if "id" in item:
                self._found.append(unsupported(at, "refers to a stored item, and none are stored"))
            case str(other):
                self._found.append(unsupported(at, f"chat completions cannot hold an item of type `{other[:64]}`"))
            case _:
                self._found.append(Fault(f"{at}.type", "must be a string"))

    def end(self) -> None:
        """Say what is missing where a user's turn begins, or nothing follows."""
        if self._thought_at is not None:
            self._found.append(Fault(self._thought_at, "is not followed by what the assistant said or called"))
            self._thought_at = None

    def _message(self, item: dict[str, Any], at: str) -> None:
        role = item.get("role")
        if role not in ROLES:
            self._found.append(Fault(f"{at}.role", f"must be one of {', '.join(ROLES)}"))
            return
        said = content(item.get("content"), f"{at}.content", role, self._found)
        if role != "assistant":
            self.end()
            self.messages.append({"role": role, "content": said})
            return
        self._thought_at = None
        turn = self._turn()
        if turn is not None and turn["content"] is None:
            turn["content"] = said
        elif turn is not None and "tool_calls" in turn:
            # Between a call and its output chat has no room for a message.
            turn["content"] = [*_parts(turn["content"]), *_parts(said)]
        else:
            self.messages.append({"role": "assistant", "content": said})

    def _call(self, item: dict[str, Any], at: str) -> None:
        self._thought_at = None
        call_id = self._string(item, "call_id", at)
        function = {name: self._string(item, name, at) for name in ("name", "arguments")}
        if item.get("namespace") is not None:
            self._found.append(unsupported(f"{at}.namespace", "chat completions have no namespaces of tools"))
        self._calls.add(call_id)
        turn = self._turn()
        if turn is None:
            turn = {"role": "assistant", "content": None}
            self.messages.append(turn)
        turn.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})

    def _call_output(self, item: dict[str, Any], at: str) -> None:
        self.end()
        call_id = self._string(item, "call_id", at)
        if call_id and call_id not in self._calls:
            self._found.append(Fault(f"{at}.call_id", "is not the call_id of an earlier function_call"))
        output = content(item.get("output"), f"{at}.output", "tool", self._found)
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": output})

    def _reasoning(self, item: dict[str, Any], at: str) -> None:
        held = item.get("content") or item.get("summary") or []
        texts = (
            [part.get("text") if isinstance(part, dict) else None for part in held]
            if isinstance(held, list)
            else [None]
        )
        thought = "\n\n".join(text for text in texts if isinstance(text, str))
        if not all(isinstance(text, str) for text in texts):
            self._found.append(Fault(f"{at}.summary", "must be a list of objects with a string `text`"))
        if not thought:
            if item.get("encrypted_content"):
                self._found.append(unsupported(f"{at}.encrypted_content", "only who encrypted it can read it"))
            return
        self._thought_at = at
        turn = self._turn()
        if turn is not None and (turn["content"] is None or "tool_calls" in turn):
            turn["reasoning_content"] = "\n\n".join(filter(None, [turn.get("reasoning_content"), thought]))
        else:
            self.messages.append({"role": "assistant", "content": None, "reasoning_content": thought})

    def _turn(self) -> dict[str, Any] | None:
        """Return the assistant's message that is the last."""
        return self.messages[-1] if self.messages and self.messages[-1]["role"] == "assistant" else None

    def _string(self, item: dict[str, Any], name: str, at: str) -> str:
        value = item.get(name)
        if not isinstance(value, str) or (not value and name != "arguments"):
            self._found.append(Fault(f"{at}.{name}", "must be a string" if name == "arguments" else "is missing"))
            return ""
        return value


def content(value: Any, at: str, role: str, found: list[Fault]) -> str | list[dict[str, Any]]:
    """Return a message's content in chat's shape: a single plain text as a string, for vendors that take no parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        found.append(Fault(at, "must be a string or a list"))
        return ""
    parts = [_part(part, f"{at}[{index}]", role, found) for index, part in enumerate(value)]
    match [part for part in parts if part is not None]:
        case []:
            return ""
        case [{"type": "text", "text": str(text), **rest}] if not rest:
            return text
        case several:
            return several


def _part(part: Any, at: str, role: str, found: list[Fault]) -> dict[str, Any] | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        found.append(Fault(at, "must be an object with a string `type`"))
        return None
    kept = {name: value for name, value in part.items() if name not in _PLACED and value is not None}
    shape: dict[str, Any]
    match kind:
        case "input_text" | "output_text" | "text":
            shape = {"type": "text", "text": _held(part, "text", at, found)}
        case "refusal" if role == "assistant":
            shape = {"type": "refusal", "refusal": _held(part, "refusal", at, found)}
        case "input_image" | "input_file" | "input_audio" if role != "user":
            found.append(unsupported(at, "only a user's message may hold it in chat completions"))
            return None
        case "input_image":
            shape = {"type": "image_url", "image_url": _image(part, at, found)}
        case "input_file":
            shape = {"type": "file", "file": _file(part, at, found)}
        case "input_audio":
            if not isinstance(part.get("input_audio"), dict):
                found.append(Fault(f"{at}.input_audio", "must be an object"))
            shape = {"type": "input_audio", "input_audio": part.get("input_audio")}
        case _:
            found.append(unsupported(at, f"chat completions cannot hold content of type `{kind[:64]}`"))
            return None
    return shape | kept


def _image(part: dict[str, Any], at: str, found: list[Fault]) -> dict[str, Any]:
    _stored(part, at, found)
    image = {} if part.get("file_id") else {"url": _held(part, "image_url", at, found)}
    return image if part.get("detail") is None else image | {"detail": part["detail"]}


def _file(part: dict[str, Any], at: str, found: list[Fault]) -> dict[str, Any]:
    _stored(part, at, found)
    if part.get("file_url"):
        found.append(unsupported(f"{at}.file_url", "chat completions take a file's data only"))
    if part.get("detail") not in (None, "auto"):
        found.append(unsupported(f"{at}.detail", "chat completions have no detail for files"))
    if not part.get("file_url") and not part.get("file_id"):
        _held(part, "file_data", at, found)
    return {name: part[name] for name in ("file_data", "filename") if part.get(name) is not None}


def _stored(part: dict[str, Any], at: str, found: list[Fault]) -> None:
    if part.get("file_id"):
        found.append(unsupported(f"{at}.file_id", "refers to a file that the provider does not have"))


def _held(part: dict[str, Any], name: str, at: str, found: list[Fault]) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        found.append(Fault(f"{at}.{name}", "must be a string"))
        return ""
    return value


def _parts(said: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return said if isinstance(said, list) else [{"type": "text", "text": said}]
