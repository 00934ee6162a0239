"""What a claimed job's call can cost at most and usually costs, by its size, and how long its answer may be for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import orjson

from shared.budgets import UNKNOWN_OUTPUT, Need, longest_output
from shared.config import Config, Provider, capabilities_of, cost_of
from shared.db.claims import Claim
from shared.db.reservations import Standing
from shared.providers import Usage
from shared.queue.entries import Taken

_LEAST_OUTPUT = 16
"""What a vendor may ask for at least where an answer is limited."""

_MOST_KEPT = 10_000
# What may make a vendor write its cache, at a price of its own.
_WRITES = (b"cache_control", b"cachePoint")


class _Size(NamedTuple):
    """A call in tokens: of its input and of its answer at most, and of each of its choices; and how it is priced."""

    input: int
    output: int
    choices: int
    written: bool
    tiers: frozenset[str | None]

    def cost(self, provider: Provider, model: str, output: int) -> int | None:
        """Return what it costs at most with an answer of so many tokens, in nano-dollars; None for not known."""
        usage = Usage(input=self.input, cache_write=self.input if self.written else 0, output=output)
        thought = replace(usage, reasoning=output)
        costs = [cost_of(provider, model, one, tier) for one in (usage, thought) for tier in self.tiers]
        known = [one for one in costs if one is not None]
        return max(known) if len(known) == len(costs) else None


class Quoter:
    """Quotes for one pool: calls of about the same size cost about the same, and are reckoned once a minute."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._minute = 0
        self._costs: dict[tuple[str, str, _Size, int], int | None] = {}

    def cost(self, claim: Claim, size: _Size, output: int) -> int | None:
        """Return what a call costs at most with an answer of so many tokens: both sizes rounded up a little."""
        minute = int(time.monotonic() // 60)  # prices may change
        if minute != self._minute or len(self._costs) > _MOST_KEPT:
            self._minute, self._costs = minute, {}
        output = _rounded(output)
        key = (claim.provider, claim.upstream_model, size._replace(input=_rounded(size.input), output=0), output)
        if key not in self._costs:
            self._costs[key] = key[2].cost(self.config.providers[claim.provider], claim.upstream_model, output)
        return self._costs[key]


def _rounded(tokens: int) -> int:
    """Return a number of tokens rounded up to its first five binary digits: by six per cent at most."""
    step = 1 << max(0, tokens.bit_length() - 5)
    return -(-tokens // step) * step


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job's call needs of its windows, and what its answer is limited by."""

    need: Need
    size: _Size
    assumed: bool

    def held(self, config: Config, claim: Claim, nanos: int) -> Claim:
        """Return the job with so much held for it, its answer limited to that where it might be longer."""
        cap = None
        if not self.need.limited and (nanos < self.need.most or self.assumed):
            longest = self.size.output
            if nanos < self.need.most:
                cost = partial(self.size.cost, config.providers[claim.provider], claim.upstream_model)
                longest = longest_output(cost, nanos, self.size.output)
            cap = max(1, longest // self.size.choices)
        return replace(claim, held_nanos=nanos, usual_nanos=min(self.need.usual, nanos), output_cap=cap)


def quote(quoter: Quoter, claim: Claim, drawn: Taken, standing: list[Standing]) -> Quote | None:
    """Return what a job's call needs; None where nobody knows what it costs, or what the job has spent."""
    provider = quoter.config.providers[claim.provider]
    body = orjson.loads(claim.body)
    known = claim.output_estimate or ((able := capabilities_of(provider, claim.upstream_model)) and able.max_output)
    choices, tier = _choices(body), body.get("service_tier")
    size = _Size(
        input=len(claim.body) if claim.input_bound is None else claim.input_bound,  # a token is a byte at least
        output=0 if claim.url.endswith("/embeddings") else (known or UNKNOWN_OUTPUT) * choices,
        choices=choices,
        written=any(mark in claim.body for mark in _WRITES),
        tiers=frozenset({None, tier if isinstance(tier, str) else None}),  # it may be served at the usual pace
    )
    likely = max(drawn.output_tokens, _LEAST_OUTPUT * choices)
    most, usual = quoter.cost(claim, size, size.output), quoter.cost(claim, size, min(likely, size.output))
    if most is None or usual is None:
        return None
    left = None
    if claim.max_cost_nanos is not None:
        if claim.cost_nanos is None and claim.input_tokens is not None:
            return None
        left = claim.max_cost_nanos - (claim.cost_nanos or 0)
    limited = claim.output_estimate > 0 or size.output == 0
    windows = tuple(one.window.id for one in standing)
    return Quote(Need(claim.id, usual, most, limited, windows, left), size, assumed=not known)


def _choices(body: Mapping[str, Any]) -> int:
    """Return how many answers a request asks for, under whatever name its vendor has for it."""
    config = body.get("generationConfig")
    named = [body.get("n"), body.get("best_of"), config.get("candidateCount") if isinstance(config, dict) else None]
    return max([1, *(one for one in named if isinstance(one, int) and not isinstance(one, bool))])
