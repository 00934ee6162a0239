"""Mistral's API (https://docs.mistral.ai/api): OpenAI's dialect, in which nothing unknown is permitted.

What OpenAI calls otherwise is renamed, and what Mistral lacks is a fault. Its models think in parts of the content:
these become `reasoning_content` and, in a later turn, parts again.
"""

from dataclasses import replace
from typing import Any

import orjson

from shared.errors import Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader
from shared.providers import _openai_reading as reading
from shared.providers._dialect import request_id_of, unsupported
from shared.providers._mistral_messages import translated

DEFAULT_BASE_URL = "https://api.mistral.ai/v1"
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings"})

_RENAMED = {"max_completion_tokens": "max_tokens", "seed": "random_seed", "dimensions": "output_dimension"}
_LACKING: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Mistral does not have, each with the values that say no more than leaving it out."""
_UNSAID = frozenset({"metadata", "model", "prompt_cache_retention", "safety_identifier", "stream_options", "user"})
_EFFORTS = ("none", "high")


def faults(call: Call) -> list[Fault]:
    """Return what Mistral cannot do of what is asked."""
    return _translated(call)[1]


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build a request; a stream ends with its usage unasked."""
    headers = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    if key:
        headers["authorization"] = f"Bearer {key}"
    body, _ = _translated(call)
    return HttpRequest(
        url=deployment.base_url + call.url.removeprefix("/v1"),
        headers=headers,
        body=orjson.dumps({"model": deployment.model} | body),
    )


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return HttpRequest(url=f"{base_url}/models", headers=headers, body=b"", method="GET")


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a chat completion or embeddings."""
    return reading.completion(_identified(response), call)


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed chat completion."""
    return reading.stream(_identified(head), call)


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return reading.error(_identified(response))


def _translated(call: Call) -> tuple[dict[str, Any], list[Fault]]:
    """Return the body without its model, and what of it cannot be said to Mistral."""
    faults: list[Fault] = []
    body: dict[str, Any] = {}
    for name, value in call.body.items():
        if value is None or name in _UNSAID:
            continue
        if name in _LACKING:
            if value not in _LACKING[name]:
                faults.append(unsupported(f"body.{name}", "Mistral does not have it"))
            continue
        # `max_tokens` is OpenAI's older name: the newer one wins wherever it stands.
        if name != "max_tokens" or call.body.get("max_completion_tokens") is None:
            body[_RENAMED.get(name, name)] = value
    if call.url == "/v1/embeddings":
        return body, faults + _embedding_faults(body)
    body["messages"] = []
    for index, message in enumerate(sequence(call.body.get("messages"))):
        said, found = translated(message, f"body.messages[{index}]")
        body["messages"].append(said)
        faults += found
    return body, faults + _tools(body) + _options(body)


def _embedding_faults(body: dict[str, Any]) -> list[Fault]:
    asked = body.get("input")
    if isinstance(asked, list) and not all(isinstance(one, str) for one in asked):
        return [unsupported("body.input", "Mistral embeds texts, not tokens")]
    return []


def _tools(body: dict[str, Any]) -> list[Fault]:
    """Put tools as Mistral takes them; return what it cannot do of them."""
    if not body.get("tools"):
        body.pop("tools", None)  # an empty list is not permitted
    choice = body.get("tool_choice")
    if choice == "required":
        body["tool_choice"] = "any"
    faults = [
        unsupported(f"body.tools[{index}]", "Mistral takes no tool without a schema")
        for index, tool in enumerate(sequence(body.get("tools")))
        if mapping(tool).get("type") == "custom"
    ]
    if isinstance(choice, dict) and choice.get("type") != "function":
        faults.append(unsupported("body.tool_choice", "Mistral can be told one function, or all"))
    return faults


def _options(body: dict[str, Any]) -> list[Fault]:
    """Put a prediction as Mistral takes it; return what it cannot do of this and of the effort."""
    faults: list[Fault] = []
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        faults.append(unsupported("body.reasoning_effort", "Mistral knows the efforts `none` and `high`"))
    predicted = mapping(body.get("prediction")).get("content")
    if isinstance(predicted, list):
        texts = [mapping(part).get("text") for part in predicted]
        body["prediction"] = {"type": "content", "content": "".join(one for one in texts if isinstance(one, str))}
    return faults


def _identified(response: HttpResponse) -> HttpResponse:
    """Return an answer with Mistral's request id where everybody else's is."""
    found = request_id_of(response, "mistral-correlation-id")
    return replace(response, headers=response.headers | {"x-request-id": found}) if found else response
