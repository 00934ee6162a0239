"""OpenAI's chat and embedding requests in the words of Cohere's v2 API, and what that API cannot say of them.

One walk does both: what finds no words becomes a fault, so that nothing can be left out unnoticed. What only looks like
a loss: `prompt_cache_key` and `user` are hints to another vendor's cache and watch; `metadata` stays with the job; the
`name` of a tool message repeats its call's. Reasoning goes back only beside the calls it led to, as their `tool_plan`:
of other turns models that do not think would refuse it, and those that do need none.
"""

from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._chat_request import PARAMETERS, not_said
from shared.providers._dialect import unsupported

_NOT_SAID: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Cohere has no word for, with the values that ask for nothing."""

_OPENAI_EMBEDDINGS = frozenset(
    {"dimensions", "encoding_format", "input", "metadata", "model", "stream", "stream_options", "user"}
)

_BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": None, "xhigh": None}
"""How many tokens an effort may think; None is as many as the model finds it takes."""


def chat(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the body of a chat for the vendor's own name of the model, and what of the caller's it could not take."""
    asked = {name: value for name, value in body.items() if value is not None}
    faults = not_said(asked, _NOT_SAID, "Cohere")
    messages = []
    for index, given in enumerate(sequence(asked.get("messages"))):
        messages.append(_message(mapping(given), f"body.messages[{index}]", faults))
    sent: dict[str, Any] = {"model": model, "messages": messages, "stream": bool(asked.get("stream"))}
    tools = _tools(asked, faults)
    sent |= tools | _sampling(asked, faults) | _thinking(asked.get("reasoning_effort"), faults)
    sent |= _format(asked.get("response_format"), bool(tools.get("tools")), faults)
    return _with_own(sent, asked, PARAMETERS, faults), faults


