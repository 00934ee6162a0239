"""What the queue promises, written down as plainly as possible: what its scripts are held against, step by step.

It says where each job is, what each key of a lane may take, what a job draws and whose turn it was. It does not choose:
it is told what a claim took and raises AssertionError where that was not allowed. Times are in ms.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from shared.queue.entries import Taken, flow

INF = math.inf
HEAD_START = {"interactive": 600_000, "standard": 0, "bulk": -600_000}
WEIGHT = {"interactive": 4, "standard": 2, "bulk": 1}
LEAD = 20_000  # tokens that interactive work goes ahead of others' at most
NEAR = 30_000  # a deadline that is as near as this goes first
CATCH_UP = 200  # what a bucket without a known burst holds
PROBE = 10_000
PATIENCE = 5_000  # what holds its place for longer goes first
LONG_REST = 10_000
SLACK = 1_000  # a job that comes so little later does not go round the timer


@dataclass(slots=True)
class Job:
    """A job and where it is; `due` is when it is to run again or when its lease ends."""

    id: UUID
    tenant: str
    priority: str
    input: int
    output: int
    arrived: float
    deadline: float = INF
    key_id: UUID | None = None
    where: Literal["waiting", "deferred", "called", "late", "gone"] = "waiting"
    due: float = 0.0
    taken: Taken | None = None
    ripe: bool = False  # its time has come, or its lease ran out: it may be taken, and no longer counts as a call

    @property
    def flow(self) -> str:
        return flow(self.tenant, self.key_id)

    @property
    def place(self) -> tuple[float, str]:
        return self.arrived - HEAD_START[self.priority], self.id.hex

    def ready(self, now: float) -> bool:
        """Whether a claim may take it."""
        return self.where == "waiting" or (self.where in ("deferred", "called") and (self.ripe or self.due <= now))


@dataclass(slots=True)
class Learned:
    """What a tenant's jobs use: output tokens, how far they are from that, and input tokens by their estimate."""

    mean: float
    deviation: float
    ratio: float

    def after(self, output: float, ratio: float) -> "Learned":
        output = min(output, 1_000 + 4 * (self.mean + 4 * self.deviation))  # one odd answer must not weigh for long
        deviation = self.deviation + (abs(output - self.mean) - self.deviation) / 8
        return Learned(self.mean + (output - self.mean) / 16, deviation, self.ratio + (ratio - self.ratio) / 16)


@dataclass(slots=True)
class Circuit:
    """Whether a key is called at all: `until` is None while it is, `why` the mark of a key that was refused itself.

    `trying` is when the one call was drawn for that may show how the provider does.
    """

    until: float | None = None
    since: float = 0.0
    why: str = ""
    times: int = 0
    trying: float = INF
    in_a_row: int = 0
    failures: int = 0

    def concerns(self, mark: str) -> bool:
        return self.until is not None and self.why in ("", mark)

    def close(self) -> None:
        self.until, self.why, self.times, self.trying = None, "", 0, INF

    def failed(self, why: str, at: float, *, now: float, mark: str, opened: bool) -> None:
        """Note that a call drawn for at a time failed, and hold what the queue said of it against what may be said."""
        if not self.concerns(mark):
            self.close()  # it was another value of the key that was refused
        self.in_a_row += 1
        self.failures += 1
        known = self.until is not None and why in ("", self.why)
        if known:
            assert not opened, "it was open before"
            if at < self.trying:
                return  # it was sent before
        elif why or self.in_a_row >= 5:
            assert opened, "it must open"
        elif not opened:
            return
        else:
            assert self.failures >= 5, "fewer than five failures say nothing"
        self.times = self.times + 1 if known else 1
        seconds = min(60, 5 * 2 ** (self.times - 1)) if why else min(4, self.times)
        self.until, self.since, self.why, self.trying = now + 1000 * seconds, now, why, INF

    def answered(self, at: float, *, now: float, well: bool) -> None:
        if well:
            self.in_a_row = 0
        if self.until is not None and well and at >= self.since:
            self.close()
        elif at >= self.trying:  # it says nothing: the next one tries
            self.until, self.trying = now, INF


