"""Which error does what: every kind of error in every situation, cell by cell, and the table in the documentation."""

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Fail, JobState, Reroute, Retry, Verdict, after_attempt
from shared.routing import Route, Target

NOW = datetime(2026, 11, 21, tzinfo=UTC)
GENERAL, CONTEXT, CONTENT = (Target("other", name) for name in ("general", "context", "content"))
ROUTE = Route((GENERAL,), (CONTEXT,), (CONTENT,))
DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"

# What becomes of a job: it waits here ("here"), takes another key at once ("key"), goes to a fallback, or fails. The
# situations: it has nowhere else to go; its provider has a second key; it has fallbacks, at the first failure there and
# at the second.
MATRIX = {
    "rate_limited": ("here", "here", "here", "here"),
    "overloaded": ("here", "here", "here", "general"),
    "quota_exhausted": ("fail", "key", "general", "general"),
    "server_error": ("here", "here", "here", "general"),
    "timeout": ("here", "here", "general", "general"),
    "connection": ("here", "here", "general", "general"),
    "invalid_response": ("here", "here", "here", "general"),
    "invalid_output": ("here", "here", "here", "here"),
    "invalid_request": ("fail", "fail", "fail", "fail"),
    "unsupported_parameter": ("fail", "fail", "general", "general"),
    "context_too_long": ("fail", "fail", "context", "context"),
    "content_filtered": ("fail", "fail", "content", "content"),
    "invalid_key": ("fail", "key", "general", "general"),
    "model_not_found": ("fail", "fail", "general", "general"),
    "response_too_large": ("fail", "fail", "fail", "fail"),
    "insufficient_quota": ("fail", "fail", "fail", "fail"),
    "max_cost_exceeded": ("fail", "fail", "fail", "fail"),
    "unpriced_model": ("fail", "fail", "fail", "fail"),
    "dependency_failed": ("fail", "fail", "fail", "fail"),
    "lease_lost": ("here", "here", "here", "here"),
    "internal": ("here", "here", "here", "here"),
}
SITUATIONS = (
    JobState(0, 9, None),
    JobState(0, 9, None, keys=2),
    JobState(0, 9, None, route=ROUTE),
    JobState(1, 9, None, route=ROUTE),
)


def shown(verdict: Verdict) -> str:
    match verdict:
        case Reroute(target, route):
            assert target not in (*route.general, *route.context, *route.content)
            return target.model
        case Retry(at):
            return "key" if at - NOW <= timedelta(milliseconds=100) else "here"
        case Fail():
            return "fail"
    raise AssertionError(verdict)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_cell(kind: ErrorKind) -> None:
    error = ProviderError(kind, "it went wrong")
    cells = tuple(shown(after_attempt(state, error, NOW, random.Random(1))) for state in SITUATIONS)
    assert cells == MATRIX[kind.value]


@pytest.mark.parametrize("kind", ErrorKind)
def test_the_documentation_has_the_same_table(kind: ErrorKind) -> None:
    [row] = re.findall(rf"^\| `{kind.value}` \|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
    assert tuple(cell.strip() for cell in row.split("|"))[: len(SITUATIONS)] == MATRIX[kind.value]


def test_who_is_told_to_wait_for_long_goes_elsewhere_and_comes_no_further_than_its_tries() -> None:
    patient = ProviderError(ErrorKind.RATE_LIMITED, "tomorrow", retry_after=3_600)
    assert shown(after_attempt(SITUATIONS[2], patient, NOW, random.Random(1))) == "general"
    assert shown(after_attempt(SITUATIONS[0], patient, NOW, random.Random(1))) == "here"
    broken = ProviderError(ErrorKind.CONNECTION, "reset")
    assert shown(after_attempt(JobState(8, 9, None, route=ROUTE), broken, NOW, random.Random(1))) == "fail"


def test_tries_are_counted_from_where_the_job_came_to_its_target() -> None:
    broken = ProviderError(ErrorKind.SERVER_ERROR, "oops")
    route = Route((Target("third", "m"),), charged_before=2)
    assert shown(after_attempt(JobState(2, 9, None, route=route), broken, NOW, random.Random(1))) == "here"
    verdict = after_attempt(JobState(3, 9, None, route=route), broken, NOW, random.Random(1))
    assert isinstance(verdict, Reroute)
    assert verdict.route == Route(charged_before=4)


def test_each_of_several_keys_is_tried_once() -> None:
    refused = ProviderError(ErrorKind.INVALID_KEY, "no")
    cells = [
        shown(after_attempt(JobState(charged, 9, None, keys=3), refused, NOW, random.Random(1))) for charged in range(3)
    ]
    assert cells == ["key", "key", "fail"]


def test_a_route_is_stored_as_it_is() -> None:
    assert Route.of(ROUTE.stored()) == ROUTE
    assert Route.of(None) == Route()
    assert Route().stored() is None
    left = ROUTE.instead(GENERAL, Target("first", "m"), charged=1)
    assert left.general == (Target("first", "m"),)
    assert left.charged_before == 1
