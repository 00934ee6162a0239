"""The configuration file: providers, the models callers name, webhooks.

What is wrong is said all at once, with file, line and fix. What comes from the environment alone is in `settings`.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
)

from shared import catalog, pricing, providers
from shared.config_alerts import Alerts, Channel, Smtp
from shared.config_faults import in_words, spread_faults, suggestion
from shared.config_files import Files
from shared.config_models import Hedge, ListedTarget, Model
from shared.config_output import StructuredOutput
from shared.config_upstream import Count, PriceChange, UpstreamModel
from shared.config_usage import Usage
from shared.config_values import http_url, seconds
from shared.document import LARGEST, At, Document
from shared.errors import ConfigError
from shared.limits import Limits, number
from shared.webhook_url import Network


def _known_kind(value: str) -> str:
    if value not in providers.kinds():
        raise ValueError("is not a kind of provider" + suggestion(value, providers.kinds()))
    try:
        providers.adapter(value)
    except ImportError:
        raise ValueError(f"needs packages that are not installed; install sluice[{value}]") from None
    return value


def _where_it_is_needed(value: str | None, info: ValidationInfo) -> str | None:
    kind = info.data.get("kind")
    if value is None and kind and not providers.adapter(kind).DEFAULT_BASE_URL:
        raise ValueError(f"is required: the kind `{kind}` has no address of its own")
    return value


def _network(value: object) -> Network:
    try:
        if not isinstance(value, str):
            raise ValueError
        wide = ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8") from None
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(f"has bits set behind its prefix; did you mean {wide}?") from None


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Closed):
    """A provider's credential; calls are spread over a provider's keys by weight."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    value: SecretStr
    weight: Annotated[float, BeforeValidator(number), Field(gt=0, le=1_000_000)] = 1.0


def _with_values(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    return tuple(key for key in keys if key.value.get_secret_value())


class Provider(_Closed):
    """A vendor: one worker pool. Without `models`, it takes any model's name.

    `timeout` is how long a call may take, `stall` how long a streamed answer may say nothing, in seconds; one that took
    longer than `slow` speaks against its deployment, however well it ended.

    A key whose value is empty is left out.
    """

    kind: Annotated[str, AfterValidator(_known_kind)]
    base_url: Annotated[
        Annotated[str, AfterValidator(http_url)] | None,
        AfterValidator(_where_it_is_needed),
        Field(validate_default=True),
    ] = None
    keys: Annotated[tuple[Key, ...], AfterValidator(_with_values)] = ()
    timeout: Annotated[float, BeforeValidator(seconds), Field(gt=0, le=86_400)] = 120.0
    stall: Annotated[float, BeforeValidator(seconds), Field(gt=0, le=86_400)] = 60.0
    slow: Annotated[Annotated[float, Field(gt=0, le=86_400)] | None, BeforeValidator(seconds)] = None
    limits: Limits = Limits()
    models: dict[str, UpstreamModel] = {}

    @property
    def at_vendor(self) -> bool:
        """Whether calls go to the vendor itself and not to another server that speaks its dialect.

        Only of the vendor it is known what its models can do and what they cost.
        """
        own = providers.adapter(self.kind).DEFAULT_BASE_URL
        return not (self.base_url and own) or _site(self.base_url) == _site(own)

    def serves(self, model: str) -> bool:
        """Whether the vendor is known to have a model; the simulated provider answers to any name, so to none."""
        return self.kind != "simulated" and self.at_vendor and catalog.capabilities(self.kind, model) is not None


def capabilities_of(provider: Provider, model: str) -> catalog.Capabilities | None:
    """Return what a provider's model can do: what the configuration says, else the catalogue; None for not known."""
    found = catalog.capabilities(provider.kind, model) if provider.at_vendor else None
    if model not in provider.models:
        return found
    stated = provider.models[model].model_dump(exclude={"price", "price_changes", "limits"}, exclude_none=True)
    return catalog.corrected(found, **stated) if stated else found


def cost_of(provider: Provider, model: str, usage: providers.Usage, tier: str | None = None) -> int | None:
    """Return what a usage of a provider's model costs now, in nano-dollars; None where its price is unknown."""
    price = _price(provider, model)
    return pricing.cost_nanos(provider.kind, model, usage, price=price, listed=provider.at_vendor, service_tier=tier)


def price_version(provider: Provider, model: str) -> str:
    """Return which prices a provider's model is charged by: the configuration's, or a release of the list."""
    return pricing.LIST_VERSION if _price(provider, model) is None else "configuration"


def _price(provider: Provider, model: str) -> pricing.Price | None:
    return provider.models[model].price_at(datetime.now(UTC)) if model in provider.models else None


def _site(url: str) -> list[str]:
    """Return the end of a host's name: a vendor's regions differ in what stands before it."""
    return (urlsplit(url).hostname or "").split(".")[-2:]


class Webhooks(_Closed):
    """Where webhooks may go besides https on the public internet."""

    allow_http: bool = False
    allow_private_networks: tuple[Annotated[Network, PlainValidator(_network)], ...] = ()


class TenantLimits(_Closed):
    """What one tenant may have at a time: jobs that wait, calls that are under way with all providers together."""

    queued: Count | None = None
    in_flight: Count | None = None


class Tenants(_Closed):
    """What holds for every tenant that nothing else is said of."""

    defaults: TenantLimits = TenantLimits()


class _File(_Closed):
    """What the file may hold."""

    providers: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Provider], Field(min_length=1)
    ]
    models: dict[Annotated[str, Field(min_length=1, max_length=256)], Model] = {}
    webhooks: Webhooks = Webhooks()
    tenants: Tenants = Tenants()
    usage: Usage = Usage()
    alerts: Alerts = Alerts()
    structured_output: StructuredOutput = StructuredOutput()
    files: Files = Files()


