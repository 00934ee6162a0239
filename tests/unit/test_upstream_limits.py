"""The simulated provider counts its limits exactly, on a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.embedded.buckets import Limits, Refusal, duration


class Clock:
    """A clock that stands still until it is moved."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_admitted_up_to_the_burst_and_then_at_the_rate() -> None:
    clock = Clock()
    limits = Limits(rpm=600, burst=3, clock=clock)
    assert [limits.admit(10) for _ in range(3)] == [None, None, None]
    assert limits.admit(10) == Refusal("requests", pytest.approx(0.1))
    clock.now += 0.099
    assert limits.admit(10) == Refusal("requests", pytest.approx(0.001))
    clock.now += 0.001
    assert limits.admit(10) is None
    clock.now += 3_600
    assert [limits.admit(10) is None for _ in range(4)] == [True, True, True, False]


def test_a_refused_call_takes_nothing_from_either_bucket() -> None:
    clock = Clock()
    limits = Limits(rpm=60, burst=5, tpm=6_000, token_burst=300, clock=clock)
    assert limits.admit(200) is None
    for _ in range(20):
        assert limits.admit(200) == Refusal("tokens", pytest.approx(1.0))
    assert limits.headers()["x-ratelimit-remaining-requests"] == "4"
    assert limits.headers()["x-ratelimit-remaining-tokens"] == "100"
    assert [limits.admit(0) for _ in range(4)] == [None] * 4
    for _ in range(20):
        assert limits.admit(100) == Refusal("requests", pytest.approx(1.0))
    assert limits.headers()["x-ratelimit-remaining-tokens"] == "100"


def test_what_lacks_longest_is_said() -> None:
    limits = Limits(rpm=60, burst=1, tpm=60, token_burst=30, clock=Clock())
    assert limits.admit(30) is None
    assert limits.admit(1) == Refusal("requests", pytest.approx(1.0))
    assert limits.admit(2) == Refusal("tokens", pytest.approx(2.0))


def test_the_bucket_of_tokens_holds_a_second_s_worth() -> None:
    limits = Limits(tpm=6_000, clock=Clock())
    assert limits.admit(101) == Refusal("tokens", pytest.approx(0.01))
    assert limits.admit(100) is None
    assert limits.admit(1) is not None


def test_the_headers_tell_of_the_limits_there_are() -> None:
    clock = Clock()
    assert Limits(clock=clock).headers() == {}
    limits = Limits(rpm=60, burst=2, tpm=60_000, token_burst=1_500, clock=clock)
    limits.admit(700)
    clock.now += 0.25  # nothing is told but what was when the last call came
    assert limits.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "800",
        "x-ratelimit-reset-tokens": "700ms",
    }
    limits.admit(0)
    assert limits.headers()["x-ratelimit-remaining-requests"] == "0"
    assert limits.headers()["x-ratelimit-reset-requests"] == "1.75s"
    assert "x-ratelimit-limit-tokens" not in Limits(rpm=60, clock=clock).headers()


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0s"),
        (0.02, "20ms"),
        (0.0001, "1ms"),
        (0.9999, "1s"),
        (1.2, "1.2s"),
        (59.9999, "1m0s"),
        (63, "1m3s"),
        (361.5, "6m1.5s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


STEPS = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 400)), max_size=200)


@given(STEPS, st.integers(1, 20), st.integers(10, 400))
def test_no_span_of_time_admits_more_than_a_burst_and_its_rate(
    steps: list[tuple[float, int]], burst: int, token_burst: int
) -> None:
    clock = Clock()
    limits = Limits(rpm=120, burst=burst, tpm=6_000, token_burst=token_burst, clock=clock)
    admitted = []
    for pause, tokens in steps:
        clock.now += pause
        if limits.admit(tokens) is None:
            admitted.append((clock.now, tokens))
    for first, (began, _) in enumerate(admitted):
        for last in range(first, len(admitted)):
            passed = admitted[last][0] - began
            assert last - first + 1 <= burst + passed * 2 + 1e-6
            assert sum(tokens for _, tokens in admitted[first : last + 1]) <= token_burst + passed * 100 + 1e-6


@given(STEPS, st.integers(1, 20))
def test_what_waits_as_long_as_it_is_told_is_admitted(steps: list[tuple[float, int]], burst: int) -> None:
    clock = Clock()
    limits = Limits(rpm=120, burst=burst, tpm=6_000, token_burst=400, clock=clock)
    for pause, tokens in steps:
        clock.now += pause
        refusal = limits.admit(tokens)
        if refusal is not None:
            clock.now += refusal.seconds
            assert limits.admit(tokens) is None
