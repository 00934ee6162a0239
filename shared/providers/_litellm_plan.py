"""What litellm makes of a call, for `litellm.py`: which vendor it is for, and the vendor's request.

litellm's classes read the environment for a vendor's address and key where the configuration has none.
"""

import copy
import importlib
import os
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.errors import ConfigError, Fault
from shared.json_values import mapping, sequence
from shared.providers import Call
from shared.providers._chat_request import PARAMETERS
from shared.providers._dialect import text, unsupported

# fmt: off
VENDORS = frozenset({
    "abliteration", "ai21", "ai21_chat", "aiand", "amazon_nova", "apertis", "assemblyai", "baseten", "bigmodel",
    "cerebras", "charity_engine", "chutes", "clf_ai_gateway", "codestral", "cognition", "cometapi", "compactifai",
    "coralbricks", "cortecs", "custom", "custom_openai", "darkbloom", "dashscope", "datarobot", "deepinfra",
    "deepseek", "docker_model_runner", "edenai", "empower", "featherless_ai", "fireworks_ai", "friendliai",
    "galadriel", "github", "gradient_ai", "helicone", "heroku", "hosted_vllm", "hostinger_router", "hyperbolic",
    "inception", "inferenceapis", "kyma", "lambda_ai", "libertai", "llamafile", "lm_studio", "maritalk", "meta",
    "meta_llama", "minimax", "mistral", "modelscope", "moonshot", "morph", "nadir", "nano-gpt", "nebius",
    "neosantara", "novita", "nscale", "nvidia_nim", "openai", "openai_like", "openinfer", "opencode_go", "openrouter",
    "ovhcloud", "parasail", "perplexity", "pinstripes", "poe", "prism", "publicai", "qwen_ai_platform", "qwencloud",
    "refuseless", "reka", "sail", "sambanova", "scaleway", "scx-ai", "snowflake", "streamlake", "synthetic",
    "tencent", "tensormesh", "together_ai", "v0", "vercel_ai_gateway", "vllm", "volcengine", "wandb", "xai",
    "xiaomi_mimo", "zai", "zerogpu",
})
# fmt: on
"""The vendors whose litellm classes only rewrite, as `tests/providers/test_litellm.py` watches them do."""

