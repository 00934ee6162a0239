"""What a call costs, in nano-dollars (10⁻⁹ USD), as integers. An unknown price is None, never 0.

A price in the configuration wins; else genai-prices knows the vendors' list prices. Its data is the installed
version's: prices are never fetched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Annotated, ClassVar

import genai_prices
from genai_prices.types import ModelPrice, PriceCalculation, TieredPrices
from pydantic import ConfigDict, Field

from shared.providers import Usage

NANOS = Decimal(10**9)
_MILLION = Decimal(10**6)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; without `cached_input`, cached tokens cost as much as others."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]
    cached_input: Annotated[Decimal, Field(ge=0)] | None = None


SIMULATED = Price(input=Decimal("0.10"), cached_input=Decimal("0.05"), output=Decimal("0.40"))
"""What the simulated provider pretends to cost, for figures to show."""


def cost_nanos(kind: str, model: str, usage: Usage, *, price: Price | None = None) -> int | None:
    """Return what a call of `usage` costs at a provider of `kind`, None where the model's price is unknown."""
    if price is None and kind == "simulated":
        price = SIMULATED
    if price is not None:
        cached = price.input if price.cached_input is None else price.cached_input
        return _nanos(_Rates(price.input, cached, price.input, price.output).dollars(usage))
    listed = _listed(kind, model)
    return None if listed is None else _nanos(listed(usage))


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

    def dollars(self, usage: Usage) -> Decimal:
        fresh = usage.input - usage.cached - usage.cache_write
        return (
            fresh * self.input
            + usage.cached * self.cached
            + usage.cache_write * self.cache_write
            + usage.output * self.output
        ) / _MILLION


@lru_cache(maxsize=1024)
def _listed(kind: str, model: str) -> Callable[[Usage], Decimal] | None:
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
    ).dollars


def _calculation(kind: str, model: str, usage: Usage) -> PriceCalculation:
    counts = genai_prices.Usage(
        input_tokens=usage.input,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
    )
    return genai_prices.calc_price(counts, model_ref=model, provider_id=kind)


def _nanos(dollars: Decimal) -> int:
    return int((dollars * NANOS).to_integral_value(ROUND_HALF_UP))
