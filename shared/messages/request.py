"""A request to Anthropic's Messages as a chat completions request, and what of it chat cannot express.

Both come of one reading, so that nothing is left out of the one without being in the other. Marks of cached prefixes
are hints, and left out where the vendor does not read them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from shared.errors import Fault
from shared.messages.turns import chat_messages, unsupported

BETA = "anthropic_beta"
"""The parameter that holds what callers put into the header `anthropic-beta`: a list of names."""

_MARKED = frozenset({"bedrock", "litellm", "openrouter"})
"""Kinds whose chat has Anthropic's marks: `cache_control`, and signed thoughts in `thinking_blocks`."""

_THOUGHTLESS = frozenset({"azure_openai", "openai"})
"""Kinds whose chat has no `reasoning_content`."""

_READ = frozenset(
    {"messages", "system", "max_tokens", "stop_sequences", "metadata", "service_tier", "thinking", "output_config"}
    | {"tools", "tool_choice", "stream_options", "cache_control", BETA}
)
"""Parameters that are translated, or that only tell Anthropic how to work."""

_LACKING = {
    "top_k": "chat completions have no top_k",
    "container": "the provider has no containers",
    "mcp_servers": "the provider reaches no MCP servers",
    "context_management": "chat completions cannot edit their context",
    "diagnostics": "the provider has no diagnostics",
    "inference_geo": "where a model runs is the configuration's choice",
    "output_format": "use `output_config.format`",
}
_RENAMED = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "user": "metadata.user_id",
    "functions": "tools",
    "function_call": "tool_choice",
}
_ONLY = {"n": 1, "speed": "standard", "logprobs": False, "modalities": ["text"]}
"""Parameters whose other values ask for what a message of chat's cannot be."""

_TIERS = {"auto": "auto", "standard_only": "default"}
_TOOL_OPTIONS: dict[str, Any] = {"defer_loading": False, "allowed_callers": ["direct"], "input_examples": []}
"""What a tool may be besides one of chat's, and the value that changes nothing."""

_LITTLE, _SOME = 2_048, 8_192
"""Budgets of thinking, in tokens, up to which an effort is low, and medium."""

_FETCHING = ("web_search", "web_fetch", "code_execution", "mcp_toolset")


