"""Whoever speaks OpenAI's dialect: the vendors in `_vendors.py`, each a kind of its own, and any server at a URL.

A request to a listed vendor is put as it wants it, and is told beforehand what it would refuse, or ignore without a
word. To the kind `openai_compatible`, whose server nobody knows, requests go as they are.
"""

from dataclasses import replace
from typing import Any

import orjson

from shared.errors import Fault
from shared.json_values import sequence
from shared.providers import Call, Deployment, HttpRequest, openai
from shared.providers import _openai_reading as reading
from shared.providers._dialect import unsupported
from shared.providers._vendors import ALONE, UNSAID, VENDORS, Vendor

DEFAULT_BASE_URL = ""
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings"})

faults = openai.faults
request = openai.request
completion = reading.completion
stream = reading.stream
error = reading.error

_CHAT = "/v1/chat/completions"
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
"""What says of a parameter no more than leaving it out."""


def bound(kind: str) -> "Dialect":
    """Return the adapter of a vendor in the table. Raises KeyError for one that is not there."""
    return Dialect(kind, VENDORS[kind])


class Dialect:
    """An adapter for one row of the table."""

    def __init__(self, kind: str, vendor: Vendor) -> None:
        self._kind, self._vendor = kind, vendor
        self._refused = (ALONE | vendor.refuses) - vendor.takes
        self._unsaid = UNSAID - vendor.takes
        self.completion, self.stream, self.error = completion, stream, error
        self.DEFAULT_BASE_URL = vendor.base_url
        self.listing = openai.listing if vendor.lists_models else None
        self.ROUTES = ROUTES if vendor.embeddings else frozenset({_CHAT})

    def faults(self, call: Call) -> list[Fault]:
        """Return what the vendor is known not to do."""
        if call.url != _CHAT:
            return []
        found = [
            unsupported(f"body.{name}", f"{self._kind} does not have it")
            for name, value in call.body.items()
            if name in self._refused and value is not None and value not in _HARMLESS.get(name, ())
        ]
        asked = call.body.get("response_format")
        if not self._vendor.json_schema and isinstance(asked, dict) and asked.get("type") == "json_schema":
            found.append(unsupported("body.response_format", f"{self._kind} knows no schema; `json_object` it does"))
        if not self._vendor.names:
            found += [
                unsupported(f"body.messages[{index}].name", f"{self._kind} takes no names")
                for index, message in enumerate(sequence(call.body.get("messages")))
                if isinstance(message, dict) and message.get("name") and message.get("role") not in ("tool", "function")
            ]
        return found

    def request(self, call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
        """Build the request as the vendor wants it."""
        body = {
            name: value
            for name, value in call.body.items()
            if value is not None and name not in self._unsaid and (call.url != _CHAT or name not in self._refused)
        }
        if call.url == _CHAT:
            if not self._vendor.completion_limit and (limit := body.pop("max_completion_tokens", None)) is not None:
                body["max_tokens"] = limit
            body["messages"] = [self._message(one) for one in sequence(body.get("messages"))]
        built = openai.request(Call(call.url, body, call.attempt_id), deployment, key)
        if self._vendor.usage_option:
            return built
        unasked = {name: value for name, value in body.items() if name != "stream_options"}
        return replace(built, body=orjson.dumps(unasked | {"model": deployment.model}))

    def _message(self, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        message = dict(given)
        if message.get("role") == "developer":  # not everybody knows it, and to all `system` means the same
            message["role"] = "system"
        if not self._vendor.names:
            message.pop("name", None)
        if self._vendor.thought != "reasoning_content" and "reasoning_content" in message:
            message[self._vendor.thought] = message.pop("reasoning_content")
        return message
