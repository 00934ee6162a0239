"""The decision after an attempt, over everything that an attempt can come to. Pure."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from shared.errors import HANDLING, ErrorKind, ProviderError
from shared.lifecycle import (
    Cancel,
    Complete,
    Expire,
    Fail,
    Invalid,
    JobState,
    Release,
    Reroute,
    Retry,
    Stop,
    Verdict,
    after_attempt,
)
from shared.providers import Completion, Usage
from shared.routing import Route, Target

NOW = datetime(2026, 11, 21, tzinfo=UTC)
INVALID = "it does not fit"
COMPLETION = Completion(body=b"{}", model="m", usage=Usage(input=1, output=1), request_id=None)

errors = st.builds(
    ProviderError,
    kind=st.sampled_from(ErrorKind),
    message=st.just("it went wrong"),
    retry_after=st.none() | st.floats(0, 3_600),
)
invalid = st.builds(Invalid, st.just(COMPLETION), words=st.just(INVALID), answer=st.none() | st.text(max_size=5))
outcomes = st.just(COMPLETION) | st.sampled_from(Stop) | errors | invalid
moments = st.timedeltas(timedelta(minutes=-5), timedelta(hours=2)).map(lambda delta: NOW + delta)
states = st.integers(1, 6).flatmap(
    lambda most: st.builds(
        JobState,
        charged=st.integers(0, most - 1),
        max_attempts=st.just(most),
        deadline=st.none() | moments,
        route=st.sampled_from([Route(), Route((Target("q", "m"),), (Target("r", "m"),), charged_before=0)]),
        keys=st.integers(1, 3),
        repairs=st.integers(-1, 2),
    )
)
rngs = st.integers().map(random.Random)


def charge(verdict: Verdict) -> int:
    """Return the tries that an attempt with this verdict uses up."""
    match verdict:
        case Retry(charge=charged) | Reroute(charge=charged):
            return int(charged)
        case Release():
            return 0
        case _:
            return 1


@given(states, outcomes, st.integers())
def test_the_same_arguments_give_the_same_verdict(job: JobState, outcome: object, seed: int) -> None:
    first, second = (after_attempt(job, outcome, NOW, random.Random(seed)) for _ in range(2))  # type: ignore[arg-type]
    assert first == second


@given(st.lists(errors, min_size=1, max_size=40), st.integers(1, 6), rngs)
def test_a_job_never_has_more_charged_tries_than_it_may(
    failures: list[ProviderError], most: int, rng: random.Random
) -> None:
    charged = 0
    for failure in failures:
        verdict = after_attempt(JobState(charged, most, None), failure, NOW, rng)
        charged += charge(verdict)
        assert charged <= most
        if not isinstance(verdict, Retry | Reroute):
            break
        assert charged < most  # there is a try left to run again with


@given(states, errors, rngs)
def test_an_error_is_final_only_where_a_retry_makes_no_sense_or_cannot_be(
    job: JobState, error: ProviderError, rng: random.Random
) -> None:
    handling = HANDLING[error.kind]
    match after_attempt(job, error, NOW, rng):
        case Fail(failure, retriable):
            assert failure is error
            assert retriable == handling.retry
            exhausted = job.charged + handling.charge >= job.max_attempts
            assert not handling.retry or exhausted or job.deadline is not None
        case Expire():
            assert handling.retry or handling.other_key
            assert job.deadline is not None
        case Retry():
            assert handling.retry or (handling.other_key and job.keys > 1)
        case Reroute(target):
            assert handling.chain is not None
            assert target == getattr(job.route, handling.chain)[0]
        case other:
            raise AssertionError(other)


@given(states, errors, rngs)
def test_a_retry_is_never_early_and_never_past_the_deadline(
    job: JobState, error: ProviderError, rng: random.Random
) -> None:
    verdict = after_attempt(job, error, NOW, rng)
    assume(isinstance(verdict, Retry))
    assert isinstance(verdict, Retry)
    other_key = HANDLING[error.kind].other_key and job.keys > 1
    assert other_key or verdict.at >= NOW + timedelta(seconds=error.retry_after or 0)
    assert verdict.at <= NOW + timedelta(seconds=(error.retry_after or 0) + 60)
    assert job.deadline is None or verdict.at < job.deadline


@given(states, errors, rngs)
def test_only_what_is_not_the_jobs_fault_is_free(job: JobState, error: ProviderError, rng: random.Random) -> None:
    verdict = after_attempt(job, error, NOW, rng)
    if isinstance(verdict, Retry | Reroute):
        assert verdict.charge == (error.kind is not ErrorKind.RATE_LIMITED)


@given(st.integers(0, 100), st.floats(0, 3_600), rngs)
def test_a_rate_limit_never_ends_a_job_without_deadline(charged: int, wait: float, rng: random.Random) -> None:
    error = ProviderError(ErrorKind.RATE_LIMITED, "slow down", retry_after=wait)
    verdict = after_attempt(JobState(charged, charged + 1, None), error, NOW, rng)
    assert isinstance(verdict, Retry)
    assert verdict.charge is False


@given(states, invalid, rngs)
def test_an_answer_that_does_not_fit_is_repaired_as_often_as_it_may_be(
    job: JobState, found: Invalid, rng: random.Random
) -> None:
    match after_attempt(job, found, NOW, rng):
        case Retry(at, error, charged, repair):
            assert (repair, charged) == (found, True)
            assert found.answer is not None
            assert job.repairs > 0
            assert job.charged + 1 < job.max_attempts
            assert NOW <= at < NOW + timedelta(seconds=1)
            assert job.deadline is None or at < job.deadline
        case Fail(error, retriable):
            assert retriable
            spent = job.repairs <= 0 or found.answer is None or job.charged + 1 == job.max_attempts
            assert spent or (job.deadline is not None and job.deadline < NOW + timedelta(seconds=1))
        case other:
            raise AssertionError(other)
    assert (error.kind, INVALID in error.message) == (ErrorKind.INVALID_OUTPUT, True)


@given(states, rngs)
def test_what_we_stopped_ourselves_ends_as_we_meant_it(job: JobState, rng: random.Random) -> None:
    assert after_attempt(job, Stop.SHUTDOWN, NOW, rng) == Release()
    assert after_attempt(job, Stop.CANCEL_ASKED, NOW, rng) == Cancel()
    assert after_attempt(job, Stop.DEADLINE, NOW, rng) == Expire()
    assert after_attempt(job, COMPLETION, NOW, rng) == Complete(COMPLETION)
