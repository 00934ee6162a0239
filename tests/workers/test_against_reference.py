"""The queue's scripts, step by step through whatever may happen to a lane, against what they promise (`reference`).

Not here: what headers and refusals teach of limits that nobody configured, several lanes of a pool, hedged calls.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.limits import NOTHING_SPENT, Spent
from shared.queue.entries import Entry, Move
from tests.workers.lanes import START, TARGET, Lane, deployments, lane_at
from tests.workers.reference import LEAD, WEIGHT, Job, Key, Reference, Shares

T = TypeVar("T")
EXAMPLES = 100
LEASE = 30.0
SAFETY = 1_000  # a lane where jobs wait is looked at this often

PICK = st.integers(0, 999)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "r": st.sampled_from([120, 600, 3_000]),
        "burst": st.sampled_from([1, 5, 20]),
        "flight": st.integers(1, 6),
        "t": st.sampled_from([60_000, 120_000, 600_000]),
        "i": st.sampled_from([60_000, 300_000]),
        "o": st.sampled_from([60_000, 300_000]),
    },
)
SIZELESS = st.fixed_dictionaries(
    {},
    optional={
        "r": st.sampled_from([120, 600, 3_000]),
        "burst": st.sampled_from([1, 5, 20]),
        "flight": st.integers(1, 6),
    },
)
TOKENS = st.sampled_from([0, 1, 40, 100, 700, 2_500])
KEYS = (None, UUID(int=1 << 100), UUID(int=2 << 100))
CAPS: st.SearchStrategy[dict[tuple[str, UUID | None], int]] = st.sampled_from(
    [{}, {}, {("t0", None): 2, ("t1", KEYS[1]): 1}, {("t0", KEYS[1]): 2, ("t0", KEYS[2]): 1}]
)
TICK = 125  # ms: a time in seconds has no rounding
TIME = st.one_of(
    st.integers(0, 3),
    st.integers(3, 100),
    st.sampled_from([-4, -1, 250, 600, 28_800, 5 * 28_800]),
).map(lambda ticks: ticks * TICK)


class Machine(RuleBasedStateMachine):
    """One lane in Redis beside the reference; each rule does to both what may happen, and compares."""

    def __init__(self, lane: Lane, runner: asyncio.Runner) -> None:
        super().__init__()
        self.lane, self.runner = lane, runner
        self.steps = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize(
        every=st.lists(SIZELESS, min_size=1, max_size=3) | st.lists(LIMITS, min_size=1, max_size=3),
        weights=st.tuples(*[st.sampled_from([1, 1.5, 3])] * 3),
        tenants=st.integers(1, 4),
        urgent=st.booleans(),
        reserve=st.booleans(),
        at_once=st.sampled_from([0, 0, 0, 1, 3]),
        caps=CAPS,
        keys_of_one=st.integers(1, 3),
        holds=st.sampled_from([False, False, True]),
        answers=st.booleans(),
    )
    def begin(
        self,
        every: list[dict[str, float]],
        weights: tuple[float, ...],
        tenants: int,
        urgent: bool,
        reserve: bool,
        at_once: int,
        caps: dict[tuple[str, UUID | None], int],
        keys_of_one: int,
        holds: bool,
        answers: bool,
    ) -> None:
        self.run(self.lane.queue.redis.flushdb())
        self.run(self.lane.queue.set_caps(caps))
        self.lane.now = START
        keys = {f"k{number}": Key(limits, f"key:{number}") for number, limits in enumerate(every)}
        in_turn = not any({"t", "i", "o"} & limits.keys() for limits in every)
        shares = Shares(lead=LEAD if urgent else 0)
        self.model = Reference(keys, START, reserve=reserve, in_turn=in_turn, at_once=at_once, caps=caps, shares=shares)
        self.keys_of_one, self.holds = keys_of_one, holds
        self.weights, self.tenants, self.answers = weights, tenants, answers
        self.priorities = sorted(WEIGHT) if urgent else ["bulk", "standard"]
        self.latest, self.marks, self.refusals = START, 0, 0

    # What is asked of the queue.

    @property
    def limits(self) -> list[Any]:
        return [
            (name, weight, {**key.limits, "reserve": self.model.reserve}, key.mark)
            for (name, key), weight in zip(self.model.keys.items(), self.weights, strict=False)
        ]

    def entry(self, job: Job, run_at: float) -> Entry:
        ahead = self.lane.now
        deadline = None if job.deadline == math.inf else self.lane.at(job.deadline - ahead)
        at = self.lane.at(run_at - ahead)
        return Entry(job.id, TARGET, job.priority, at, job.tenant, job.input, job.output, deadline, job.key_id)

    def one(self, jobs: list[Job], pick: int) -> Job:
        return jobs[pick % len(jobs)]

    def called(self) -> list[Job]:
        return [job for job in self.model.jobs.values() if job.taken]

    def move(self, job: Job, due: float | None, spent: Spent = NOTHING_SPENT) -> None:
        when = None if due is None else self.lane.at(due - self.lane.now)
        self.run(self.lane.queue.move("p", [Move("m", job.id, when, spent)]))
        self.model.moved(job.id, due)

    @rule(
        number=st.integers(1, 20),
        flows=st.lists(st.tuples(PICK, PICK), min_size=1, max_size=4),
        priority=PICK,
        tokens=st.tuples(TOKENS, TOKENS),
        later=st.sampled_from([0, 0, 0, 0, 875, 1_500, 40_000]),
        deadline=st.sampled_from([None, None, None, None, None, 1_000, 20_000, 45_000]),
    )
    def put(
        self,
        number: int,
        flows: list[tuple[int, int]],
        priority: int,
        tokens: tuple[int, int],
        later: int,
        deadline: int | None,
    ) -> None:
        made = [
            Job(
                UUID(int=len(self.model.jobs) + place * number + index + 1),
                f"t{tenant % self.tenants}",
                self.priorities[priority % len(self.priorities)],
                *tokens,
                arrived=self.lane.now + later,
                deadline=math.inf if deadline is None else self.lane.now + deadline,
                key_id=KEYS[key % self.keys_of_one],
                due=self.lane.now + later,
            )
            for place, (tenant, key) in enumerate(flows)
            for index in range(number)
        ]
        self.run(self.lane.queue.enqueue(self.entry(job, job.due) for job in made))
        for job in made:
            self.model.put(job)

    @precondition(lambda self: self.model.where("waiting", "deferred", "called"))
    @rule(pick=PICK, later=st.sampled_from([0, 5_000]))
    def put_again(self, pick: int, later: int) -> None:
        job = self.one(self.model.where("waiting", "deferred", "called"), pick)
        self.run(self.lane.queue.enqueue([self.entry(job, self.lane.now + later)]))

    @rule(most=st.sampled_from([1, 2, 5, 50, 50]), told=st.booleans())
    def claim(self, most: int, told: bool) -> None:
        self.look(most, told=told)

    def look(self, most: int, *, told: bool) -> float | None:
        """Claim once; where jobs are late and that is `told`, they end. Return the ms until the next look."""
        limits, in_flight = deployments(self.limits), self.model.at_once
        found = self.run(
            self.lane.queue.claim("p", most=most, lease=LEASE, payload=b"{}", limits=limits, in_flight=in_flight)
        )
        self.model.claimed(found.taken, found.late, most=most, till=self.lane.now + LEASE * 1000)
        for id_ in found.late if told else ():
            self.move(self.model.jobs[id_], None)
        if found.shut:
            assert all(key.shut(self.lane.now) for key in self.model.keys.values())
        moving = [job for job in self.model.where("deferred", "called") if job.flow not in self.model.held]
        if any(job.flow not in self.model.held for job in self.model.where("waiting")):
            assert found.next_ms is not None
            assert self.lane.now + found.next_ms <= self.latest + SAFETY
        elif moving:
            assert found.next_ms is not None
            assert found.next_ms <= max(SAFETY, min(job.due for job in moving) - self.lane.now)
        return found.next_ms

    @rule(
        rounds=st.integers(2, 12),
        most=st.sampled_from([1, 3, 8, 50]),
        ticks=st.sampled_from([1, 2, 8, 40]),
        kept=st.sampled_from([0, 0, 1, 4]),
        share=st.sampled_from([0, 0.6, 1, 1.3]),
    )
    def work(self, rounds: int, most: int, ticks: int, kept: int, share: float) -> None:
        """Claim again and again, with calls that go well, but for a few that are still under way."""
        for _ in range(rounds):
            self.look(most, told=True)
            for job in self.called()[kept:]:
                self.move(job, None, self.spent(job, share, ms=500))
            self.pass_time(ticks * TICK)

    # What comes of a call.

    def spent(self, job: Job, share: float, *, ms: float | None) -> Spent:
        """Return what a call used, by its share of what was drawn, and note it."""
        assert job.taken is not None
        used = round(job.taken.input_tokens * share), round(job.taken.output_tokens * share)
        back = (0, job.taken.input_tokens - used[0], job.taken.output_tokens - used[1]) if self.answers else (0, 0, 0)
        exact = used if ms is not None and self.answers else None
        self.model.answered(job, back, exact, ms)
        return Spent(job.taken.key, back, exact, ms, job.taken.at)

    @precondition(lambda self: self.called())
    @rule(pick=PICK, share=st.sampled_from([0, 0.5, 1, 1, 1.3]), ms=st.integers(20, 20_000))
    def succeed(self, pick: int, share: float, ms: float) -> None:
        job = self.one(self.called(), pick)
        self.move(job, None, self.spent(job, share, ms=ms))

    @precondition(lambda self: self.called())
    @rule(pick=PICK, seconds=st.sampled_from([0.125, 3, 60]), blame=st.sampled_from(["", "provider", "key"]))
    def retry(self, pick: int, seconds: float, blame: str) -> None:
        job = self.one(self.called(), pick)
        assert job.taken is not None
        if blame:
            self.failure(job.taken.key, key_refused=blame == "key", at=job.taken.at)
        self.move(job, self.lane.now + seconds * 1000, self.spent(job, 0.2, ms=None))

    @precondition(lambda self: self.called())
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        job = self.one(self.called(), pick)
        assert job.taken is not None
        unused = job.taken.unused
        self.model.answered(job, unused.back, None, None)
        self.move(job, self.lane.now, unused)

    @precondition(lambda self: self.model.under_way())
    @rule(picks=st.lists(PICK, min_size=1, max_size=9))
    def renew(self, picks: list[int]) -> None:
        # In time: whether it helps after a lease ran out depends on who looked at the lane since.
        jobs = {job.id: job for pick in picks for job in [self.one(self.model.under_way(), pick)]}
        held = [(one.lane, one.id, one.key) for job in jobs.values() for one in [job.taken] if one]
        self.run(self.lane.queue.renew("p", held, lease=LEASE))
        for job in jobs.values():
            job.due = self.lane.now + LEASE * 1000

    @precondition(lambda self: self.model.where("waiting", "deferred"))
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        self.move(self.one(self.model.where("waiting", "deferred"), pick), None)

    @precondition(lambda self: self.holds and self.model.where("waiting", "deferred", "called"))
    @rule(pick=PICK, seconds=st.sampled_from([0.25, 2, 30]))
    def hold(self, pick: int, seconds: float) -> None:
        job = self.one(self.model.where("waiting", "deferred", "called"), pick)
        self.run(self.lane.queue.hold(TARGET, job.tenant, job.key_id, seconds=seconds))
        self.model.hold(job, self.lane.now + seconds * 1000)

    # What becomes of a key.

    def key(self, pick: int) -> tuple[str, Key]:
        return list(self.model.keys.items())[pick % len(self.model.keys)]

    @rule(pick=PICK, seconds=st.sampled_from([0.5, 2, 20]))
    def refuse(self, pick: int, seconds: float) -> None:
        name, key = self.key(pick)
        self.run(self.lane.queue.refused(TARGET, name, seconds=seconds))
        key.rests_until = max(key.rests_until, self.lane.now + seconds * 1000)
        self.refusals += 1

    def failure(self, name: str, *, key_refused: bool, at: float) -> None:
        """Tell of a call that failed; the key may have got another value since, which is then what is refused."""
        key = self.model.keys[name]
        mark = key.mark if key_refused else ""
        opened = self.run(self.lane.queue.failed(TARGET, name, mark=mark, at=at, present=key.mark))
        key.circuit.failed(mark, at, now=self.lane.now, mark=key.mark, opened=opened)

    @rule(pick=PICK, times=st.sampled_from([1, 1, 2, 5]), ago=st.sampled_from([0, 0, 750]), key_refused=st.booleans())
    def fail(self, pick: int, times: int, ago: int, key_refused: bool) -> None:
        for _ in range(times):
            self.failure(self.key(pick)[0], key_refused=key_refused, at=self.lane.now - ago)

    @rule(pick=PICK)
    def replace_key(self, pick: int) -> None:
        self.marks += 1
        self.key(pick)[1].mark = f"another:{self.marks}"

    # Time.

    @rule(ms=TIME)
    def go_on(self, ms: int) -> None:
        self.pass_time(ms)

    def pass_time(self, ms: float) -> None:
        self.lane.now += ms
        self.latest = max(self.latest, self.lane.now)
        self.model.pass_time(ms)

    @precondition(lambda self: self.steps >= 15)
    @rule()
    def wait(self) -> None:
        """Nothing that can be taken waits for ever: with calls that go well, everything ends in the time it takes."""
        self.steps = 0
        began = self.model.passed
        jobs, keys = self.model.where("waiting", "deferred", "called"), self.model.keys.values()
        still = max([0.0, *(job.due - self.lane.now for job in jobs)])
        still += max([0.0, *(till - self.lane.now for till in self.model.held.values())])
        still += max(0.0, *(max(key.rests_until, key.circuit.until or 0.0) - self.lane.now for key in keys))
        rounds = 0
        while self.model.where("waiting", "deferred", "called"):
            for job in self.called():
                self.move(job, None, self.spent(job, 1, ms=1_000))
            next_ms = self.look(50, told=True)
            ticks = 1 if next_ms is None else math.ceil(min(1_000, next_ms) / TICK)
            self.pass_time(max(1, ticks) * TICK)
            rounds += 1
            assert self.model.passed - began <= still + self.longest(), "starved"
            assert rounds < 20_000

    def longest(self) -> float:
        """Return the ms that everything ever drawn takes with the slowest key, with what else may hold it up."""
        slowdown = max(0.1, 0.8**self.refusals)
        total = {"r": 0.0, "t": 0.0, "i": 0.0, "o": 0.0}
        for key in self.model.keys.values():
            for dimension, drawn in key.drawn.items():
                total[dimension] += sum(amount for _, amount in drawn) + key.owed.get(dimension, 0.0)
        waits = [
            total[dimension] * 60_000 / (key.limits[dimension] * slowdown)
            for key in self.model.keys.values()
            for dimension in total
            if dimension in key.limits
        ]
        return sum(waits) + 20_000 + SAFETY * (10 + len(self.model.jobs))

    # Whatever happened.

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        self.steps += 1
        state = self.run(self.lane.state(self.limits))
        certain = len(self.model.where("waiting"))
        here = self.model.where("waiting", "deferred", "called")
        maybe = sum(job.ready(self.lane.now) for job in here)
        assert state.waiting + state.in_motion == len(here)
        assert certain <= state.waiting <= maybe
        assert sum(self.run(self.lane.flows()).values()) == state.waiting
        for (name, key), shown in zip(self.model.keys.items(), state.deployments, strict=True):
            assert (shown.key, shown.health) == (name, key.health(self.lane.now))
            assert shown.resting == pytest.approx(max(0.0, key.rests_until - self.lane.now) / 1000)
            live = [job for job in self.model.under_way() if job.taken and job.taken.key == name]
            if shown.in_flight is not None:
                assert len(live) <= shown.in_flight <= key.limits["flight"]
        if certain and certain == maybe:
            self.a_job_knows_its_place(certain)

    def a_job_knows_its_place(self, waiting: int) -> None:
        job = self.one(sorted(self.model.where("waiting"), key=lambda each: each.place), self.steps * 7)
        first = sum(each.flow == job.flow and each.place < job.place for each in self.model.where("waiting"))
        found = self.run(self.lane.queue.place(TARGET, job.id, limits=deployments(self.limits)))
        assert found is not None
        assert first <= found[0] <= first + sum(each.flow != job.flow for each in self.model.where("waiting"))
        for other in self.model.where("deferred", "called", "gone")[:1]:
            assert self.run(self.lane.queue.place(TARGET, other.id, limits=deployments(self.limits))) is None


def test_a_lane_does_what_the_reference_allows(redis: str) -> None:
    with asyncio.Runner() as runner:
        context = lane_at(redis)
        lane = runner.run(context.__aenter__())
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                lambda: Machine(lane, runner),
                settings=settings(
                    max_examples=EXAMPLES,
                    derandomize=True,  # the same in every run: what is found here is a defect, never a surprise
                    stateful_step_count=50,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


async def test_what_a_call_used_beyond_what_it_drew_is_owed(lane: Lane) -> None:
    limits = {"t": 60_000}  # one a ms
    await lane.put(2, tokens=(100, 100))
    lane.now += 1_000
    await lane.claim(limits)
    lane.now += 200
    [one], _ = await lane.claim(limits)
    await lane.done([one], (0, -3_000))
    await lane.put(1, tokens=(100, 100))
    waited = 0
    while not (await lane.claim(limits))[0] and waited < 10_000:
        lane.now += 100
        waited += 100
    assert 3_000 <= waited <= 3_400


@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(200, 60_000),
    small=st.integers(1, 2_000),
    others=st.integers(1, 3),
    priority=st.sampled_from(["bulk", "standard"]),
)
async def test_a_large_job_waits_no_longer_than_its_turn(
    lane: Lane, size: int, small: int, others: int, priority: str
) -> None:
    await lane.queue.redis.flushdb()
    limits, rate = {"i": 600_000}, 10.0  # tokens a ms
    for _ in range(2):
        for number in range(others):
            await lane.put(50, tenant=f"x{number}", tokens=(small, 0), priority="interactive")
        await lane.claim(limits)
        lane.now += 300
    [large] = await lane.put(tenant="large", tokens=(size, 0), priority=priority)
    began = lane.now
    # The others take what interactive work is ahead, at four times its weight; then it gathers what it needs.
    allowed = others * (4 * LEAD + 2 * small) / rate + 5_000 + small / rate + 2_000
    while True:
        taken, next_ms = await lane.claim(limits)
        await lane.done(taken)
        if any(one.id == large for one in taken):
            return
        assert lane.now - began <= allowed
        for number in range(others):  # they never cease to wait
            await lane.put(len(taken), tenant=f"x{number}", tokens=(small, 0), priority="interactive")
        lane.now += 250 if next_ms is None else max(1, min(250, next_ms))


async def test_bulk_work_goes_before_the_interactive_work_of_twenty_minutes_later(lane: Lane) -> None:
    limits = {"r": 60}
    [bulk] = await lane.put(priority="bulk")
    began, gone = lane.now, False
    while not gone and lane.now - began < 1_300_000:
        await lane.put(priority="interactive")
        lane.now += 1_000
        taken, _ = await lane.claim(limits)
        await lane.done(taken)
        gone = any(one.id == bulk for one in taken)
    # What came in twenty minutes goes first, one a second.
    assert 1_190_000 <= lane.now - began <= 1_230_000