def to_chat(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the chat completions request that a message's is, for a kind; unknown parameters stay as they are."""
    return _read(body, marks=kind in _MARKED, thoughts=kind not in _THOUGHTLESS)[0]


def faults(body: dict[str, Any]) -> list[Fault]:
    """Return what chat completions cannot express (code `unsupported_parameter`), and what is malformed."""
    return _read(body, marks=True, thoughts=True)[1]


def as_asked(fault: Fault, body: Mapping[str, Any]) -> Fault:
    """Return a fault of the chat completions request with the param that it comes from."""
    name = fault.param.removeprefix("body.").partition(".")[0].partition("[")[0]
    if name == "reasoning_effort":
        param = "thinking" if "thinking" in body else "output_config.effort"
    else:
        param = _RENAMED.get(name, name)
    return fault if param == name != "messages" else replace(fault, param=f"body.{param}")


def fetched(body: Mapping[str, Any]) -> str | None:
    """Return the param that brings in input which is not in the body, None where there is none."""
    for name in ("mcp_servers", "container"):
        if body.get(name):
            return name
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and str(tool.get("type")).startswith(_FETCHING):
            return f"tools[{index}]"
    return next(_linked(body.get("messages"), "messages"), None)


def _linked(value: Any, at: str) -> Iterator[str]:
    """Yield the params of documents that are somewhere else."""
    match value:
        case {"type": "document", "source": {"type": "url" | "file"}}:
            yield f"{at}.source"
        case {"content": inner} | {"type": "document", "source": {"content": inner}}:
            yield from _linked(inner, f"{at}.content")
        case list():
            for index, one in enumerate(value):
                yield from _linked(one, f"{at}[{index}]")


def _read(body: dict[str, Any], *, marks: bool, thoughts: bool) -> tuple[dict[str, Any], list[Fault]]:
    given = {name: value for name, value in body.items() if value is not None}
    found = [unsupported(f"body.{name}", said) for name, said in _LACKING.items() if given.get(name)]
    found += [
        unsupported(f"body.{name}", f"is a parameter of chat completions: use `{instead}`")
        for name, instead in _RENAMED.items()
        if name in given
    ]
    found += [
        unsupported(f"body.{name}", f"only {value!r} is available")
        for name, value in _ONLY.items()
        if name in given and given[name] != value
    ]
    left_out = _READ | _LACKING.keys() | _RENAMED.keys() | _ONLY.keys()
    chat = {name: value for name, value in given.items() if name not in left_out}
    chat["messages"] = chat_messages(given, found, marks=marks, thoughts=thoughts)
    if given.get("max_tokens") == 0:
        found.append(unsupported("body.max_tokens", "the provider cannot read a prompt without answering it"))
    elif "max_tokens" in given:
        chat["max_completion_tokens"] = given["max_tokens"]
    if given.get("stop_sequences"):
        chat["stop"] = given["stop_sequences"]
    return chat | _named(given, found) | _tools(given, found, marks=marks) | _output(given, found), found


def _named(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    """Return for whom the request is, and its tier."""
    chat = {}
    metadata = _object(given, "metadata", ("user_id",), found)
    if metadata.get("user_id"):
        chat["user"] = metadata["user_id"]
    tier = given.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        chat["service_tier"] = _TIERS[tier]
    elif tier is not None:
        found.append(Fault("body.service_tier", f"must be one of {', '.join(_TIERS)}"))
    return chat


def _tools(given: Mapping[str, Any], found: list[Fault], *, marks: bool) -> dict[str, Any]:
    tools = given.get("tools", [])
    if not isinstance(tools, list):
        found.append(Fault("body.tools", "must be a list"))
        tools = []
    shapes = [_tool(tool, f"body.tools[{index}]", found, marks=marks) for index, tool in enumerate(tools)]
    chosen = _choice(given.get("tool_choice"), found)
    return {"tools": shapes} | chosen if shapes else {}


def _tool(tool: Any, at: str, found: list[Fault], *, marks: bool) -> dict[str, Any]:
    if not isinstance(tool, dict):
        found.append(Fault(at, "must be an object"))
        return {}
    if tool.get("type") not in (None, "custom"):
        found.append(
            unsupported(at, f"the provider runs no `{str(tool['type'])[:64]}`: only your own tools can be used")
        )
        return {}
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        found.append(Fault(f"{at}.name", "must be a non-empty string"))
    if not isinstance(tool.get("input_schema"), dict):
        found.append(Fault(f"{at}.input_schema", "must be an object"))
    found += [
        unsupported(f"{at}.{name}", "chat completions have no such tools")
        for name, meant in _TOOL_OPTIONS.items()
        if tool.get(name) not in (None, meant)
    ]
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name)}
    mark = {"cache_control": tool["cache_control"]} if marks and tool.get("cache_control") else {}
    return {"type": "function", "function": function} | mark


def _choice(choice: Any, found: list[Fault]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    match choice:
        case None:
            return {}
        case {"type": "auto" | "none" as kind}:
            chat["tool_choice"] = kind
        case {"type": "any"}:
            chat["tool_choice"] = "required"
        case {"type": "tool", "name": str(name)}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            found.append(Fault("body.tool_choice", "must be an object of type auto, any, none, or tool with a name"))
            return {}
    return chat | ({"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {})


def _output(given: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    """Return how much to think, and the answer's format."""
    config = _object(given, "output_config", ("effort", "format"), found)
    chat: dict[str, Any] = {}
    if (effort := _effort(given.get("thinking"), config.get("effort"), found)) is not None:
        chat["reasoning_effort"] = effort
    match config.get("format"):
        case None:
            pass
        case {"type": "json_schema", "schema": dict(schema)}:
            named = {"name": "output", "schema": schema, "strict": True}
            chat["response_format"] = {"type": "json_schema", "json_schema": named}
        case _:
            found.append(unsupported("body.output_config.format", "must be a json_schema with an object `schema`"))
    return chat


def _effort(thinking: Any, effort: Any, found: list[Fault]) -> str | None:
    if not isinstance(effort, str | None):
        found.append(Fault("body.output_config.effort", "must be a string"))
        return None
    match thinking:
        case None | {"type": "adaptive"}:
            return effort
        case {"type": "disabled"}:
            return "none"
        case {"type": "enabled", "budget_tokens": int(budget)}:
            return effort or ("low" if budget <= _LITTLE else "medium" if budget <= _SOME else "high")
        case _:
            found.append(unsupported("body.thinking", "must be adaptive, disabled, or enabled with budget_tokens"))
            return None


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
