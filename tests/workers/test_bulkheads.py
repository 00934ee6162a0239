"""Receivers of webhooks are kept apart: what hangs or fails takes no room from others."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from shared.db.deliveries import Room
from workers.bulkheads import WIDEST, Bulkheads, Lane

MOST = 2_000


def rows(lane: str, count: int, *, room: int = 10, concurrency: int = 10) -> list[Any]:
    tenant = lane.partition("/")[0]
    return [SimpleNamespace(lane=lane, tenant_id=tenant, room=room, concurrency=concurrency) for _ in range(count)]


def give(bulkheads: Bulkheads, lane: str, count: int, **fields: int) -> None:
    bulkheads.taken([Room(lane, 10, 0)], rows(lane, count, **fields), limit=200)


def rooms(bulkheads: Bulkheads, now: float = 0.0) -> dict[str, tuple[int, int]]:
    return {one.lane: (one.width, one.busy) for one in bulkheads.rooms(now, most=1_000)}


def test_a_lane_that_gave_less_than_it_had_room_for_is_not_asked_again() -> None:
    bulkheads = Bulkheads(most=100)
    bulkheads.due(["a", "b"])
    assert rooms(bulkheads) == {"a": (WIDEST, 0), "b": (WIDEST, 0)}
    bulkheads.taken([Room("a", WIDEST, 0), Room("b", WIDEST, 0)], rows("a", 10) + rows("b", 3), limit=200)
    assert rooms(bulkheads) == {}
    bulkheads.ended("a", good=True, now=0)
    assert rooms(bulkheads) == {"a": (10, 9)}
    bulkheads.due(["b"])
    assert rooms(bulkheads)["b"] == (10, 3)


def test_where_a_claim_was_full_nobody_is_forgotten() -> None:
    bulkheads = Bulkheads(most=100)
    bulkheads.due(["a", "b"])
    bulkheads.taken([Room("a", WIDEST, 0), Room("b", WIDEST, 0)], rows("a", 5), limit=5)
    assert rooms(bulkheads).keys() == {"a", "b"}


def test_a_lane_whose_concurrency_was_lowered_below_what_is_under_way_is_asked_again() -> None:
    bulkheads = Bulkheads(most=100)
    bulkheads.due(["a"])
    give(bulkheads, "a", 9)
    bulkheads.due(["a"])
    [room] = bulkheads.rooms(0, most=9)
    bulkheads.taken([room], [], limit=200)
    assert rooms(bulkheads) == {}  # else it were asked at once, again and again
    bulkheads.ended("a", good=True, now=0)
    assert rooms(bulkheads) == {"a": (10, 8)}


def test_a_lane_that_fails_gives_one_at_a_time_and_recovers() -> None:
    bulkheads = Bulkheads(most=100)
    bulkheads.due(["a"])
    for width in (5, 2, 1, 1):
        give(bulkheads, "a", 1, room=1)
        bulkheads.ended("a", good=False, now=0)
        assert rooms(bulkheads) == {"a": (width, 0)}
    for width in (2, 4, 8):
        give(bulkheads, "a", 1, room=1)
        bulkheads.ended("a", good=True, now=0)
        assert rooms(bulkheads) == {"a": (width, 0)}
    give(bulkheads, "a", 1, room=1)
    bulkheads.ended("a", good=None, now=0)  # nobody asked it
    assert rooms(bulkheads) == {"a": (8, 0)}


def test_a_lane_rests_as_long_as_it_asked() -> None:
    bulkheads = Bulkheads(most=100)
    bulkheads.due(["a", "b"])
    give(bulkheads, "a", 1, room=1)
    bulkheads.ended("a", good=False, now=100.0, rest=30.0)
    assert rooms(bulkheads, 120.0).keys() == {"b"}
    assert bulkheads.patience(120.0, most=60.0) == 10.0
    assert rooms(bulkheads, 130.0).keys() == {"a", "b"}


def test_many_that_hang_leave_room_for_one_of_each_other() -> None:
    bulkheads = Bulkheads(most=20)
    bulkheads.due(["hangs", "other"])
    give(bulkheads, "hangs", 10, concurrency=50, room=10)
    assert rooms(bulkheads) == {"other": (1, 0)}


def lanes(tenant: str, count: int) -> list[str]:
    return [f"{tenant}/{number}.example:443" for number in range(count)]


def hang(bulkheads: Bulkheads, names: list[str]) -> Counter[str]:
    """Give what has room, 200 a claim, none of which ends; return how many of each tenant are under way."""
    under_way: Counter[str] = Counter()
    bulkheads.due(names)
    while bulkheads.running < MOST and (asked := bulkheads.rooms(0.0, most=500)):
        limit = min(200, MOST - bulkheads.running)
        given = [row for room in asked for row in rows(room.lane, 1, room=1)][:limit]
        bulkheads.taken(asked, given, limit=limit)
        under_way.update(row.tenant_id for row in given)
    return under_way


@pytest.mark.parametrize("known", [True, False])
def test_a_tenant_whose_many_receivers_hang_leaves_room_for_another(known: bool) -> None:
    bulkheads = Bulkheads(most=MOST)
    names = lanes("evil", 2_000)
    held = hang(bulkheads, names)["evil"]
    assert MOST / 2 <= held <= MOST * 2 / 3 + 1
    if known:  # lanes that this process remembers are no way around it
        for name in names:
            bulkheads._lanes.setdefault(name, Lane("evil", width=1))
    assert hang(bulkheads, [*names, *lanes("good", 20)]) == {"good": 20}
    bulkheads.ended(next(name for name, lane in bulkheads._lanes.items() if lane.busy), good=False, now=0.0)
    assert hang(bulkheads, names) == {}


def test_however_many_tenants_hang_there_is_room_for_the_next() -> None:
    bulkheads = Bulkheads(most=MOST)
    given = [hang(bulkheads, lanes(f"evil{number}", 2_000))[f"evil{number}"] for number in range(8)]
    assert given == sorted(given, reverse=True)
    assert given[-1] > 5
    assert hang(bulkheads, lanes("good", 3)) == {"good": 3}


def test_what_is_large_takes_more_places() -> None:
    bulkheads = Bulkheads(most=20)
    bulkheads.due(["a/large"])
    give(bulkheads, "a/large", 1, room=1)
    bulkheads.hold("a", 11)
    bulkheads.due(["a/other"])
    assert rooms(bulkheads).keys() == {"a/other"}
    bulkheads.hold("a", 2)
    bulkheads.due(["b/other"])
    assert rooms(bulkheads).keys() == {"b/other"}
    bulkheads.hold("a", -13)
    bulkheads.ended("a/large", good=True, now=0.0)
    assert bulkheads.running == 0
