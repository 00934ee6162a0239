"""OpenAI's chat request in the words of Anthropic's Messages API, and what that API cannot say of it.

One walk does both: what finds no words becomes a fault, so that nothing can be left out unnoticed. What only looks like
a loss: system and developer messages stand together before all turns, the order within them kept; `prompt_cache_key` is
a hint to another vendor's cache; `metadata` stays with the job; the `name` of a tool message repeats its call's;
`reasoning_content` without the signature in `thinking_blocks` is what the vendor takes from nobody.
"""

import re
from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._anthropic_messages import cached, conversation
from shared.providers._chat_request import PARAMETERS, not_said
from shared.providers._dialect import unsupported

DEFAULT_MAX_TOKENS = 32_000
"""Anthropic wants a limit and OpenAI's callers mean "as much as it takes": what every model served today can write."""

_NOT_SAID: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "seed": (),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Anthropic has no word for, with the values that ask for nothing."""


_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 28_672}
_BUDGETED = re.compile(r"claude-(3-|(opus|sonnet|haiku)-4(-[0-5])?([-@]\d{8}|-latest)?$)")
"""Models up to 4.5: they think within a budget, and know no adaptive thinking."""


def translated(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the vendor's body for its own name of the model, and what of the caller's it could not take up."""
    asked = {name: value for name, value in body.items() if value is not None}
    faults = not_said(asked, _NOT_SAID, "Anthropic")
    system, turns = conversation(asked.get("messages"), faults)
    limit = asked.get("max_completion_tokens", asked.get("max_tokens", DEFAULT_MAX_TOKENS))
    sent: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": turns}
    if system:
        sent["system"] = system
    if asked.get("stream"):
        sent["stream"] = True
    sent |= _tools(asked, faults) | _sampling(asked, faults)
    user = asked.get("safety_identifier", asked.get("user"))
    if user is not None:
        sent["metadata"] = {"user_id": user}
    if (tier := asked.get("service_tier")) is not None:
        if isinstance(tier, str) and tier in _TIERS:
            sent["service_tier"] = _TIERS[tier]
        else:
            faults.append(unsupported("body.service_tier", "Anthropic has no such tier"))
    thinking, effort = _thinking(asked.get("reasoning_effort"), model, limit, faults)
    sent |= thinking
    output = effort | _format(asked.get("response_format"), faults)
    own = {name: value for name, value in asked.items() if name not in PARAMETERS}
    given = own.get("output_config", {})
    if isinstance(given, dict) and not output.keys() & given.keys():
        own.pop("output_config", None)
        output |= given
    if output:
        sent["output_config"] = output
    faults += [
        unsupported(f"body.{name}", "says again what another parameter of the request says")
        for name in own
        if name in sent
    ]
    return sent | own, faults


def _sampling(asked: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    sent: dict[str, Any] = {name: asked[name] for name in ("temperature", "top_p") if name in asked}
    temperature = sent.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        faults.append(unsupported("body.temperature", "Anthropic's temperature ends at 1"))
    stop = asked.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    if stops:
        sent["stop_sequences"] = stops
        if any(isinstance(one, str) and not one.strip() for one in sequence(stops)):
            faults.append(unsupported("body.stop", "Anthropic does not stop at mere whitespace"))
    elif isinstance(stop, str):
        faults.append(unsupported("body.stop", "is empty"))
    return sent


def _thinking(effort: Any, model: str, limit: Any, faults: list[Fault]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what says how much to think, at the top level and in `output_config`."""
    if effort is None:
        return {}, {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}, {}
    if not isinstance(effort, str) or effort not in _EFFORTS:
        faults.append(unsupported("body.reasoning_effort", "Anthropic has no such effort"))
        return {}, {}
    if _BUDGETED.search(model):
        # Half of a small limit is left for the answer; the vendor itself refuses a limit too small to think at all.
        most = limit // 2 if isinstance(limit, int) else _BUDGETS[effort]
        return {"thinking": {"type": "enabled", "budget_tokens": max(1024, min(_BUDGETS[effort], most))}}, {}
    # Without `display` newer models think unseen, older ones aloud.
    return {"thinking": {"type": "adaptive", "display": "summarized"}}, {"effort": _EFFORTS[effort]}


def _format(given: Any, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **about}}:
            described = {"description": about["description"]} if about.get("description") else {}
            return {"format": {"type": "json_schema", "schema": described | schema}}
        case {"type": "json_object"}:
            # OpenAI's mode wants the prompt to ask for JSON anyway; what it adds is the guarantee, and no sentence of
            # ours in the prompt would be one.
            faults.append(unsupported("body.response_format", "Anthropic guarantees JSON of a given schema only"))
        case _:
            faults.append(unsupported("body.response_format", "Anthropic has no such format"))
    return {}


def _tools(asked: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    tools = []
    if not isinstance(asked.get("tools", []), list):
        faults.append(unsupported("body.tools", "must be a list"))
    for index, given in enumerate(sequence(asked.get("tools"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}}:
                tool: dict[str, Any] = {
                    "name": name,
                    "input_schema": {"type": "object"} | mapping(about.get("parameters")),
                }
                tool |= {word: about[word] for word in ("description", "strict") if about.get(word)}
                tools.append(cached(tool, given))
            case {"type": "function"} | {"custom": _}:
                faults.append(unsupported(f"body.tools[{index}]", "Anthropic's tools are functions with a name"))
            case {"type": str()}:  # one of the vendor's own, such as its web search
                tools.append(given)
            case _:
                faults.append(unsupported(f"body.tools[{index}]", "Anthropic has no such tool"))
    choice = _tool_choice(asked.get("tool_choice"), faults)
    if asked.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto"} | choice | {"disable_parallel_tool_use": True}
    if not tools and choice.get("type") in ("auto", "none"):
        choice = {}  # without tools it is so anyway, and the vendor refuses to be told
    return ({"tools": tools} if tools else {}) | ({"tool_choice": choice} if choice else {})


def _tool_choice(given: Any, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None:
            return {}
        case "auto" | "none":
            return {"type": given}
        case "required":
            return {"type": "any"}
        case {"type": "function", "function": {"name": str() as name}}:
            return {"type": "tool", "name": name}
        case _:
            faults.append(unsupported("body.tool_choice", "Anthropic has no such choice"))
            return {}
