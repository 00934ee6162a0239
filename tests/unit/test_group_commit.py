"""Groups form while a flush is under way; nothing is lost, swapped, or kept waiting."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.group_commit import Full, GroupCommit


async def test_what_arrives_during_a_flush_goes_with_the_next() -> None:
    groups: list[list[int]] = []
    started, gate = asyncio.Event(), asyncio.Event()

    async def flush(items: Sequence[int]) -> list[int]:
        groups.append(list(items))
        started.set()
        await gate.wait()
        return [10 * item for item in items]

    commit = GroupCommit(flush, most=4, lanes=1)
    first = asyncio.create_task(commit.add(0))
    await started.wait()
    rest = [asyncio.create_task(commit.add(item)) for item in range(1, 8)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(first, *rest) == [10 * item for item in range(8)]
    assert groups == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_a_failed_flush_fails_its_own_group_and_no_other() -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise ValueError("one")
        return list(items)

    commit = GroupCommit(flush, most=1, lanes=2)
    found = await asyncio.gather(*(commit.add(item) for item in range(4)), return_exceptions=True)
    assert [found[0], found[2], found[3]] == [0, 2, 3]
    assert isinstance(found[1], ValueError)
    assert await commit.add(5) == 5


async def test_a_caller_that_left_holds_up_nobody() -> None:
    gate = asyncio.Event()

    async def flush(items: Sequence[int]) -> list[int]:
        await gate.wait()
        return list(items)

    commit = GroupCommit(flush, lanes=1)
    left, stays = asyncio.create_task(commit.add(1)), asyncio.create_task(commit.add(2))
    await asyncio.sleep(0)
    left.cancel()
    gate.set()
    assert await stays == 2
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_it_is_bounded() -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def flush(items: Sequence[int]) -> list[int]:
        started.set()
        await gate.wait()
        return list(items)

    commit = GroupCommit(flush, most=1, lanes=1, waiting=3)
    under_way = asyncio.create_task(commit.add(0))
    await started.wait()
    waiting = [asyncio.create_task(commit.add(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Full):
        await commit.add(9)
    gate.set()
    assert await asyncio.gather(under_way, *waiting) == [0, 1, 2, 3]
