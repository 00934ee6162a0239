"""Receivers of webhooks are kept apart: what hangs or fails takes no room from others."""

from types import SimpleNamespace
from typing import Any

from shared.db.deliveries import Room
from workers.bulkheads import WIDEST, Bulkheads


def rows(lane: str, count: int, *, room: int = 10, concurrency: int = 10) -> list[Any]:
    return [SimpleNamespace(lane=lane, room=room, concurrency=concurrency) for _ in range(count)]


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
