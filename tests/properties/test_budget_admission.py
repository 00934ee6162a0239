"""Admission to budgets: in whatever order, nothing is held above a hard limit, and nobody waits for nobody."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.budgets import Decision, Full, Held, Need, TooLarge, Wait, Window, admit, longest_output

NANOS = st.integers(0, 10_000)
IDS = [UUID(int=number) for number in range(4)]


@st.composite
def windows(draw: st.DrawFn) -> dict[UUID, Window]:
    return {
        id_: Window(id_, id_, draw(NANOS), draw(NANOS), draw(st.integers(0, 3_000)), draw(st.booleans()))
        for id_ in IDS[: draw(st.integers(1, 4))]
    }


@st.composite
def needs(draw: st.DrawFn, known: dict[UUID, Window]) -> list[Need]:
    made = []
    for number in range(draw(st.integers(1, 12))):
        usual = draw(st.integers(0, 2_000))
        allowance = draw(st.none() | NANOS)
        of = draw(st.sets(st.sampled_from(sorted(known)), max_size=len(known)))
        most = usual + draw(NANOS)
        made.append(Need(UUID(int=100 + number), usual, most, draw(st.booleans()), tuple(sorted(of)), allowance))
    return made


def decided(data: st.DataObject) -> tuple[dict[UUID, Window], dict[UUID, int], list[Need], dict[UUID, Decision]]:
    known = data.draw(windows())
    before = {id_: window.reserved for id_, window in known.items()}
    wanted = data.draw(needs(known))
    return known, before, wanted, admit(wanted, known)


@given(st.data())
def test_what_is_held_fits_every_hard_limit(data: st.DataObject) -> None:
    known, before, wanted, found = decided(data)
    for id_, window in known.items():
        held = sum(one.nanos for need in wanted if id_ in need.windows and isinstance(one := found[need.job], Held))
        assert window.reserved == before[id_] + held
        if window.hard and held:
            assert window.spent + window.reserved <= window.limit


@given(st.data())
def test_what_is_held_is_no_more_than_the_call_can_cost_and_for_a_limited_one_all_of_it(data: st.DataObject) -> None:
    _, _, wanted, found = decided(data)
    for need in wanted:
        one = found[need.job]
        if isinstance(one, Held):
            assert min(need.usual, need.most) <= one.nanos <= need.most
            assert not need.limited or one.nanos == need.most
            assert need.allowance is None or one.nanos <= need.allowance


@given(st.data())
def test_who_waits_waits_for_something_that_is_held_and_could_be_enough(data: st.DataObject) -> None:
    known, _, wanted, found = decided(data)
    for need in wanted:
        match found[need.job]:
            case Wait(window):
                assert window.hard
                assert window.reserved > 0
                assert window.unspent >= min(need.usual, need.most)
            case TooLarge(window):
                assert window.hard
                assert window.limit < need.most
            case Full(None):
                assert need.allowance is not None
                assert need.allowance < need.most
            case Full(window):
                assert window is not None
                assert window.hard
                assert window.left < need.most
    # With nothing held and room for all of it a call goes.
    alone = {id_: Window(id_, id_, 10**9, 0, 0, window.hard) for id_, window in known.items()}
    first = wanted[0]
    if first.allowance is None or first.allowance >= first.most:
        assert isinstance(admit([first], alone)[first.job], Held)


@given(st.integers(0, 10**6), st.integers(0, 50), st.integers(0, 5_000), st.integers(0, 10**4))
def test_the_longest_answer_is_the_longest_that_can_be_paid(nanos: int, rate: int, most: int, base: int) -> None:
    found = longest_output(lambda tokens: base + rate * tokens, nanos, most)
    assert 0 <= found <= most
    assert found == 0 or base + rate * found <= nanos
    assert found == most or base + rate * (found + 1) > nanos
    assert longest_output(lambda _: None, nanos, most) == 0