class Config(_File):
    """A whole configuration. `source` says in words where it came from."""

    source: str


def load(path: Path, env: Mapping[str, str]) -> Config:
    """Read the configuration at `path`, or find one from `env` where there is no such file.

    `${VAR}` and `${VAR:-default}` expand from `env`; `$${` is a literal `${`. Raises ConfigError with every fault,
    a line each: `sluice.yaml:12: providers.openai.timeout: must be greater than 0`. No value is ever in its message.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError:
        return _with_simulator(_found(env), env)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    document = Document(env)
    value = document.read(raw)
    if value is not None:
        sections = {name: value.get(name) for name in ("providers", "models")}
        for at, text in spread_faults(sections["models"]):
            document.fault(at, text)
        try:
            known = {name: section if isinstance(section, dict) else None for name, section in sections.items()}
            read = _File.model_validate(value, context=known)
            if not document.faults:
                config = Config(**{name: getattr(read, name) for name in _File.model_fields}, source=str(path))
                return _with_simulator(config, env)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                at = tuple(part for part in found["loc"] if part != "[key]")
                document.fault(at, in_words(found, str(at[-1]), _keys_at(at[:-1])), of_value=True)
    # None: a message from pydantic may hold a value, and a chained exception is printed with its cause.
    raise ConfigError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(set(document.faults)))) from None


_KEYS_IN_ENVIRONMENT = {"OPENAI_API_KEY": "openai", "ANTHROPIC_API_KEY": "anthropic", "GEMINI_API_KEY": "gemini"}


def _found(env: Mapping[str, str]) -> Config:
    found = {
        kind: Provider(kind=kind, keys=(Key(name=variable, value=SecretStr(env[variable])),))
        for variable, kind in _KEYS_IN_ENVIRONMENT.items()
        if env.get(variable)
    }
    if found:
        source = ", ".join(key.name for provider in found.values() for key in provider.keys)
        return Config(providers=found, source=f"environment: {source}")
    return Config(
        providers={"simulated": Provider(kind="simulated")},
        source="simulated: no configuration file and no provider key in the environment",
    )


def _with_simulator(config: Config, env: Mapping[str, str]) -> Config:
    """Return the configuration with the address of the simulated provider that `sluice up` runs."""
    url = env.get("SLUICE_SIMULATED_URL")
    known = {
        name: one.model_copy(update={"base_url": url}) if url and one.kind == "simulated" and not one.base_url else one
        for name, one in config.providers.items()
    }
    return config.model_copy(update={"providers": known})


_SHAPES: dict[At, type[Any]] = {
    (): _File,
    ("providers", "*"): Provider,
    ("providers", "*", "keys", "*"): Key,
    ("providers", "*", "models", "*"): UpstreamModel,
    ("providers", "*", "models", "*", "price"): pricing.Price,
    ("providers", "*", "models", "*", "price_changes", "*"): PriceChange,
    ("providers", "*", "models", "*", "price_changes", "*", "price"): pricing.Price,
    ("providers", "*", "limits"): Limits,
    ("providers", "*", "models", "*", "limits"): Limits,
    ("models", "*"): Model,
    ("models", "*", "targets", "*"): ListedTarget,
    ("models", "*", "hedge"): Hedge,
    ("webhooks",): Webhooks,
    ("tenants",): Tenants,
    ("tenants", "defaults"): TenantLimits,
    ("usage",): Usage,
    ("alerts",): Alerts,
    ("structured_output",): StructuredOutput,
    ("files",): Files,
    ("alerts", "channels", "*"): Channel,
    ("alerts", "channels", "*", "smtp"): Smtp,
}


def _keys_at(at: At) -> list[str]:
    for pattern, shape in _SHAPES.items():
        if len(pattern) == len(at) and all(part in ("*", found) for part, found in zip(pattern, at, strict=True)):
            if is_dataclass(shape):
                return [field.name for field in fields(shape)]
            return [field.alias or name for name, field in shape.model_fields.items()]
    return []