@dataclass(slots=True)
class Key:
    """What one key may take, what it took, and how it does."""

    limits: Mapping[str, float]
    mark: str
    rests_until: float = 0.0
    circuit: Circuit = field(default_factory=Circuit)
    drawn: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # when, how much
    back: dict[str, float] = field(default_factory=dict)
    owed: dict[str, float] = field(default_factory=dict)

    def take(self, amounts: Mapping[str, float], *, now: float, passed: float, others: int) -> None:
        """Note a call, beside so many others; `passed` is `now` on a clock that never goes back."""
        assert now >= self.rests_until, "it rests"
        if self.circuit.concerns(self.mark):
            assert self.circuit.until is not None
            assert now >= self.circuit.until, "its circuit is open, or one job tries already"
            self.circuit.until, self.circuit.trying = now + PROBE, math.floor(now)
        assert others < self.limits.get("flight", INF), "too many calls at once"
        for dimension, amount in amounts.items():
            self.drawn.setdefault(dimension, []).append((passed, amount))
            self._in_bounds(dimension)

    def _in_bounds(self, dimension: str) -> None:
        """No window that ends now took more than the bucket held and what came in since, and one job more."""
        history = self.drawn[dimension]
        rate = self.limits[dimension] / 60_000
        most = max(1.0, rate * CATCH_UP)
        if dimension == "r":
            most = self.limits.get("burst", most)
        most += self.back.get(dimension, 0.0) + 1e-6
        end, total, largest = history[-1][0], 0.0, 0.0
        for at, amount in reversed(history):
            total, largest = total + amount, max(largest, amount)
            # A request is no larger than any bucket; tokens of a job that is go when the bucket is full.
            one = 0.0 if dimension == "r" else largest
            assert total <= most + one + rate * (end - at), f"{dimension}: {total} in {end - at} ms"
        assert largest <= max(1.0, self.limits[dimension]), "more than a minute's worth"

    def returned(self, amounts: Mapping[str, float]) -> None:
        for dimension, amount in amounts.items():
            book = self.back if amount > 0 else self.owed
            book[dimension] = book.get(dimension, 0.0) + abs(amount)

    def shut(self, now: float) -> bool:
        """Whether nobody may call with it for a while."""
        return self.health(now) in ("open", "out") or self.rests_until > now + LONG_REST

    def health(self, now: float) -> str:
        if not self.circuit.concerns(self.mark):
            return "closed"
        if (self.circuit.until or 0.0) <= now:
            return "half_open"
        return "out" if self.circuit.why else "open"


@dataclass(slots=True)
class Shares:
    """What tenants, or flows of one, got of each other's time, pair by pair, for as long as both of them wait."""

    lead: float = 0.0
    held: bool = False  # one that had waited for long went first, in its turn or not
    largest: dict[str, float] = field(default_factory=dict)
    pairs: dict[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)  # difference, least, most

    def took(self, one: str, weight: float, waiting: set[str]) -> None:
        """Note what one got; `waiting` are those of whom jobs still wait."""
        self.largest[one] = max(weight, self.largest.get(one, 0.0))
        for other in waiting - {one}:
            first, second = sorted((one, other))
            difference, least, most = self.pairs.get((first, second), (0.0, 0.0, 0.0))
            difference += weight if one == first else -weight
            least, most = min(least, difference), max(most, difference)
            self.pairs[first, second] = difference, least, most
            both = self.largest[one], self.largest.get(other, 0.0)
            bound = sum(both) + (max(both) if self.held else 0.0) + self.lead + 1
            assert most - least <= bound, f"{first} and {second}: {most - least:.0f} apart, allowed {bound:.0f}"
        self.only(waiting)

    def only(self, waiting: set[str]) -> None:
        """Forget those who do not wait any more."""
        self.pairs = {pair: value for pair, value in self.pairs.items() if waiting.issuperset(pair)}


