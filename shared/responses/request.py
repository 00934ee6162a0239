"""A response's request as a chat completions request, and what of it chat cannot express.

Both come of one reading, so that nothing is left out of the one without being in the other.
"""

from collections.abc import Mapping
from typing import Any

from shared.errors import Fault
from shared.responses.items import messages, unsupported

LOGPROBS = "message.output_text.logprobs"

_READ = frozenset(
    {"input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include"}
    | {"max_output_tokens", "max_tool_calls", "top_logprobs", "truncation", "stream_options"}
    | {"background", "previous_response_id", "store"}
)
"""Parameters that are translated, or that mean us; `max_tool_calls` limits hosted tools, of which there are none."""

_LACKING = {
    "conversation": "no conversations are stored: go on with `previous_response_id`",
    "prompt": "no prompt templates are stored",
    "context_management": "chat completions cannot compact a conversation",
    "moderation": "the provider has no moderated responses",
    "image": "the provider has no such option",
    "access_programs": "the provider has no such programs",
}
_RENAMED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
    "functions": "tools",
    "function_call": "tool_choice",
}
_ONLY = {"n": 1, "modalities": ["text"], "audio": None}
"""Parameters of chat completions whose other values ask for what a response cannot hold."""
_TOOL_OPTIONS = {"async": False, "defer_loading": False, "output_schema": None, "allowed_callers": ["direct"]}
"""What a function of a response may be besides one of chat's, and the value that changes nothing."""


def to_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat completions request that a response's request is; parameters nobody knows stay as they are."""
    return _read(body)[0]


def faults(body: dict[str, Any]) -> list[Fault]:
    """Return what chat completions cannot express (code `unsupported_parameter`), and what is malformed."""
    return _read(body)[1]


