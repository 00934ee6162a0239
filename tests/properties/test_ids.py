"""Identifiers sort by time, and their public form loses nothing."""

import time
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared import ids

PREFIXES = st.sampled_from(["job", "batch", "evt"])


def test_ids_made_one_after_another_grow_strictly() -> None:
    before = time.time_ns() // 1_000_000
    made = [ids.new_id() for _ in range(20_000)]
    after = time.time_ns() // 1_000_000
    assert made == sorted(set(made))
    assert [str(id_) for id_ in made] == sorted(str(id_) for id_ in made)
    assert all(id_.version == 7 for id_ in made)
    assert {id_.variant for id_ in made} == {made[0].variant} == {"specified in RFC 4122"}
    # A full millisecond borrows from the next: 2,048 at least fit into one.
    assert before <= (made[0].int >> 80)
    assert (made[-1].int >> 80) <= after + len(made) // 2_048 + 1


@given(PREFIXES, st.uuids())
def test_parse_undoes_show(prefix: ids.Prefix, id_: UUID) -> None:
    assert ids.parse(prefix, ids.show(prefix, id_)) == id_


@given(PREFIXES, PREFIXES, st.uuids())
def test_an_id_of_another_kind_is_none(prefix: ids.Prefix, other: ids.Prefix, id_: UUID) -> None:
    assert (ids.parse(other, ids.show(prefix, id_)) is None) == (other != prefix)


@given(st.text() | st.from_regex(r"job_[0-9a-fA-F-]{30,36}", fullmatch=True))
def test_what_parses_is_the_one_way_to_write_it(text: str) -> None:
    found = ids.parse("job", text)
    assert found is None or ids.show("job", found) == text


@given(st.integers(0, 2**47))
def test_the_lowest_id_of_a_millisecond_bounds_it(ms: int) -> None:
    lowest = ids.lowest_id_at(ms)
    assert (lowest.int >> 80) == ms
    assert lowest.version == 7
    assert lowest < ids.lowest_id_at(ms + 1)
