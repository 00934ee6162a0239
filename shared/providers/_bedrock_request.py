"""OpenAI's chat request in the words of Bedrock's Converse API, and what that API cannot say of it.

One walk does both: what finds no words becomes a fault, so that nothing can be left out unnoticed. Parameters that are
neither OpenAI's nor Converse's are the model's own and go into `additionalModelRequestFields`. What only looks like a
loss: system and developer messages stand together before all turns, the order within them kept; `prompt_cache_key` and
`user` are hints to another vendor's cache and watch; `metadata` stays with the job.
"""

import re
from typing import Any

import orjson

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._bedrock_messages import cached, conversation
from shared.providers._chat_request import PARAMETERS, not_said
from shared.providers._dialect import unsupported

_NOT_SAID: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "seed": (),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Converse has no word for, with the values that ask for nothing."""

_CONVERSE = frozenset(
    {
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "inferenceConfig",
        "outputConfig",
        "performanceConfig",
        "promptVariables",
        "requestMetadata",
        "serviceTier",
        "system",
        "toolConfig",
    }
)

_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_EFFORTS_OF_NOVA = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 28_672}
_BUDGETED = re.compile(r"claude-(3-|(opus|sonnet|haiku)-4(-[0-5])?(-\d{8})?(-v\d+(:\w+)*)?$)")
"""Claude up to 4.5 thinks within a budget, and knows no adaptive thinking."""


def translated(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the vendor's body for its own name of the model, and what of the caller's it could not take up."""
    asked = {name: value for name, value in body.items() if value is not None}
    faults = not_said(asked, _NOT_SAID, "Bedrock's Converse")
    system, turns = conversation(asked.get("messages"), faults)
    inference = _inference(asked)
    output, fields = _reasoning(asked.get("reasoning_effort"), model, inference.get("maxTokens"), faults)
    sent: dict[str, Any] = {
        "system": system,
        "inferenceConfig": inference,
        "toolConfig": _tools(asked, turns, faults),
        "outputConfig": output | _format(asked.get("response_format"), faults),
        "serviceTier": _tier(asked.get("service_tier"), faults),
        "additionalModelRequestFields": fields,
    }
    sent = {"messages": turns} | {name: value for name, value in sent.items() if value}
    for name, value in asked.items():
        if name in _CONVERSE:
            _put(sent, name, value, f"body.{name}", faults)
        elif name not in PARAMETERS:
            _put(sent, "additionalModelRequestFields", {name: value}, f"body.{name}", faults)
    return sent, faults


def _put(sent: dict[str, Any], name: str, value: Any, where: str, faults: list[Fault]) -> None:
    """Put the caller's own value beside what of it is set already, unless both say the same thing."""
    held = sent.get(name, {})
    if not held:
        sent[name] = value
    elif isinstance(held, dict) and isinstance(value, dict) and not held.keys() & value.keys():
        sent[name] = held | value
    else:
        faults.append(unsupported(where, "says again what another parameter of the request says"))


def _inference(asked: dict[str, Any]) -> dict[str, Any]:
    stop = asked.get("stop")
    given = {
        "maxTokens": asked.get("max_completion_tokens", asked.get("max_tokens")),
        "temperature": asked.get("temperature"),
        "topP": asked.get("top_p"),
        "stopSequences": [stop] if isinstance(stop, str) else stop or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _tier(given: Any, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None | "auto":
            return {}
        case "default" | "flex" | "priority" | "reserved":
            return {"type": given}
    faults.append(unsupported("body.service_tier", "Bedrock has no such tier"))
    return {}


def _reasoning(effort: Any, model: str, limit: Any, faults: list[Fault]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `outputConfig` and the model's own fields for an effort: the families of models each say it otherwise."""
    if effort is None:
        return {}, {}
    if effort != "none" and (not isinstance(effort, str) or effort not in _EFFORTS):
        faults.append(unsupported("body.reasoning_effort", "Bedrock has no such effort"))
        return {}, {}
    if "openai.gpt-oss" in model or "moonshot" in model:
        return {}, {"reasoning_effort": _EFFORTS.get(effort, effort)}
    if "openai." in model:
        return {}, {"reasoning": {"effort": _EFFORTS.get(effort, effort)}}
    if "amazon.nova-2" in model:
        level = _EFFORTS_OF_NOVA.get(effort)
        told = {"type": "enabled", "maxReasoningEffort": level} if level else {"type": "disabled"}
        return {}, {"reasoningConfig": told}
    if "claude" not in model:
        if effort == "none":
            faults.append(unsupported("body.reasoning_effort", "Bedrock cannot keep this model from thinking"))
            return {}, {}
        return {"effort": _EFFORTS[effort]}, {}
    if effort == "none":
        return {}, {"thinking": {"type": "disabled"}}
    if _BUDGETED.search(model):
        # Half of a small limit is left for the answer; the vendor itself refuses a limit too small to think at all.
        most = limit // 2 if isinstance(limit, int) else _BUDGETS[effort]
        return {}, {"thinking": {"type": "enabled", "budget_tokens": max(1024, min(_BUDGETS[effort], most))}}
    # Without `display` newer models think unseen, older ones aloud.
    return {"effort": _EFFORTS[effort]}, {"thinking": {"type": "adaptive", "display": "summarized"}}


def _format(given: Any, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **about}}:
            named = {word: about[word] for word in ("name", "description") if about.get(word)}
            structure = {"jsonSchema": {"schema": orjson.dumps(schema).decode(), **named}}
            return {"textFormat": {"type": "json_schema", "structure": structure}}
        case {"type": "json_object"}:
            faults.append(unsupported("body.response_format", "Bedrock guarantees JSON of a given schema only"))
        case _:
            faults.append(unsupported("body.response_format", "Bedrock has no such format"))
    return {}


def _tools(asked: dict[str, Any], turns: list[dict[str, Any]], faults: list[Fault]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    if not isinstance(asked.get("tools", []), list):
        faults.append(unsupported("body.tools", "must be a list"))
    for index, given in enumerate(sequence(asked.get("tools"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}}:
                schema = {"type": "object"} | mapping(about.get("parameters"))
                spec: dict[str, Any] = {"name": name, "inputSchema": {"json": schema}}
                spec |= {word: about[word] for word in ("description", "strict") if about.get(word)}
                tools += cached({"toolSpec": spec}, given)
            case {"toolSpec": _} | {"systemTool": _} | {"cachePoint": _}:  # as the vendor says it
                tools.append(given)
            case _:
                faults.append(unsupported(f"body.tools[{index}]", "Bedrock's tools are functions with a name"))
    choice: dict[str, Any] = {}
    match asked.get("tool_choice"):
        case None | "auto":
            pass
        case "required":
            choice = {"any": {}}
        case {"type": "function", "function": {"name": str() as name}}:
            choice = {"tool": {"name": name}}
        case "none":
            # No word forbids a call; without tools there is none, but turns that hold calls want their tools told.
            if tools and any(block.keys() & {"toolUse", "toolResult"} for turn in turns for block in turn["content"]):
                faults.append(unsupported("body.tool_choice", "Bedrock cannot forbid calls where there were some"))
            return {}
        case _:
            faults.append(unsupported("body.tool_choice", "Bedrock has no such choice"))
    return {"tools": tools} | ({"toolChoice": choice} if choice else {}) if tools else {}
