"""Reading a chat request in OpenAI's shape, as every adapter does that says it in a vendor's own words."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from shared.errors import Fault
from shared.json_values import mapping, sequence
from shared.providers._dialect import json_object, unsupported

PARAMETERS = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "messages", "metadata", "modalities", "model", "n", "parallel_tool_calls", "prediction",
        "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "response_format",
        "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature",
        "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
    }
)  # fmt: skip
"""OpenAI's parameters of a chat completion; any other is the vendor's own and passes."""


def not_said(asked: Mapping[str, Any], idle: Mapping[str, tuple[Any, ...]], vendor: str) -> list[Fault]:
    """Return the faults of what a vendor has no word for; `idle` names it, with the values that ask for nothing."""
    return [
        unsupported(f"body.{name}", f"{vendor} has no `{name}`")
        for name, values in idle.items()
        if name in asked and asked[name] not in values
    ]


def content_blocks(
    content: Any,
    where: str,
    faults: list[Fault],
    *,
    vendor: str,
    only: tuple[str, ...],
    read: Callable[[dict[str, Any]], dict[str, Any] | None],
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return a message's content as the vendor's blocks, each with the part it was made of.

    `read` makes a block of a part of a type in `only`, None of one it cannot. Empty texts are left out: vendors refuse
    them and nobody misses them.
    """
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif content is not None and not isinstance(content, list):
        faults.append(unsupported(where, "must be a string or a list of parts"))
    blocks = []
    for index, given in enumerate(sequence(content)):
        part = mapping(given)
        if part.get("type") not in only:
            faults.append(unsupported(f"{where}[{index}]", f"{vendor} has no such part in such a message"))
        elif (block := read(part)) is None:
            faults.append(unsupported(f"{where}[{index}]", f"is not of a form that {vendor} takes"))
        elif block.get("text") != "":
            blocks.append((block, part))
    return blocks


def spelled_object(given: Any) -> orjson.Fragment | None:
    """Return a JSON object, such as the arguments of a call, exactly as it is spelled; None for what is none."""
    return orjson.Fragment(given) if isinstance(given, str) and json_object(given.encode()) is not None else None


def inline(url: str) -> tuple[str, str]:
    """Return media type and base64 of a `data:` URL, two empty strings of anything else."""
    head, _, encoded = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        return "", ""
    return head.removeprefix("data:").partition(";")[0].lower(), encoded
