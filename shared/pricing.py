"""What a call costs, in nano-dollars (10⁻⁹ USD), as integers. An unknown price is None, never 0.

A price in the configuration wins; else genai-prices knows the vendors' list prices, for calls to the vendor itself.
Its data is the installed version's: prices are never fetched.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from importlib import metadata
from typing import Annotated, ClassVar

import genai_prices
from genai_prices.types import ModelPrice, PriceCalculation, TieredPrices
from pydantic import ConfigDict, Field

from shared.providers import Usage

NANOS = Decimal(10**9)
LIST_VERSION = f"genai-prices {metadata.version('genai-prices')}"
"""The release whose list prices are."""
_MILLION = Decimal(10**6)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens.

    Cached and cache-written tokens cost as much as other input where no price of their own is given, reasoning as
    much as other output.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]
    cached_input: Annotated[Decimal, Field(ge=0)] | None = None
    cache_write: Annotated[Decimal, Field(ge=0)] | None = None
    reasoning: Annotated[Decimal, Field(ge=0)] | None = None


SIMULATED = Price(input=Decimal("0.10"), cached_input=Decimal("0.05"), output=Decimal("0.40"))
"""What the simulated provider pretends to cost, for figures to show."""


# The list's names of vendors, where they are not our kinds.
_VENDORS = {
    "azure_openai": "azure",
    "bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}
_HALF = Decimal("0.5")
_LIST = Decimal(1)
# What is asked for at another pace costs so much of the list price. A tier that is not here has no known price.
_USUAL_TIERS = frozenset({"auto", "default", "standard", "on_demand"})
_TIERS = {
    "anthropic": {"batch": _HALF},
    "azure_openai": {"batch": _HALF},
    "bedrock": {"batch": _HALF, "flex": _HALF},
    "gemini": {"batch": _HALF, "flex": _HALF},
    "groq": {"batch": _HALF, "flex": _LIST},
    "mistral": {"batch": _HALF},
    "openai": {"batch": _HALF, "flex": _HALF},
}
_OPENAI_PRIORITY = {
    "gpt-4.1": Decimal("1.75"),
    "gpt-4.1-mini": Decimal("1.75"),
    "gpt-4.1-nano": Decimal(2),
    "gpt-4o": Decimal("1.7"),
    "gpt-4o-2024-05-13": Decimal("1.75"),
    "gpt-5": Decimal(2),
    "gpt-5-codex": Decimal(2),
    "gpt-5-mini": Decimal("1.8"),
    "gpt-5.1": Decimal(2),
    "gpt-5.1-codex": Decimal(2),
    "gpt-5.2": Decimal(2),
    "gpt-5.4": Decimal(2),
    "gpt-5.4-mini": Decimal(2),
    "gpt-5.5": Decimal("2.5"),
}
_SNAPSHOT = re.compile(r"-20\d\d-\d\d-\d\d$")


def cost_nanos(
    kind: str,
    model: str,
    usage: Usage,
    *,
    price: Price | None = None,
    service_tier: str | None = None,
    listed: bool = True,
) -> int | None:
    """Return what a call of `usage` costs at a provider of `kind`, None where the model's price is unknown.

    `price` is the configured one. Without it the vendor's list price counts, unless `listed` is False because the
    calls go to somebody else's server. `service_tier` is the pace the answer was served at (`batch`, `flex`): it
    scales both; one whose price is not known makes a list price unknown, and leaves a configured one as it is.
    """
    if kind == "simulated":
        price = price or SIMULATED
    if kind == "litellm":  # its names say their vendor first
        kind, _, model = model.partition("/")
    scale = _scale(kind, model, service_tier)
    if price is not None:
        return _nanos(_configured(price).dollars(usage) * (_LIST if scale is None else scale))
    dollars = _list_price(kind, model) if listed else None
    return None if dollars is None or scale is None else _nanos(dollars(usage) * scale)


def usd(nanos: int) -> str:
    """Return nano-dollars as a decimal string of dollars with at least two decimals, e.g. `0.00012345`."""
    sign, (whole, rest) = "-" if nanos < 0 else "", divmod(abs(nanos), 10**9)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


@dataclass(frozen=True, slots=True)
class _Rates:
    """USD per million tokens of each sort."""

    input: Decimal
    cached: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal

    def dollars(self, usage: Usage) -> Decimal:
        fresh = usage.input - usage.cached - usage.cache_write
        return (
            fresh * self.input
            + usage.cached * self.cached
            + usage.cache_write * self.cache_write
            + (usage.output - usage.reasoning) * self.output
            + usage.reasoning * self.reasoning
        ) / _MILLION


def _configured(price: Price) -> _Rates:
    return _Rates(
        input=price.input,
        cached=price.input if price.cached_input is None else price.cached_input,
        cache_write=price.input if price.cache_write is None else price.cache_write,
        output=price.output,
        reasoning=price.output if price.reasoning is None else price.reasoning,
    )


def _scale(kind: str, model: str, service_tier: str | None) -> Decimal | None:
    tier = (service_tier or "default").lower()
    if tier in _USUAL_TIERS:
        return _LIST
    if kind == "openai" and tier == "priority":
        return _OPENAI_PRIORITY.get(model) or _OPENAI_PRIORITY.get(_SNAPSHOT.sub("", model))
    return _TIERS.get(kind, {}).get(tier)


@lru_cache(maxsize=1024)
def _list_price(kind: str, model: str) -> Callable[[Usage], Decimal] | None:
    """Return what gives a model's list price of a usage in USD, None for a model that is not listed.

    Asking the list anew for each call would take longer than everything else that is computed for a job, so its rates
    are taken once, except where they change with the number of tokens or with time, or a call itself has a price.
    """

    def ask(usage: Usage) -> Decimal:
        return _calculation(kind, model, usage).total_price

    million = int(_MILLION)
    try:
        found = _calculation(kind, model, Usage(input=million))
    except LookupError:
        return None
    tiered = any(isinstance(one, TieredPrices) for one in vars(found.model_price).values())
    if tiered or not isinstance(found.model.prices, ModelPrice) or ask(Usage()):
        return ask
    return _Rates(
        input=found.total_price,
        cached=ask(Usage(input=million, cached=million)),
        cache_write=ask(Usage(input=million, cache_write=million)),
        output=ask(Usage(output=million)),
        reasoning=ask(Usage(output=million, reasoning=million)),
    ).dollars


def _calculation(kind: str, model: str, usage: Usage) -> PriceCalculation:
    vendor = _VENDORS.get(kind, kind)
    counts = genai_prices.Usage(
        input_tokens=usage.input,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
        output_reasoning_tokens=usage.reasoning,
    )
    found = genai_prices.calc_price(counts, model_ref=model.removeprefix("models/"), provider_id=vendor)
    if found.provider.id != vendor:  # it takes any name with `openai` in it for OpenAI's
        raise LookupError(vendor)
    return found


def _nanos(dollars: Decimal) -> int:
    return int((dollars * NANOS).to_integral_value(ROUND_HALF_UP))