def embedding(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the same of a request for embeddings; a text is taken for one to be found, unless the caller says more."""
    asked = {name: value for name, value in body.items() if value is not None}
    faults = []
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        faults.append(unsupported("body.input", "Cohere embeds texts, not tokens"))
    if asked.get("embedding_types", ["float"]) != ["float"]:
        faults.append(unsupported("body.embedding_types", "OpenAI's shape holds embeddings of type `float` only"))
    if asked.get("encoding_format") not in (None, "float", "base64"):
        faults.append(unsupported("body.encoding_format", "must be `float` or `base64`"))
    sent: dict[str, Any] = {"model": model, "texts": texts}
    if "dimensions" in asked:
        sent["output_dimension"] = asked["dimensions"]
    usual = {"input_type": "search_document", "embedding_types": ["float"]}
    return usual | _with_own(sent, asked, _OPENAI_EMBEDDINGS, faults), faults


def _with_own(
    sent: dict[str, Any], asked: dict[str, Any], known: frozenset[str], faults: list[Fault]
) -> dict[str, Any]:
    """Return a body with the vendor's own parameters, which must not say otherwise what OpenAI's have said."""
    own = {name: value for name, value in asked.items() if name not in known}
    faults += [
        unsupported(f"body.{name}", "says again what another parameter of the request says")
        for name in own
        if name in sent
    ]
    return sent | own


def _sampling(asked: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    sent: dict[str, Any] = {name: asked[name] for name in ("temperature", "seed") if name in asked}
    limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
    if limit is not None:
        sent["max_tokens"] = limit
    if (top := asked.get("top_p")) is not None:
        # The vendor's range ends a hundredth short of OpenAI's on either side, whose end means "all of them".
        sent["p"] = min(max(top, 0.01), 0.99) if isinstance(top, int | float) else top
    for name in ("frequency_penalty", "presence_penalty"):
        penalty = asked.get(name)
        if isinstance(penalty, int | float) and not 0 <= penalty <= 1:
            faults.append(unsupported(f"body.{name}", "Cohere's penalties are between 0 and 1"))
        elif penalty:  # some models refuse to be told both, even where one is nothing
            sent[name] = penalty
    if asked.get("logprobs"):
        sent["logprobs"] = True
    stop = asked.get("stop")
    if stop:
        sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return sent


def _thinking(effort: Any, faults: list[Fault]) -> dict[str, Any]:
    if effort is None:
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not isinstance(effort, str) or effort not in _BUDGETS:
        faults.append(unsupported("body.reasoning_effort", "Cohere has no such effort"))
        return {}
    budget = _BUDGETS[effort]
    return {"thinking": {"type": "enabled"} | ({"token_budget": budget} if budget else {})}


def _format(given: Any, has_tools: bool, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_schema" | "json_object"} if has_tools:
            faults.append(unsupported("body.response_format", "Cohere holds no answer to JSON while it has tools"))
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **about}}:
            described = {"description": about["description"]} if about.get("description") else {}
            return {"response_format": {"type": "json_object", "json_schema": described | schema}}
        case {"type": "json_object"}:
            return {"response_format": given}
        case _:
            faults.append(unsupported("body.response_format", "Cohere has no such format"))
    return {}


def _tools(asked: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    strict: list[bool] = []
    if not isinstance(asked.get("tools", []), list):
        faults.append(unsupported("body.tools", "must be a list"))
    for index, given in enumerate(sequence(asked.get("tools"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}}:
                described = {"description": about["description"]} if about.get("description") else {}
                schema = {"type": "object", "properties": {}} | mapping(about.get("parameters"))
                tools.append({"type": "function", "function": {"name": name, **described, "parameters": schema}})
                strict.append(about.get("strict") is True)
            case _:
                faults.append(unsupported(f"body.tools[{index}]", "Cohere's tools are functions with a name"))
    if any(strict) and not all(strict):
        faults.append(unsupported("body.tools", "Cohere's tools are strict all together or not at all"))
    sent: dict[str, Any] = {"tools": tools} if tools else {}
    if any(strict):
        sent["strict_tools"] = True
    match asked.get("tool_choice"):
        case None | "auto":
            return sent
        case "required":
            return sent | {"tool_choice": "REQUIRED"}
        case "none":
            return sent | ({"tool_choice": "NONE"} if tools else {})
        case {"type": "function", "function": {"name": str() as name}} if chosen := [
            tool for tool in tools if tool["function"]["name"] == name
        ]:
            # No function can be named: one must be called, and this is the only one there is.
            return sent | {"tools": chosen, "tool_choice": "REQUIRED"}
    faults.append(unsupported("body.tool_choice", "Cohere has no such choice"))
    return sent


def _message(message: dict[str, Any], where: str, faults: list[Fault]) -> dict[str, Any]:
    role, content, at = message.get("role"), message.get("content"), f"{where}.content"
    if message.get("name") and role != "tool":
        faults.append(unsupported(f"{where}.name", "Cohere's messages carry no names"))
    match role:
        case "system" | "developer":
            return {"role": "system", "content": _parts(content, at, faults)}
        case "user":
            return {"role": "user", "content": _parts(content, at, faults, images=True)}
        case "tool":
            return {
                "role": "tool",
                "tool_call_id": message.get("tool_call_id"),
                "content": _parts(content, at, faults, documents=True),
            }
        case "assistant":
            return _spoken(message, where, faults)
    faults.append(unsupported(where, "Cohere has no such role"))
    return {}


def _spoken(message: dict[str, Any], where: str, faults: list[Fault]) -> dict[str, Any]:
    faults += [
        unsupported(f"{where}.{name}", f"Cohere's messages have no `{name}`")
        for name in ("audio", "function_call")
        if message.get(name)
    ]
    sent: dict[str, Any] = {"role": "assistant"}
    words = message.get("content") or message.get("refusal")
    if words:
        sent["content"] = _parts(words, f"{where}.content", faults)
    calls: list[dict[str, Any]] = []
    for index, given in enumerate(sequence(message.get("tool_calls"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}}:
                spelled = {"name": name, "arguments": about.get("arguments") or "{}"}
                calls.append({"id": given.get("id"), "type": "function", "function": spelled})
            case _:
                faults.append(unsupported(f"{where}.tool_calls[{index}]", "Cohere's calls name a function"))
    if calls:
        sent["tool_calls"] = calls
        plan = message.get("tool_plan") or message.get("reasoning_content")
        sent |= {"tool_plan": plan} if plan else {}
    elif not words:
        sent["content"] = ""
    return sent


def _parts(content: Any, where: str, faults: list[Fault], *, images: bool = False, documents: bool = False) -> Any:
    """Return a message's content, a text or a list of parts, of which only some roles have any but texts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        faults.append(unsupported(where, "must be a string or a list of parts"))
    parts: list[dict[str, Any]] = []
    for index, given in enumerate(sequence(content)):
        match given:
            case {"type": "text", "text": str() as words} | {"type": "refusal", "refusal": str() as words}:
                parts.append({"type": "text", "text": words})
            case {"type": "image_url", "image_url": {"url": str()} as image} if images:
                parts.append({"type": "image_url", "image_url": image})
            case {"type": "document", "document": _} if documents:  # the vendor's own, so that it can be cited
                parts.append(given)
            case _:
                faults.append(unsupported(f"{where}[{index}]", "Cohere has no such part in such a message"))
    return parts
