"""The models a caller can name."""

from typing import Any

from aiohttp import web

from gateway_api.answers import as_json
from gateway_api.state import CALLER, STATE
from shared import catalog
from shared.catalog import Capabilities
from shared.config import Config, Provider, capabilities_of
from shared.errors import ApiError
from shared.routing import parse


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/models`: the configured models, then the upstream models that providers list; what the key may use."""
    return as_json(
        {
            "object": "list",
            "data": [
                shown for name, shown in _models(request.app[STATE].config).items() if request[CALLER].may_use(name)
            ],
        }
    )


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/models/{model}`; a model's name may hold slashes."""
    name = request.match_info["model"]
    found = _models(request.app[STATE].config).get(name) if request[CALLER].may_use(name) else None
    if found is None:
        raise ApiError(404, f"The model {name[:256]!r} is not served here.", code="model_not_found", param="model")
    return as_json(found)


def _models(config: Config) -> dict[str, dict[str, Any]]:
    shown = {name: _shown(name, "sluice", *_behind(config, model.targets[0])) for name, model in config.models.items()}
    for provider, options in config.providers.items():
        for model in list(options.models) or (catalog.names(options.kind) if options.at_vendor else []):
            for name in (f"{provider}/{model}", model):
                shown.setdefault(name, _shown(name, provider, options, model))
    return shown


def _behind(config: Config, target: str) -> tuple[Provider, str]:
    found = parse(target)
    return config.providers[found.provider], found.model


def _shown(name: str, owner: str, provider: Provider, model: str) -> dict[str, Any]:
    """Return a model in OpenAI's shape, with what is known of it; null is unknown."""
    known = capabilities_of(provider, model) or Capabilities()
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "context_window": known.context_window,
        "max_output_tokens": known.max_output,
        "input_modalities": known.input and sorted(known.input),
        "output_modalities": known.output and sorted(known.output),
        "tools": known.tools,
        "json_schema": known.json_schema,
        "reasoning": known.reasoning,
    }
