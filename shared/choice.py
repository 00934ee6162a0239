"""Which of several targets runs a job: who can, who is wanted, and in which order. Pure.

What is known of each stands in its `Candidate`. `docs/routing.md` tells it in full.
"""

import math
import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from shared.candidates import Candidate, LeftOut, Wanted, exclusion, is_too_long, left_out_for_length
from shared.errors import Fault
from shared.routing import Route, Target

Strategy = Literal["cost", "latency", "capability", "round_robin", "weighted", "least_busy", "order"]


@dataclass(frozen=True, slots=True)
class Group:
    """A model's targets, as listed, and how to choose among them."""

    strategy: Strategy
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Groups:
    """The targets of the model that was asked for, and those of the models of each of its chains."""

    own: Group
    general: Sequence[Group] = ()
    context: Sequence[Group] = ()
    content: Sequence[Group] = ()


class Rank(NamedTuple):
    """Why a candidate comes before another: the first that differs decides, the lesser first."""

    unwell: bool
    tier: int
    preferred: int
    canary: int
    unmatched: bool
    by_strategy: tuple[float, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate that can run the job, and why it stands where it does; `by` is the strategy that placed it."""

    candidate: Candidate
    rank: Rank
    by: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a job goes, and from there; `ranked` begins with its target, and is empty where nothing was to choose."""

    target: Target
    route: Route | None = None
    ranked: Sequence[Ranked] = ()
    left_out: Sequence[LeftOut] = ()


def choose(groups: Groups, wanted: Wanted, rng: random.Random) -> Choice | list[Fault]:
    """Return the best target for a job and where it may go from there, or why there is none.

    Pure but for `rng`, which the strategy `weighted` draws from.
    """
    out: list[LeftOut] = []
    allowed = wanted.preferences.allow_fallbacks is not False
    own, too_long = _sifted(groups.own, wanted, out)
    chains = (groups.general, groups.context, groups.content) if allowed else ((), (), ())
    general, context, content = ([_sifted(group, wanted, out)[0] for group in chain] for chain in chains)
    tiers = [own, *general] if own.kept else [*(context if too_long.kept else ()), *general]
    if too_long.kept and not any(tier.kept for tier in tiers):
        tiers = [too_long]  # it is an estimate after all
    else:
        out += [left_out_for_length(one, wanted) for one in too_long.kept]
    ranked = _ranked(tiers, wanted, rng)
    if not ranked:
        return list(max((one for one in out if not one.candidate.fallback), key=lambda one: one.stage).faults)
    target, *rest = (one.candidate for one in ranked)
    if not allowed:
        return Choice(target.target, None, ranked, out)
    longer = [one.candidate for one in _ranked(context, wanted, rng)]
    if not groups.context:
        longer = [one for one in rest if one.window and target.window and one.window > target.window]
    others = [one.candidate for one in _ranked(content, wanted, rng)]
    route = Route(_chain(rest, target), _chain(longer, target), _chain(others, target))
    return Choice(target.target, route, ranked, out)


def reason(ranked: Sequence[Ranked], index: int) -> str:
    """Return in words why a candidate stands where it does: the first beside the second, any other beside the first."""
    one = ranked[index]
    if len(ranked) == 1:
        return (
            f"a fallback, by `{one.candidate.model}`" if one.candidate.fallback else "the only target that can run it"
        )
    other = ranked[0 if index else 1]
    decisive = next(name for name in Rank._fields if getattr(one.rank, name) != getattr(other.rank, name))
    if decisive == "tier" and one.candidate.fallback:
        return f"a fallback, by `{one.candidate.model}`"
    first, behind = _REASONS[decisive]
    return (behind if index else first).format(by=one.by)


_REASONS = {
    "unwell": ("the first that is healthy", "its circuit is open, or its keys are refused"),
    "tier": ("the only target of its own that can run it", "the model's own target"),
    "preferred": ("first in the caller's order", "later in the caller's order"),
    "canary": ("first by its canary, or before one", "behind a canary, or one that this job was not drawn for"),
    "unmatched": ("the job's metadata match its `when`", "the job's metadata match another's `when`"),
    "by_strategy": ("first by {by}", "behind by {by}"),
    "place": ("listed first", "listed later"),
}


@dataclass(frozen=True, slots=True)
class _Tier:
    """Those of a model's targets that can run a job, and the canary it was drawn for."""

    strategy: Strategy
    kept: Sequence[Candidate]
    drawn: Candidate | None


def _sifted(group: Group, wanted: Wanted, out: list[LeftOut]) -> tuple[_Tier, _Tier]:
    """Return who can and may run a job, and of the model that was asked for who could, were the prompt not so long.

    Those who are left are added to `out`.
    """
    able = []
    for one in group.candidates:
        if found := exclusion(one, wanted):
            out.append(found)
        else:
            able.append(one)
    roomy = [one for one in able if not is_too_long(one, wanted)]
    ample = [one for one in roomy if one.most_output is None or one.most_output >= wanted.output] or roomy
    out += [
        LeftOut(one, f"it answers with {one.most_output} tokens at most, and {wanted.output} are allowed", 3, ())
        for one in roomy
        if one not in ample
    ]
    small = [one for one in able if one not in roomy]
    if ample or any(one.fallback for one in small):
        out += [left_out_for_length(one, wanted) for one in small]
        small = []
    drawn = _drawn(group.candidates, wanted.id)
    return _Tier(group.strategy, ample, drawn), _Tier(group.strategy, small, drawn)


def _drawn(candidates: Iterable[Candidate], id_: UUID) -> Candidate | None:
    """Return the canary that a job is one of the share of, the same for the same job."""
    share = zlib.crc32(id_.bytes) / 2**32 * 100
    for one in candidates:
        if one.canary is not None:
            share -= one.canary
            if share < 0:
                return one
    return None


def _ranked(tiers: Sequence[_Tier], wanted: Wanted, rng: random.Random) -> list[Ranked]:
    """Return the candidates of all tiers, best first, each target once."""
    asked = wanted.preferences
    found: list[Ranked] = []
    for tier_number, tier in enumerate(tiers):
        by = f"the caller's sort, {asked.sort}" if asked.sort else tier.strategy
        for place, one in enumerate(tier.kept):
            preferred = [index for index, name in enumerate(asked.order or ()) if name in one.names]
            rank = Rank(
                unwell=one.lane is not None and not one.lane.healthy,
                tier=tier_number,
                preferred=min(preferred, default=len(asked.order or ())),
                canary=1 if one.canary is None else 0 if one is tier.drawn else 2,
                unmatched=not one.when,
                by_strategy=_by(asked.sort or tier.strategy, one, (wanted.turn, place, len(tier.kept)), rng),
                place=place,
            )
            found.append(Ranked(one, rank, by))
    best: dict[Target, Ranked] = {}
    for found_ in sorted(found, key=lambda one: one.rank):
        best.setdefault(found_.candidate.target, found_)
    return list(best.values())


def _by(strategy: str, one: Candidate, turns: tuple[int, int, int], rng: random.Random) -> tuple[float, ...]:
    """Return where a strategy, or the caller's `sort`, puts a candidate: the lesser, the better."""
    lane = one.lane
    match strategy:
        case "cost" | "price":
            return (math.inf if one.cost is None else one.cost,)
        case "latency" if lane is not None:
            # Nobody knows yet how long one takes that was never tried: it is tried.
            return (math.inf if lane.eta is None else lane.eta + (lane.latency or 0.0),)
        case "throughput" if lane is not None:
            return (-lane.pace,)
        case "least_busy" if lane is not None:
            return (lane.waiting + lane.in_motion,)
        case "capability":
            return (-(one.window or 0), -one.abilities, -(one.most_output or 0))
        case "round_robin":
            turn, place, of = turns
            return ((place - turn) % of,)
        case "weighted":  # as if drawn one after the other without putting back
            return (-math.log(1.0 - rng.random()) / one.weight,)
        case _:
            return (0.0,)


def _chain(candidates: Iterable[Candidate], target: Candidate) -> tuple[Target, ...]:
    return tuple(one.target for one in candidates if one.target != target.target)