@dataclass(slots=True)
class Reference:
    """A lane with its keys. `in_turn` says that its limits look at no job's size, so that none goes round another."""

    keys: dict[str, Key]
    now: float
    reserve: bool = False
    in_turn: bool = True
    at_once: int = 0
    caps: Mapping[tuple[str, UUID | None], int] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    inside: dict[str, Shares] = field(default_factory=dict)  # of the flows of a tenant
    held: dict[str, float] = field(default_factory=dict)  # the flows on hold, until when
    paused: bool = False  # a flow was on hold: what it missed meanwhile it may get afterwards, in part
    passed: float = 0.0
    known: dict[str, list[float]] = field(default_factory=dict)  # the ms of a tenant's calls
    jobs: dict[UUID, Job] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)

    def where(self, *names: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.where in names]

    def under_way(self) -> list[Job]:
        """Return the jobs that are called and whose leases did not run out."""
        return [job for job in self.where("called") if not job.ripe]

    def waiting(self) -> set[str]:
        """Return the tenants that wait for certain."""
        return {job.tenant for job in self.where("waiting")}

    def most_of(self, job: Job) -> tuple[float, float]:
        """Return how many calls a job's tenant and its key may have under way."""
        own = INF if job.key_id is None else self.caps.get((job.tenant, job.key_id), INF)
        return self.caps.get((job.tenant, None), self.at_once or INF), own

    def _still_wait(self) -> None:
        self.shares.only(self.waiting())
        for each in self.inside.values():
            each.only({job.flow for job in self.where("waiting")})

    def hold(self, job: Job, till: float) -> None:
        self.paused = True
        self.held[job.flow] = max(till, self.held.get(job.flow, 0.0))

    def pass_time(self, ms: float) -> None:
        self.now += ms
        self.passed += max(0.0, ms)
        for job in self.where("deferred", "called"):
            job.ripe = job.ripe or job.due <= self.now
        self.held = {name: till for name, till in self.held.items() if till > self.now}

    def put(self, job: Job) -> None:
        if job.due > self.now + SLACK:
            job.where = "deferred"
        self.jobs.setdefault(job.id, job)

    def draws(self, job: Job, limits: Mapping[str, float]) -> tuple[float, float]:
        """Return the tokens a job draws: what its tenant's jobs use and two deviations, a minute's worth at most."""
        known = self.learned.get(job.tenant)
        input_, output = float(job.input), 500.0
        if known is not None:
            input_, output = round(job.input * known.ratio), math.ceil(known.mean + 2 * known.deviation)
        if job.output:
            output = job.output if self.reserve else min(output, job.output)
        together = limits.get("t", INF)
        input_ = min(input_, limits.get("i", INF), together)
        return input_, min(output, limits.get("o", INF), together - input_)

    def weighs(self, job: Job) -> float:
        """Return what a job counts for in its tenant's turn."""
        known = self.learned.get(job.tenant)
        if known is None:
            return (job.input + job.output + 1) / WEIGHT[job.priority]
        output = min(known.mean, job.output or INF)
        return (job.input * known.ratio + output + 1) / WEIGHT[job.priority]

    def claimed(self, taken: Iterable[Taken], late: Iterable[UUID], *, most: int, till: float) -> None:
        """Hold what a claim found against what it may find."""
        for id_ in late:
            job = self.jobs[id_]
            assert job.ready(self.now), f"{job.where} and late"
            known = self.known.get(job.tenant, [])
            assert job.deadline <= self.now + (max(known) if len(known) >= 10 else 0.0), "late too early"
            job.where, job.taken = "late", None
        taken = list(taken)
        assert len(taken) <= most
        for job in self.jobs.values() if taken else ():
            if job.ready(self.now):
                job.where, job.ripe = "waiting", False
        self._still_wait()
        for index, one in enumerate(taken):
            self._take(one, till, first=index == 0)

    def _take(self, one: Taken, till: float, *, first: bool) -> None:
        job, key = self.jobs[one.id], self.keys[one.key]
        assert job.where == "waiting", f"taken though {job.where}"
        assert job.deadline > self.now, "taken though late"
        assert job.flow not in self.held, "taken though on hold"
        held = first and job.arrived < self.now - PATIENCE  # it may have held its place until it went, turn or not
        inside = self.inside.setdefault(job.tenant, Shares(lead=self.shares.lead))
        self.shares.held = self.shares.held or held
        inside.held = inside.held or held
        if self.in_turn and not held:
            assert job is min((each for each in self.where("waiting") if each.flow == job.flow), key=self._order)
        expected = self.draws(job, key.limits)
        assert max(abs(one.input_tokens - expected[0]), abs(one.output_tokens - expected[1])) <= 1, expected
        under_way = self.under_way()
        amounts = self.amounts(one.key, 1, one.input_tokens, one.output_tokens)
        others = sum(each.taken.key == one.key for each in under_way if each.taken)
        key.take(amounts, now=self.now, passed=self.passed, others=others)
        most, own = self.most_of(job)
        assert sum(each.tenant == job.tenant for each in under_way) < most, "too many calls of a tenant"
        assert sum(each.flow == job.flow for each in under_way) < own, "too many calls of a key"
        job.where, job.due, job.taken, job.ripe = "called", till, one, False
        if self.in_turn and not (self.at_once or self.caps or self.paused):
            self.shares.took(job.tenant, self.weighs(job), self.waiting())
            inside.took(
                job.flow, self.weighs(job), {each.flow for each in self.where("waiting") if each.tenant == job.tenant}
            )

    def _order(self, job: Job) -> tuple[float, float, str]:
        near = job.deadline <= self.now + NEAR
        return (0, job.deadline, job.id.hex) if near else (1, *job.place)

    def amounts(self, key: str, requests: float, input_: float, output: float) -> dict[str, float]:
        """Return what counts for the limits a key has."""
        each = {"r": requests, "t": input_ + output, "i": input_, "o": output}
        return {dimension: amount for dimension, amount in each.items() if dimension in self.keys[key].limits}

    def moved(self, id_: UUID, due: float | None) -> None:
        """Note that a job left: for good, or to run again."""
        job = self.jobs[id_]
        job.where, job.due, job.taken = ("gone", 0.0, None) if due is None else ("deferred", due, None)
        job.ripe = due is not None and due <= self.now
        self._still_wait()

    def answered(self, job: Job, back: tuple[int, int, int], used: tuple[int, int] | None, ms: float | None) -> None:
        """Note what a call was to its key: what comes back, what it used, and how long it took if it went well."""
        assert job.taken is not None
        key = self.keys[job.taken.key]
        key.returned(self.amounts(job.taken.key, *back))
        key.circuit.answered(job.taken.at, now=self.now, well=ms is not None)
        if used is not None:
            self.known.setdefault(job.tenant, []).append(ms or 0.0)
            ratio = max(0.1, min(10.0, used[0] / job.input if job.input else 1.0))
            first = Learned(used[1], used[1] / 2, ratio)
            after = self.learned.get(job.tenant, first).after(used[1], ratio)
            self.learned[job.tenant] = Learned(round(after.mean, 1), round(after.deviation, 1), round(after.ratio, 3))