_HANDLED = frozenset({"model", "messages", "stream", "stream_options", "metadata"})
_OF_OPENAI = PARAMETERS - _HANDLED
# What may be left out where a vendor does not know it, since nothing but a label is lost, or the default is meant.
_LABELS = {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "service_tier": ("auto", "default"),
    "store": (False,),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What litellm made of a call: whose it is, and what its classes want to see again with the answer."""

    speaks: Any
    model: str
    messages: list[dict[str, Any]]
    params: dict[str, Any]
    told: dict[str, Any]
    json_mode: bool
    url: str
    headers: dict[str, str]
    body: dict[str, Any]


class _Lines:
    """The lines that have come and were not read yet; unlike a generator it goes on after it was empty."""

    def __init__(self, waiting: deque[str]) -> None:
        self._waiting = waiting

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()


def package() -> Any:
    """Return litellm. Raises ConfigError where it is not installed."""
    # litellm fetches a list of prices from the network while it is imported, unless it is told to use its own.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
    try:
        found: Any = importlib.import_module("litellm")
    except ImportError:
        raise ConfigError("providers of kind litellm need litellm: pip install 'sluice[litellm]'") from None
    # It would print and log, sometimes what a message says.
    found.suppress_debug_info = True
    found.verbose_logger.disabled = True
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings to ourselves while litellm works: some of its models' quote what a message says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def target_of(name: Any) -> tuple[str, str] | None:
    """Return vendor and model of `vendor/model` or `provider/vendor/model`."""
    for tried in (text(name), text(name).partition("/")[2]):
        vendor, _, model = tried.partition("/")
        if vendor in VENDORS and model:
            return vendor, model
    return None


def class_of(vendor: str, model: str) -> Any:
    """Return litellm's object that rewrites requests and answers of a vendor's model."""
    package()
    known = importlib.import_module("litellm.types.utils").LlmProviders(vendor)
    return importlib.import_module("litellm.utils").ProviderConfigManager.get_provider_chat_config(model, known)


def iterator_of(speaks: Any, model: str, waiting: deque[str], *, json_mode: bool = False) -> Any:
    """Return what reads a vendor's stream from the lines `waiting`, None where litellm has no such thing."""
    if speaks.has_custom_stream_wrapper or speaks.should_fake_stream(model=model, stream=True):
        return None
    found = speaks.get_model_response_iterator(_Lines(waiting), sync_stream=True, json_mode=json_mode)
    return found if hasattr(found, "__next__") else None


def parameters(body: dict[str, Any], speaks: Any, model: str) -> tuple[dict[str, Any], list[str]]:
    """Return OpenAI's parameters as the vendor takes them, and the names of those it does not take."""
    takes = set(speaks.get_supported_openai_params(model=model) or ())
    given = {name: value for name, value in body.items() if name in _OF_OPENAI and value is not None}
    for name, other in (("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")):
        if name in given and name not in takes and other in takes:
            given.setdefault(other, given.pop(name))
    left_out = {
        name
        for name, value in given.items()
        if name not in takes and (name in _LABELS or any(value == one for one in _DEFAULTS.get(name, ())))
    }
    unknown = [name for name in given if name not in takes and name not in left_out]
    if body.get("stream"):
        given["stream"] = True
        if "stream_options" in takes:
            given["stream_options"] = mapping(body.get("stream_options")) | {"include_usage": True}
    return {name: copy.deepcopy(value) for name, value in given.items() if name not in left_out}, unknown


def fetched(body: dict[str, Any]) -> list[Fault]:
    """Find what litellm might fetch itself, from an address that the caller chose."""
    found = []
    for number, message in enumerate(sequence(body.get("messages"))):
        for place, part in enumerate(sequence(mapping(message).get("content"))):
            match part:
                case {"type": "text" | "refusal" | "input_audio"}:
                    continue
                case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:"):
                    continue
                case {"type": "file", "file": {"file_data": str(url), **more}} if url.startswith("data:"):
                    if "file_id" not in more:
                        continue
            said = "through litellm, content is text, or comes whole as a data: URL"
            found.append(unsupported(f"body.messages[{number}].content[{place}]", said))
    return found


def plan_of(call: Call, target: tuple[str, str], base_url: str | None, key: str | None) -> Plan:
    """Let litellm rewrite a call. Raises whatever litellm does where it cannot."""
    litellm, (vendor, model) = package(), target
    _, _, _, base = litellm.get_llm_provider(f"{vendor}/{model}", api_base=base_url, api_key=key)
    base = base_url or base
    speaks = class_of(vendor, model)
    messages = copy.deepcopy(sequence(call.body.get("messages")))
    given, _ = parameters(call.body, speaks, model)
    params = importlib.import_module("litellm.utils").get_optional_params(
        model=model, custom_llm_provider=vendor, messages=messages, drop_params=False, **given
    )
    json_mode = bool(params.pop("json_mode", False))
    more = mapping(params.pop("extra_body", None))
    told = {"api_base": base, "api_key": key, "custom_llm_provider": vendor}
    asked = {"model": model, "messages": messages, "optional_params": params, "litellm_params": told}
    headers = speaks.validate_environment(headers={}, api_key=key, api_base=base, **asked)
    url = speaks.get_complete_url(
        api_base=base, api_key=key, model=model, optional_params=params, litellm_params=told, stream=call.stream
    )
    body = speaks.transform_request(headers=headers, **asked)
    # Parameters that OpenAI does not know never pass litellm, for which some are addresses and credentials.
    own = {
        name: value
        for name, value in call.body.items()
        if value is not None and name not in _OF_OPENAI and name not in _HANDLED
    }
    body = {**body, **more, **own, **({"stream": True} if call.stream else {})}
    return Plan(speaks, model, messages, params, told, json_mode, url, headers, body)
