"""A call that ends well but took too long counts against its deployment, and what an operator must hear is raised."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.config import Provider
from shared.db.alerts import NewAlert
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Stop
from shared.limits import key_mark
from shared.providers import Completion, Usage
from shared.queue.entries import Taken
from tests.workers.lanes import Lane, lane_at
from workers.call import Answered
from workers.news import spent_by, tell

GOOD = Completion(b"{}", Usage(1, 1), "m")


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


def provider(**more: Any) -> Provider:
    return Provider.model_validate({"kind": "openai", "keys": [{"name": "k", "value": "s"}], **more})


async def answered(lane: Lane, chosen: Provider, outcome: Any, *, ms: float, times: int = 1) -> list[NewAlert]:
    """Have calls come to something, as a job does; return the alerts raised."""
    raised: list[NewAlert] = []
    for _ in range(times):
        drawn = Taken("m", (await lane.put())[0], "k", 0, 0, f"{lane.now:.0f}:0:0:0:0:0")
        answer = Answered(outcome, ms=ms)
        await tell(lane.queue, chosen, drawn, answer, name="p", alert=raised.append)
        spent = spent_by(answer, drawn, None, keeps=False, slow=chosen.slow)
        await lane.done([drawn], ms=spent.ms)
    return raised


async def health(lane: Lane, chosen: Provider) -> str:
    state = await lane.state([("k", 1, {}, key_mark(chosen.keys[0].value))])
    return state.deployments[0].health


async def test_slow_calls_open_a_circuit_and_quick_ones_close_it(lane: Lane) -> None:
    chosen = provider(slow="2s")
    assert await answered(lane, chosen, GOOD, ms=2_000, times=20) == []
    [alert] = await answered(lane, chosen, GOOD, ms=2_001, times=5)
    assert await health(lane, chosen) == "open"
    assert (alert.kind, alert.fields["error"]) == ("circuit.opened", "slow")
    lane.now += 1_001
    assert await health(lane, chosen) == "half_open"
    await answered(lane, chosen, GOOD, ms=100)
    assert await health(lane, chosen) == "closed"


async def test_a_call_that_tries_and_is_slow_keeps_it_open(lane: Lane) -> None:
    chosen = provider(slow="2s")
    await answered(lane, chosen, GOOD, ms=2_001, times=5)
    lane.now += 1_001
    [tried] = (await lane.claim([("k", 1, {}, key_mark(chosen.keys[0].value))]))[0][:1] or [None]
    assert tried is None or tried.key == "k"
    await answered(lane, chosen, GOOD, ms=2_001)
    assert await health(lane, chosen) in ("open", "half_open")


async def test_what_a_slow_call_took_is_not_how_long_calls_take(lane: Lane) -> None:
    chosen = provider(slow="2s")
    await answered(lane, chosen, GOOD, ms=100, times=3)
    before = (await lane.state([("k", 1, {})])).latency
    await answered(lane, chosen, GOOD, ms=60_000)
    assert (await lane.state([("k", 1, {})])).latency == before


async def test_without_the_setting_no_call_is_slow(lane: Lane) -> None:
    chosen = provider()
    assert chosen.slow is None
    assert await answered(lane, chosen, GOOD, ms=600_000, times=20) == []
    assert await health(lane, chosen) == "closed"


async def test_what_was_stopped_or_failed_is_judged_as_before(lane: Lane) -> None:
    chosen = provider(slow="2s")
    refusal = ProviderError(ErrorKind.INVALID_REQUEST, "no")
    for outcome in (Stop.CANCEL_ASKED, Stop.SHUTDOWN, refusal):
        assert await answered(lane, chosen, outcome, ms=60_000, times=10) == []
    assert await health(lane, chosen) == "closed"


async def test_a_refused_key_is_raised_once_for_its_value(lane: Lane) -> None:
    chosen = provider()
    refused = ProviderError(ErrorKind.INVALID_KEY, "no")
    [alert] = await answered(lane, chosen, refused, ms=10, times=3)
    mark = key_mark(chosen.keys[0].value).removeprefix("key:")
    assert (alert.kind, alert.subject, alert.tenant_id) == ("key.refused", f"p/k/{mark}", None)
    other = provider(keys=[{"name": "k", "value": "hidden"}])
    [again] = await answered(lane, other, refused, ms=10)
    assert again.subject != alert.subject
    assert "hidden" not in str(again)


async def test_a_circuit_is_raised_with_its_hour(lane: Lane) -> None:
    down = ProviderError(ErrorKind.SERVER_ERROR, "down")
    [alert] = await answered(lane, provider(), down, ms=10, times=8)
    assert alert.kind == "circuit.opened"
    assert alert.subject.startswith("p/m with the key k 20")
    assert len(alert.subject.rpartition(" ")[2]) == len("2026-11-21T14")
