"""The states of a job, and the one pure decision after an attempt.

             claim                     finish
  queued ───────────▶ in_progress ───────────────▶ completed | failed
    ▲                      │ │ └─ cancel asked ──▶ cancelled
    │ release, retry(at),  │ └─── deadline ──────▶ expired
    │ reroute              │
    └──────────────────────┘
  queued ── cancel ─▶ cancelled        queued ── deadline ─▶ expired
  failed, expired ── retry asked ─▶ queued

"Waiting to retry" is `queued` with a `run_at` in the future. The fence (`attempt`) grows with every claim; `charged`
counts only the attempts that used up one of the job's tries: a release and a 429 do not, an error and a lost lease do.
"""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from shared.errors import HANDLING, LONGEST_WAIT, ErrorKind, ProviderError
from shared.providers import Completion
from shared.retry import backoff
from shared.routing import NOWHERE_ELSE, Route, Target


class Status(StrEnum):
    """A job's stored and public status."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


MOST_UNCHARGED_BACKOFF = 5

_PAUSE = timedelta(milliseconds=100)
"""Time for the worker to let go of the attempt: what is due while it is still held there waits for its lease."""

TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


class Stop(StrEnum):
    """Why an attempt was ended by us and not by the provider."""

    CANCEL_ASKED = "cancel_asked"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Invalid:
    """An answer that does not fit its request's JSON schema: `words` on why, and what it said, as it is asked again.

    `answer` is None where asking again is of no use.
    """

    completion: Completion
    words: str = field(repr=False)
    answer: str | None = field(repr=False)


Outcome = Completion | Invalid | ProviderError | Stop


@dataclass(frozen=True, slots=True)
class JobState:
    """What the decision needs to know of a job.

    Tries charged and allowed, its deadline, its attempt's number, where else it may go, how many keys there are for
    its target, and how often yet an answer may be repaired.
    """

    charged: int
    max_attempts: int
    deadline: datetime | None
    attempt: int = 1
    route: Route = NOWHERE_ELSE
    keys: int = 1
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class Complete:
    """The job ends with this answer."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class Fail:
    """The job ends with this error; `retriable` says whether asking for a retry makes sense."""

    error: ProviderError
    retriable: bool


@dataclass(frozen=True, slots=True)
class Retry:
    """The job goes back to its queue until `at`; `charge` says whether this attempt used up a try.

    `repair` is the answer that the next attempt is to better.
    """

    at: datetime
    error: ProviderError
    charge: bool
    repair: Invalid | None = None


@dataclass(frozen=True, slots=True)
class Reroute:
    """The job goes to another target's queue, to its old place; `route` is where it may go from there."""

    target: Target
    route: Route
    error: ProviderError
    charge: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The job goes back to its queue, first in line, as if it had not been claimed."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The job ends because its owner asked."""


@dataclass(frozen=True, slots=True)
class Expire:
    """The job ends because its deadline passed."""


Verdict = Complete | Fail | Retry | Reroute | Release | Cancel | Expire


def after_attempt(job: JobState, outcome: Outcome, now: datetime, rng: random.Random) -> Verdict:
    """Decide what becomes of a job whose attempt ended with `outcome`. Pure: same arguments, same verdict."""
    match outcome:
        case Completion():
            return Complete(outcome)
        case Invalid():
            return _after_invalid(job, outcome, now)
        case Stop.CANCEL_ASKED:
            return Cancel()
        case Stop.DEADLINE:
            return Expire()
        case Stop.SHUTDOWN:
            return Release()
        case ProviderError():
            return _after_error(job, outcome, now, rng)
        case _:
            assert_never(outcome)


def _after_invalid(job: JobState, found: Invalid, now: datetime) -> Verdict:
    said = f"The answer does not fit the request's JSON schema: {found.words}."
    error = ProviderError(ErrorKind.INVALID_OUTPUT, said, request_id=found.completion.request_id)
    at = now + _PAUSE
    late = job.deadline is not None and at >= job.deadline
    if found.answer is None or job.repairs <= 0 or job.charged + 1 >= job.max_attempts or late:
        return Fail(error, retriable=HANDLING[error.kind].retry)
    return Retry(at, error, charge=True, repair=found)


def _after_error(job: JobState, error: ProviderError, now: datetime, rng: random.Random) -> Verdict:
    handling = HANDLING[error.kind]
    charged = job.charged + handling.charge
    here = charged - job.route.charged_before
    patient = (error.retry_after or 0.0) <= LONGEST_WAIT
    another_key = handling.other_key and job.keys > max(here, 1) and (patient or handling.news == "key")
    if charged < job.max_attempts and not another_key:
        waits = handling.retry and here < handling.tries and patient
        elsewhere = job.route.after(handling.chain, charged=charged) if handling.chain and not waits else None
        if elsewhere is not None:
            return Reroute(*elsewhere, error, charge=handling.charge)
    if charged >= job.max_attempts or not (handling.retry or another_key):
        return Fail(error, retriable=handling.retry)
    # What costs no try may happen any number of times: it backs off by the attempts, though not as far.
    failures = here if handling.charge else min(job.attempt, MOST_UNCHARGED_BACKOFF)
    at_least = 0.0 if another_key else error.retry_after or 0.0
    at = now + timedelta(seconds=backoff(max(failures, 1), rng, at_least=at_least))
    if another_key and handling.news == "key":
        at = now + _PAUSE
    if job.deadline is not None and at >= job.deadline:
        # Time ran out while the job was waiting its turn, not because its call went wrong.
        waited = error.kind in (ErrorKind.RATE_LIMITED, ErrorKind.LEASE_LOST) or now >= job.deadline
        return Expire() if waited else Fail(error, retriable=True)
    return Retry(at, error, charge=handling.charge)
