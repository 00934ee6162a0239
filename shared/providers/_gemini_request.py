"""OpenAI's requests in the words of Gemini's `generateContent` and `batchEmbedContents`, and what these cannot say.

One walk does both: what finds no words becomes a fault, so that nothing can be left out unnoticed. What only looks like
a loss: system and developer messages stand together before all turns, the order within them kept; `prompt_cache_key` is
a hint to another vendor's cache; `metadata` stays with the job; `user` and `safety_identifier` are for the vendor to
tell end users apart, which Gemini does not; a file's name and a JSON schema's are labels; `reasoning_content` is what
the vendor has in its signatures, which travel as `extra_content`.
"""

from typing import Any

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers import HttpRequest
from shared.providers._chat_request import PARAMETERS, not_said
from shared.providers._dialect import unsupported
from shared.providers._gemini_contents import conversation, is_earlier

_NOT_SAID: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Gemini has no word for, with the values that ask for nothing."""

_CONFIG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "frequency_penalty": ("frequencyPenalty", (0,)),
    "logprobs": ("responseLogprobs", (False,)),
    "n": ("candidateCount", (1,)),
    "presence_penalty": ("presencePenalty", (0,)),
    "seed": ("seed", ()),
    "temperature": ("temperature", ()),
    "top_logprobs": ("logprobs", (0,)),
    "top_p": ("topP", ()),
}
"""What differs in its name alone, with the values left out: some models refuse the parameter whatever it says."""

_OPENAI_EMBEDDINGS = frozenset({"dimensions", "encoding_format", "input", "model", "user"})

_TIERS = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
"""Tokens, as Google's own endpoint of OpenAI's dialect sets them; none of the older models takes more than the last."""


def chat(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the vendor's body for its own name of the model, and what of the caller's it could not take up."""
    asked = {name: value for name, value in body.items() if value is not None}
    faults = not_said(asked, _NOT_SAID, "Gemini")
    system, contents = conversation(asked.get("messages"), model, faults)
    sent: dict[str, Any] = {"contents": contents}
    if system:
        sent["systemInstruction"] = {"parts": system}
    sent |= _tools(asked, faults)
    config = _config(asked, model, faults)
    if config:
        sent["generationConfig"] = config
    if "store" in asked:
        sent["store"] = asked["store"]
    tier = asked.get("service_tier", "auto")
    if isinstance(tier, str) and tier in _TIERS:
        sent["serviceTier"] = _TIERS[tier]
    elif tier != "auto":
        faults.append(unsupported("body.service_tier", "Gemini has no such tier"))
    own = {name: value for name, value in asked.items() if name not in PARAMETERS}
    return _joined(sent, own, faults), faults