def _read(body: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    given = {name: value for name, value in body.items() if value is not None}
    found = [unsupported(f"body.{name}", message) for name, message in _LACKING.items() if given.get(name)]
    found += [
        unsupported(f"body.{name}", f"is a parameter of chat completions: use `{instead}`")
        for name, instead in _RENAMED.items()
        if name in given
    ]
    found += [
        unsupported(f"body.{name}", "a response holds one answer of text")
        for name, value in _ONLY.items()
        if name in given and given[name] != value
    ]
    chat = {
        name: value
        for name, value in given.items()
        if name not in _READ and name not in _LACKING and name not in _RENAMED
    }
    chat["messages"] = messages(given, found)
    if "max_output_tokens" in given:
        chat["max_completion_tokens"] = given["max_output_tokens"]
    if given.get("truncation", "disabled") != "disabled":
        found.append(unsupported("body.truncation", "only `disabled` is available"))
    chat |= _tools(given, found) | _text(given, found) | _reasoning(given, found) | _logprobs(given, found)
    return chat, found


def _tools(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    tools = given.get("tools", [])
    if not isinstance(tools, list):
        found.append(Fault("body.tools", "must be a list"))
        tools = []
    shapes = [_tool(tool, f"body.tools[{index}]", found) for index, tool in enumerate(tools)]
    choice = _tool_choice(given.get("tool_choice"), found)
    if not tools:
        # Without tools these two say nothing, but a chat completions API may refuse them.
        return {} if choice in (None, "auto", "none") else {"tool_choice": choice}
    chosen = {"tools": shapes, "tool_choice": choice, "parallel_tool_calls": given.get("parallel_tool_calls")}
    return {name: value for name, value in chosen.items() if value is not None}


def _tool(tool: Any, at: str, found: list[Fault]) -> Any:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        found.append(Fault(at, "must be an object with a string `type`"))
        return tool
    if tool["type"] != "function":
        found.append(unsupported(at, f"the provider runs no `{tool['type'][:64]}`: only functions are available"))
        return tool
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        found.append(Fault(f"{at}.name", "must be a non-empty string"))
    if not isinstance(tool.get("parameters"), dict | None):
        found.append(Fault(f"{at}.parameters", "must be an object"))
    found += [
        unsupported(f"{at}.{name}", "chat completions have no such functions")
        for name, meant in _TOOL_OPTIONS.items()
        if tool.get(name) not in (None, meant)
    ]
    kept = {name: value for name, value in tool.items() if value is not None and name not in _TOOL_OPTIONS}
    function = {name: kept.pop(name) for name in ("name", "description", "parameters", "strict") if name in kept}
    return kept | {"function": function}


def _tool_choice(choice: Any, found: list[Fault]) -> Any:
    at = "body.tool_choice"
    match choice:
        case None | "none" | "auto" | "required":
            return choice
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": [*tools]}:
            allowed = [_tool_choice(tool, []) for tool in tools]
            found += [
                unsupported(f"{at}.tools[{index}]", "must be a function")
                for index, tool in enumerate(allowed)
                if not isinstance(tool, dict) or tool.get("type") != "function"
            ]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
        case {"type": "function" | "allowed_tools"} | str():
            found.append(Fault(at, "is not one of the choices that there are"))
        case {"type": str(kind)}:
            found.append(unsupported(at, f"the provider runs no `{kind[:64]}`: only functions are available"))
        case _:
            found.append(Fault(at, "must be a string or an object with a string `type`"))
    return None


def _text(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    text = _object(given, "text", ("format", "verbosity"), found)
    chat = {} if text.get("verbosity") is None else {"verbosity": text["verbosity"]}
    match text.get("format"):
        case None | {"type": "text"}:
            return chat
        case {"type": "json_object"}:
            return chat | {"response_format": {"type": "json_object"}}
        case {"type": "json_schema", "name": str(), "schema": dict()} as asked:
            schema = {name: value for name, value in asked.items() if name != "type" and value is not None}
            return chat | {"response_format": {"type": "json_schema", "json_schema": schema}}
        case {"type": "json_schema"}:
            found.append(Fault("body.text.format", "must have a string `name` and an object `schema`"))
        case {"type": str(kind)}:
            found.append(unsupported("body.text.format", f"chat completions have no format `{kind[:64]}`"))
        case _:
            found.append(Fault("body.text.format", "must be an object with a string `type`"))
    return chat


def _reasoning(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    """Return the effort. What the model lets be seen of its reasoning becomes the summary, asked for or not."""
    reasoning = _object(given, "reasoning", ("effort", "summary", "generate_summary", "context", "mode"), found)
    for name, meant in {
        "summary": ("auto", "detailed"),
        "generate_summary": ("auto", "detailed"),
        "context": ("auto",),
        "mode": ("standard",),
    }.items():
        if reasoning.get(name) is not None and reasoning[name] not in meant:
            found.append(unsupported(f"body.reasoning.{name}", f"only {' and '.join(meant)} is available"))
    effort = reasoning.get("effort")
    if not isinstance(effort, str | None):
        found.append(Fault("body.reasoning.effort", "must be a string"))
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    include = given.get("include", [])
    if not isinstance(include, list):
        found.append(Fault("body.include", "must be a list"))
        include = []
    found += [
        unsupported(f"body.include[{index}]", f"only `{LOGPROBS}` is available")
        for index, name in enumerate(include)
        if name != LOGPROBS
    ]
    top = given.get("top_logprobs")
    if not isinstance(top, int | None) or isinstance(top, bool):
        found.append(Fault("body.top_logprobs", "must be an integer"))
    if not top and LOGPROBS not in include:
        return {}
    return {"logprobs": True} if top is None else {"logprobs": True, "top_logprobs": top}


def _object(given: Mapping[str, Any], name: str, known: tuple[str, ...], found: list[Fault]) -> dict[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        found.append(Fault(f"body.{name}", "must be an object"))
        return {}
    found += [
        unsupported(f"body.{name}.{key}", "chat completions have no such option")
        for key in value
        if key not in known and value[key] is not None
    ]
    return value
