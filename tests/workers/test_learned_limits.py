"""What the queue learns of limits and of what jobs use, against a provider on a clock of the test's own."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from shared.allowance import Allowance, Dimension
from shared.limits import Limits, deployments_json
from shared.queue.entries import Taken
from tests.workers.lanes import Bucket, Gateway, Lane, Upstream, lane_at, lane_beside, work

JOBS = 2_000
A_MINUTE, BURST = 3_000, 50
SHORTEST = (JOBS - BURST) / 50
"""The seconds that a provider needs for them: its burst at once, and then its pace."""

LEARN = {"learn": True}
CONFIGURED = {"r": A_MINUTE, "learn": True}

roads = pytest.mark.parametrize(("seed", "delay"), [(1, 10.0), (2, 100.0)])


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


def upstream() -> Upstream:
    return Upstream(Bucket(A_MINUTE, BURST))


async def worked(lane: Lane, upstream: Upstream, limits: dict[str, Any], **options: Any) -> tuple[float, Gateway]:
    """Return the seconds that all jobs took, and who did them."""
    gateway = Gateway(lane, upstream, limits, **options)
    await gateway.put(JOBS)
    await work(gateway)
    assert len(gateway.ended) == JOBS
    return gateway.ended[-1] / 1000, gateway


async def tell(lane: Lane, taken: Taken, said: dict[Dimension, Allowance]) -> None:
    await lane.queue.told(taken, "p", said)


async def take_one(lane: Lane, limits: dict[str, Any]) -> Taken:
    """Take one job, as soon as the limits admit it."""
    while True:
        taken, next_ms = await lane.claim(limits, most=1)
        if taken:
            return taken[0]
        assert next_ms is not None
        lane.now += max(1.0, next_ms)


# ---------------------------------------------------------------------- the pace


@roads
async def test_a_configured_pace_without_a_known_burst_is_kept_to_the_job(lane: Lane, seed: int, delay: float) -> None:
    provider = upstream()
    seconds, _ = await worked(lane, provider, CONFIGURED, seed=seed, delay=delay)
    assert provider.refused == []
    assert seconds <= 1.03 * SHORTEST


async def test_a_configured_pace_is_kept_without_a_word_from_the_provider(lane: Lane) -> None:
    provider = upstream()
    seconds, _ = await worked(lane, provider, CONFIGURED, delay=100, heeds=False)
    assert provider.refused == []
    assert seconds <= 1.01 * (JOBS / 50 + 0.2)  # nobody knows of the burst; the last answer takes 0.2 s


async def test_after_a_pause_no_more_than_a_fifth_of_a_second_goes_at_once_where_no_burst_is_known(lane: Lane) -> None:
    await lane.put(100)
    await take_one(lane, CONFIGURED)
    lane.now += 60_000
    assert len((await lane.claim(CONFIGURED))[0]) == 10


@roads
async def test_limits_that_nobody_configured_are_learned_from_headers(lane: Lane, seed: int, delay: float) -> None:
    provider = upstream()
    seconds, _ = await worked(lane, provider, LEARN, seed=seed, delay=delay)
    assert provider.refused == []
    assert seconds <= 1.05 * SHORTEST


@pytest.mark.parametrize(("seed", "delay"), [(1, 10.0), (2, 50.0), (3, 100.0)])
async def test_a_pace_that_nobody_tells_is_found_with_few_refusals(lane: Lane, seed: int, delay: float) -> None:
    provider = upstream()
    seconds, _ = await worked(lane, provider, LEARN, seed=seed, delay=delay, heeds=False)
    assert len(provider.refused) <= 0.02 * JOBS
    assert seconds <= 1.25 * SHORTEST


@pytest.mark.parametrize(("seed", "heeds"), [(1, True), (2, False)])
async def test_a_limit_of_tokens_is_kept_though_nobody_knows_the_output_before(
    lane: Lane, seed: int, heeds: bool
) -> None:
    provider = Upstream(Bucket(A_MINUTE, BURST), Bucket(300_000, 5_000))
    limits = {"r": A_MINUTE, "t": 300_000, "learn": True}
    seconds, gateway = await worked(lane, provider, limits, seed=seed, delay=50, heeds=heeds)
    assert len(provider.refused) <= 0.002 * JOBS
    assert seconds <= 1.08 * max(SHORTEST, (gateway.tokens - 5_000) / 5_000)


@pytest.mark.parametrize("later", [0.0, 5_000.0])
async def test_gateways_that_share_a_key_come_to_share_its_limit(lane: Lane, redis: str, later: float) -> None:
    provider = upstream()
    async with lane_beside(redis) as other:
        first, second = (Gateway(one, provider, LEARN, seed=seed) for one, seed in ((lane, 1), (other, 2)))
        await first.put(JOBS)
        await work(first, until=later)
        other.now = lane.now
        await second.put(JOBS)
        await work(first, second, until=later + 15_000)
    settled = later + 5_000
    shares = [sum(at > settled for at in one.ended) for one in (first, second)]
    assert sum(shares) >= 0.85 * 10 * 50
    assert min(shares) >= sum(shares) / 3
    assert len(provider.refused) <= 0.15 * len(provider.arrived)
    assert sum(at > settled for at in provider.refused) <= 0.03 * sum(shares)


# ------------------------------------------------------------- before anything is known


async def test_the_first_look_at_a_deployment_of_which_nothing_is_known_takes_eight_calls(lane: Lane) -> None:
    await lane.put(100)
    taken, _ = await lane.claim(LEARN)
    assert len(taken) == 8
    assert (await lane.claim(LEARN))[0] == []


async def round_trip(lane: Lane, under_way: list[Taken]) -> list[Taken]:
    """Answer calls one by one; what each makes room for goes at once, and is returned."""
    fresh: list[Taken] = []
    for one in under_way:
        lane.now += 1
        await lane.done([one], ms=200)
        fresh += (await lane.claim(LEARN))[0]
    return fresh


async def test_a_window_that_is_used_grows_by_half_with_each_round_trip(lane: Lane) -> None:
    await lane.put(500)
    trips = [(await lane.claim(LEARN))[0]]
    for _ in range(4):
        trips.append(await round_trip(lane, trips[-1]))
    assert [len(trip) for trip in trips] == [8, 12, 18, 27, 40]


async def test_a_window_grows_too_when_its_calls_come_back_together(lane: Lane) -> None:
    await lane.put(500)
    sizes = []
    for _ in range(4):
        taken, _ = await lane.claim(LEARN)
        sizes.append(len(taken))
        lane.now += 200
        await lane.done(taken, ms=200)
    assert sizes == [8, 12, 18, 27]


async def test_a_window_that_is_not_used_does_not_grow(lane: Lane) -> None:
    for _ in range(30):
        await lane.put(1)
        taken, _ = await lane.claim(LEARN)
        lane.now += 200
        await lane.done(taken, ms=200)
    await lane.put(100)
    assert len((await lane.claim(LEARN))[0]) <= 9


async def test_a_window_that_is_never_refused_ends(lane: Lane) -> None:
    await lane.put(2_000)
    taken, _ = await lane.claim(LEARN)
    while len(taken) < 256:
        assert "concurrency" in (await lane.state(LEARN)).deployments[0].learned
        before, taken = len(taken), await round_trip(lane, taken)
        assert len(taken) > before
    assert "concurrency" not in (await lane.state(LEARN)).deployments[0].limits


# ------------------------------------------------------------------ what headers say


async def test_the_lower_of_what_is_configured_and_what_headers_say_counts(lane: Lane) -> None:
    await lane.put(2_000)
    one = await take_one(lane, CONFIGURED)
    await tell(lane, one, {"r": Allowance(6_000, None, None)})
    assert (await lane.state(CONFIGURED)).deployments[0].limits["rpm"] == 3_000
    await tell(lane, one, {"r": Allowance(600, None, None)})
    assert (await lane.state(CONFIGURED)).deployments[0].limits["rpm"] == 600
    began, taken = lane.now, 0
    while lane.now < began + 10_000:
        taken += len((await lane.claim(CONFIGURED))[0])
        lane.now += 50
    assert 98 <= taken <= 104


async def test_what_is_said_to_be_left_is_believed_up_to_five_seconds_worth(lane: Lane) -> None:
    await lane.put(9_000)
    one = await take_one(lane, {"r": 6_000})
    await tell(lane, one, {"r": Allowance(6_000, 6_000, 6_000)})
    taken, _ = await lane.claim({"r": 6_000}, most=9_000)
    assert len(taken) == 250  # by halves


async def test_a_burst_that_headers_tell_is_believed_up_to_five_seconds_worth(lane: Lane) -> None:
    await lane.put(9_000)
    one = await take_one(lane, {"r": 6_000})
    await tell(lane, one, {"r": Allowance(6_000, None, 6_000)})
    lane.now += 60_000
    taken, _ = await lane.claim({"r": 6_000}, most=9_000)
    assert len(taken) == 500


async def test_what_others_left_of_a_key_is_believed_whole(lane: Lane) -> None:
    await lane.put(9_000)
    one = await take_one(lane, {"r": 6_000, "burst": 500})
    lane.now += 60_000
    assert (await lane.state({"r": 6_000, "burst": 500})).deployments[0].left["rpm"] == 500
    one = await take_one(lane, {"r": 6_000, "burst": 500})
    await tell(lane, one, {"r": Allowance(6_000, 20, 500)})
    assert 19 <= len((await lane.claim({"r": 6_000, "burst": 500}))[0]) <= 20


# ------------------------------------------------------------------ what jobs use


async def ended(lane: Lane, outputs: list[int], *, tenant: str = "t", read: int = 100) -> None:
    """Have jobs of a tenant end that were expected to read 100 tokens."""
    for output in outputs:
        await lane.put(tenant=tenant, tokens=(100, 0))
        taken, _ = await lane.claim({})
        await lane.done(taken, used=(read, output), ms=200)


async def drawn(lane: Lane, limits: dict[str, Any], *, tenant: str = "t", allowed: int = 0) -> tuple[int, int]:
    await lane.put(tenant=tenant, tokens=(100, allowed))
    one = await take_one(lane, limits)
    return one.input_tokens, one.output_tokens


async def test_the_next_job_draws_what_its_tenants_jobs_used_and_two_deviations(lane: Lane) -> None:
    assert await drawn(lane, {}) == (100, 500)  # of the first nobody knows
    await ended(lane, [380, 420] * 40)
    _, output = await drawn(lane, {})
    assert 430 <= output <= 445  # the mean is 400, the mean deviation 20
    assert await drawn(lane, {}, allowed=8_000) == (100, output)
    assert await drawn(lane, {}, allowed=300) == (100, 300)


async def test_what_one_tenants_jobs_use_says_nothing_of_anothers(lane: Lane) -> None:
    await ended(lane, [1_000] * 40, tenant="x")
    assert await drawn(lane, {}, tenant="y") == (100, 500)
    await ended(lane, [40] * 60, tenant="y")
    assert 1_000 <= (await drawn(lane, {}, tenant="x"))[1] <= 1_010
    assert 40 <= (await drawn(lane, {}, tenant="y"))[1] <= 45


def configured(kind: str) -> bytes:
    key = SimpleNamespace(name="k", weight=1.0, value=SecretStr("s"))
    return deployments_json(SimpleNamespace(kind=kind, keys=[key], limits=Limits(tpm=600_000), models={}))


@pytest.mark.parametrize(
    ("kind", "output"), [("openai", 8_000), ("azure_openai", 8_000), ("bedrock", 8_000), ("anthropic", 400)]
)
async def test_where_the_provider_counts_what_is_allowed_that_is_drawn(lane: Lane, kind: str, output: int) -> None:
    await ended(lane, [400] * 60)
    [[_, _, limits, _]] = orjson.loads(configured(kind))["*"]
    found = await drawn(lane, limits, allowed=8_000)
    assert output <= found[1] <= output + 5
    assert 400 <= (await drawn(lane, limits))[1] <= 405  # one that allows itself anything


async def test_an_input_is_expected_by_what_inputs_were_against_their_estimates(lane: Lane) -> None:
    await ended(lane, [10] * 60, read=130)
    assert 128 <= (await drawn(lane, {}))[0] <= 130
    assert (await drawn(lane, {}, tenant="other"))[0] == 100


async def test_no_job_draws_more_than_a_minute_of_a_limit(lane: Lane) -> None:
    await ended(lane, [9_000] * 10)
    assert sum(await drawn(lane, {"t": 6_000})) == 6_000


# ------------------------------------------------------------------ what is shown


async def test_how_a_lane_stands_shows_its_limits_and_which_were_learned(lane: Lane) -> None:
    limits = {"r": 3_000, "flight": 10, "learn": True}
    await lane.put(20)
    one = await take_one(lane, limits)
    await tell(lane, one, {"r": Allowance(600, 30, 40), "t": Allowance(90_000, None, None)})
    state = await lane.state(limits)
    [deployment] = state.deployments
    assert deployment.limits == {"rpm": 600, "tpm": 90_000, "concurrency": 10, "burst": 40}
    assert deployment.learned == {"rpm": 600, "tpm": 90_000, "burst": 40}
    assert deployment.left["rpm"] == pytest.approx(15, abs=1)
    assert deployment.in_flight == 1
    assert (state.waiting, state.in_motion) == (19, 1)


async def test_how_a_lane_stands_shows_how_long_its_calls_take(lane: Lane) -> None:
    assert (await lane.state({})).latency is None
    assert (await lane.state({})).latency_p95 is None
    await lane.put(200)
    taken, _ = await lane.claim({})
    for place, one in enumerate(taken):
        await lane.done([one], ms=900 if place % 2 else 1_100)
    state = await lane.state({})
    assert state.latency == pytest.approx(1.0, abs=0.02)
    assert state.latency_p95 == pytest.approx(1.2, abs=0.03)