def embeddings(body: dict[str, Any], model: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return the vendor's body, a request for each input, and what of the caller's it could not take up.

    `model` is the vendor's whole name (`models/…`); parameters of the vendor's own go into each of the requests.
    """
    asked = {name: value for name, value in body.items() if value is not None}
    faults = []
    texts = inputs(asked)
    if not texts or not all(isinstance(one, str) for one in texts):
        faults.append(unsupported("body.input", "Gemini takes a text or a list of texts"))
    if asked.get("encoding_format", "float") not in ("float", "base64"):
        faults.append(unsupported("body.encoding_format", "must be float or base64"))
    wanted: dict[str, Any] = {"model": model, "content": None}
    if "dimensions" in asked:
        wanted["outputDimensionality"] = asked["dimensions"]
    own = {name: value for name, value in asked.items() if name not in _OPENAI_EMBEDDINGS}
    wanted = _joined(wanted, own, faults)
    return {"requests": [{**wanted, "content": {"parts": [{"text": one}]}} for one in texts]}, faults


def inputs(body: dict[str, Any]) -> list[Any]:
    """Return what is to be embedded."""
    given = body.get("input")
    return [given] if isinstance(given, str) else sequence(given)


def _joined(sent: dict[str, Any], own: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """Return a body with the parameters that are the vendor's own; objects such as `generationConfig` are joined."""
    whole = dict(sent)
    for name, value in own.items():
        ours = sent.get(name)
        if isinstance(ours, dict) and isinstance(value, dict) and not ours.keys() & value.keys():
            whole[name] = ours | value
        elif name in sent:
            faults.append(unsupported(f"body.{name}", "says again what another parameter of the request says"))
        else:
            whole[name] = value
    return whole


def _config(asked: dict[str, Any], model: str, faults: list[Fault]) -> dict[str, Any]:
    config = {ours: asked[name] for name, (ours, idle) in _CONFIG.items() if name in asked and asked[name] not in idle}
    limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
    if limit is not None:
        config["maxOutputTokens"] = limit
    stop = asked.get("stop")
    if stop:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    elif isinstance(stop, str):
        faults.append(unsupported("body.stop", "is empty"))
    return config | _format(asked.get("response_format"), faults) | _thinking(asked, model, faults)


def _thinking(asked: dict[str, Any], model: str, faults: list[Fault]) -> dict[str, Any]:
    effort = asked.get("reasoning_effort")
    if effort is None:
        return {}
    if effort == "none":
        # The models that always think refuse it: a little thinking is not what was asked for.
        return {"thinkingConfig": {"thinkingBudget": 0}}
    if not isinstance(effort, str) or effort not in _BUDGETS:
        faults.append(unsupported("body.reasoning_effort", "Gemini has no such effort"))
        return {}
    if is_earlier(model):
        return {"thinkingConfig": {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}}
    # The larger models know nothing below "low"; Google's own endpoint of OpenAI's dialect reads it so, too.
    level = "low" if effort == "minimal" and "-pro" in model else effort
    return {"thinkingConfig": {"thinkingLevel": level.upper(), "includeThoughts": True}}


def _format(given: Any, faults: list[Fault]) -> dict[str, Any]:
    match given:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"responseMimeType": "application/json"}
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **about}}:
            described = {"description": about["description"]} if about.get("description") else {}
            return {"responseMimeType": "application/json", "responseJsonSchema": described | schema}
        case _:
            faults.append(unsupported("body.response_format", "Gemini has no such format"))
            return {}


def _tools(asked: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    declared: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    strict = False
    if not isinstance(asked.get("tools", []), list):
        faults.append(unsupported("body.tools", "must be a list"))
    for index, given in enumerate(sequence(asked.get("tools"))):
        match given:
            case {"type": "function", "function": {"name": str() as name, **about}}:
                described = {"description": about["description"]} if about.get("description") else {}
                schema = {"parametersJsonSchema": about["parameters"]} if about.get("parameters") else {}
                declared.append({"name": name, **described, **schema})
                strict = strict or about.get("strict") is True
            case dict() if given and "type" not in given:  # one of the vendor's own, such as `{"googleSearch": {}}`
                own.append(given)
            case _:
                faults.append(unsupported(f"body.tools[{index}]", "Gemini has no such tool"))
    tools = ([{"functionDeclarations": declared}] if declared else []) + own
    if tools and asked.get("parallel_tool_calls") is False and asked.get("tool_choice") != "none":
        faults.append(unsupported("body.parallel_tool_calls", "Gemini cannot be kept from calling several at once"))
    calling = _calling(asked.get("tool_choice"), strict, faults)
    if not tools and calling.get("mode") in ("AUTO", "NONE"):
        calling = {}  # without tools it is so anyway
    return ({"tools": tools} if tools else {}) | ({"toolConfig": {"functionCallingConfig": calling}} if calling else {})


def _calling(choice: Any, strict: bool, faults: list[Fault]) -> dict[str, Any]:
    """Return which functions may and must be called; `VALIDATED` is the vendor's word for arguments held to a schema.

    Calls that must be made are held to it anyway.
    """
    freely = "VALIDATED" if strict else "AUTO"
    match choice:
        case None:
            return {"mode": freely} if strict else {}
        case "auto":
            return {"mode": freely}
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case {"type": "function", "function": {"name": str() as name}}:
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list() as given},
        }:
            names = [mapping(mapping(one).get("function")).get("name") for one in given]
            if names and all(isinstance(name, str) for name in names):
                # With a choice of functions the vendor's `AUTO` is called `VALIDATED`.
                return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": names}
    faults.append(unsupported("body.tool_choice", "Gemini has no such choice"))
    return {}


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models."""
    headers = {"x-goog-api-key": key} if key else {}
    return HttpRequest(url=f"{base_url}/models?pageSize=1", headers=headers, body=b"", method="GET")
