"""Is there money for these jobs? Looked at just before they are stored; what is held for a call, workers decide.

A front door refuses what no worker could run: a job whose price nobody knows under a hard budget, one that costs more
than it may, one that a budget which rejects has no room for. It sees budgets as they stood a second ago. Where there is
none, a job without a limit of its own costs a look at that and nothing more.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from gateway_api import reading
from gateway_api.router import EMBEDDINGS, Router
from gateway_api.submit import IdempotencyKey, Submitter
from shared import ids, tokens
from shared.config import cost_of
from shared.db import budgets
from shared.db import engine as db
from shared.db.budgets import BudgetRow
from shared.db.jobs import NewJob
from shared.errors import ApiError, Fault, Unavailable
from shared.group_commit import Full, GroupCommit
from shared.messages import fetched
from shared.pricing import NANOS, usd
from shared.providers import Usage
from shared.public import exhausted, turns_at
from shared.routing import Target, resolve
from shared.schemas import MOST_FAULTS
from shared.serving import MESSAGES

_SECONDS = 1.0
_REFERENCES = re.compile(rb'[^\\]"(cachedContent|file_id|file_url)": ?"')
_PATIENCE = 5.0
_MOST_KEPT = 10_000
_AT_ONCE = 200
_FEW_TOKENS = 8
_LONGEST_RETRY_AFTER = 60

_BySubject = Mapping[str, Sequence[BudgetRow]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tenant's hard budgets by their subject, as they stood at a moment."""

    at: float
    budgets: _BySubject


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A job with the most that its input can be, the budgets that it spends from, and what it costs at least."""

    job: NewJob
    budgets: Sequence[BudgetRow]
    least: int | None


class Funds:
    """The budgets of tenants as one front door knows them."""

    def __init__(self, engine: db.Engine, router: Router, submitter: Submitter) -> None:
        self._engine = engine
        self._router = router
        self._submitter = submitter
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._looking: dict[str, asyncio.Task[_BySubject]] = {}
        self._looks: GroupCommit[str, _BySubject] = GroupCommit(self._ask, most=500, waiting=_MOST_KEPT)

    async def cover(
        self,
        new: Sequence[NewJob],
        key: IdempotencyKey | None,
        *,
        whole: Decimal | None = None,
        model: str = "body.model",
    ) -> list[NewJob]:
        """Return jobs of one tenant as they are to be stored: with `input_bound` where money is to be held for them.

        `whole` is what they may cost together, in USD; `model` is where a request names its model. Raises ApiError: 400
        for what nobody can price or costs more than it may, 429 where a budget has no room, 503. A repeat of what was
        accepted is let in.
        """
        at = "" if new[0].batch_id is None else "requests[{}]."
        try:
            covered, together, faults = await self.weigh(
                new, [at.format(index) for index in range(len(new))], model=model, bounded=whole is not None
            )
            if whole is not None and not faults and (fault := beyond(whole, together)):
                faults.append(fault)
            if faults:
                raise reading.refusal(faults)
        except ApiError:
            if key is None or await self._submitter.known(new[0].tenant_id, key) is None:
                raise
            return list(new)
        return covered

    async def weigh(
        self, new: Sequence[NewJob], at: Sequence[str], *, model: str = "body.model", bounded: bool
    ) -> tuple[list[NewJob], int, list[Fault]]:
        """Return jobs of one tenant as they are to be stored, what they cost together at least, and what is wrong.

        What is wrong has params that begin with a job's `at`; what they cost is known where something limits it:
        `bounded` says that something besides themselves and budgets does. Raises ApiError 429, 503.
        """
        standing = await self._standing(new[0].tenant_id)
        if not standing and not bounded and all(job.max_cost_nanos is None for job in new):
            return list(new), 0, []
        covered: list[NewJob] = []
        faults: list[Fault] = []
        together = 0
        for start in range(0, len(new), _AT_ONCE):
            group = new[start : start + _AT_ONCE]
            for weighed in await asyncio.to_thread(self._weigh, group, standing, everything=bounded):
                found = _faults(weighed, model, bounded=bounded)
                faults += [replace(one, param=f"{at[len(covered)]}{one.param}") for one in found]
                _check_room(weighed)
                together += weighed.least or 0
                covered.append(weighed.job)
            if len(faults) > MOST_FAULTS:
                break
        return covered, together, faults

    def forget(self, tenant: str) -> None:
        """Look at a tenant's budgets anew. Called after the commit of a change, which others see in a second."""
        self._kept.pop(tenant, None)
        self._looking.pop(tenant, None)

    def _weigh(self, new: Sequence[NewJob], standing: _BySubject, *, everything: bool) -> list[_Weighed]:
        return [self._weighed(job, list(_of(job, standing)), everything=everything) for job in new]

    def _weighed(self, job: NewJob, under: Sequence[BudgetRow], *, everything: bool) -> _Weighed:
        if not under and job.max_cost_nanos is None and not everything:
            return _Weighed(job, under, None)
        config, body = self._router.config, orjson.loads(job.body)
        # It may be sent elsewhere, where the same text has other tokens.
        reachable = {Target(job.provider, job.upstream_model), *self._router.targets(job.model)}
        cheaper = {resolve(one.downgrade_to, config.providers, config.models) for one in under if one.downgrade_to}
        models = {one.model for one in reachable | cheaper if one is not None}
        bound = tokens.most_input(body, models)
        output = 0 if job.url == EMBEDDINGS else min(job.output_estimate or _FEW_TOKENS, _FEW_TOKENS)
        usage = Usage(input=min(bound, job.input_estimate), output=output)
        tier = body.get("service_tier")
        least = cost_of(
            config.providers[job.provider], job.upstream_model, usage, tier if isinstance(tier, str) else None
        )
        return _Weighed(replace(job, input_bound=bound), under, least)

    async def _standing(self, tenant: str) -> _BySubject:
        kept = self._kept.get(tenant)
        if kept is not None and time.monotonic() - kept.at < _SECONDS:
            return kept.budgets
        looking = self._looking.get(tenant)
        if looking is None:
            looking = self._looking[tenant] = asyncio.create_task(self._look(tenant))
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(looking)
        except TimeoutError:
            raise Unavailable("the budgets could not be looked at in time") from None

    async def _look(self, tenant: str) -> _BySubject:
        at = time.monotonic()
        try:
            found = await self._looks.add(tenant)
        except Full:
            raise Unavailable("the front door has as many budgets to look at as it may hold") from None
        finally:
            current = self._looking.get(tenant) is asyncio.current_task()
            if current:  # else something has changed meanwhile
                del self._looking[tenant]
        if current:
            self._kept[tenant] = _Kept(at, found)
            self._kept.move_to_end(tenant)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return found

    async def _ask(self, tenants: Sequence[str]) -> list[_BySubject]:
        rows = await db.run(self._engine, lambda connection: budgets.standing(connection, tenants), alone=True)
        found: dict[str, dict[str, list[BudgetRow]]] = {tenant: {} for tenant in tenants}
        for row in rows:
            found[row.tenant_id].setdefault(row.subject, []).append(row)
        return [found[tenant] for tenant in tenants]


def beyond(whole: Decimal, together: int) -> Fault | None:
    """Return the fault of jobs that may cost `whole` USD, and cost so many nano-dollars at least, where it is more."""
    if together <= whole * NANOS:
        return None
    said = f"is less than what the jobs cost at least, {usd(together)} USD"
    return Fault("max_cost_usd", said, "max_cost_exceeded")


def _of(job: NewJob, standing: _BySubject) -> Iterator[BudgetRow]:
    """Yield the budgets that a job spends from, as `budgets.OF_JOB` has it."""
    subjects = ("", f"key:{job.key_id}", f"user:{job.end_user}", f"team:{job.team_id}")
    names = (job.model, f"{job.provider}/{job.upstream_model}")
    for row in (row for subject in subjects for row in standing.get(subject, ())):
        if (
            row.team_id in (None, job.team_id)
            and row.key_id in (None, job.key_id)
            and row.end_user in (None, job.end_user)
            and (row.tag is None or row.tag in (job.tags or ()))
            and (row.model is None or row.model in names)
        ):
            yield row


def _faults(weighed: _Weighed, model: str, *, bounded: bool) -> list[Fault]:
    """Return why nobody may run a job; `bounded` says that something besides it limits what it may cost."""
    job, most = weighed.job, weighed.job.max_cost_nanos
    if job.input_bound is None:
        return []
    if (weighed.budgets or most is not None or bounded) and (name := _referred(job)):
        said = f"{name} refers to what cannot be counted beforehand, so no budget could be kept"
        return [Fault(f"body.{name}", said, "unbounded_input")]
    if weighed.least is None:
        named = f"nobody knows what {job.provider}/{job.upstream_model} costs"
        if most is not None or bounded:
            return [Fault(model, f"{named}, so max_cost_usd cannot be kept", "unpriced_model")]
        strict = [ids.show("budget", one.id) for one in weighed.budgets if not one.allow_unpriced]
        return [Fault(model, f"{named}, so the budget {strict[0]} cannot be kept", "unpriced_model")] if strict else []
    if most is not None and weighed.least > most:
        said = f"{usd(most)} USD is less than what the job costs at least, {usd(weighed.least)} USD"
        return [Fault("max_cost_usd", said, "max_cost_exceeded")]
    return []


def _referred(job: NewJob) -> str | None:
    """Return the name in a job's body that brings in input which is not in it; in texts quotes are escaped."""
    found = _REFERENCES.search(job.body)
    if found is not None:
        return found[1].decode()
    return fetched(orjson.loads(job.body)) if job.url == MESSAGES else None


def _check_room(weighed: _Weighed) -> None:
    """Raise ApiError 429 where a budget that rejects has less left than a job costs at least."""
    now = datetime.now(UTC)
    for row in weighed.budgets:
        if row.on_exhausted != "reject" or weighed.least is None or (row.ends_at is not None and row.ends_at <= now):
            continue
        if row.limit_nanos - row.spent_nanos < weighed.least:
            raise _exhausted(row, weighed.least, now)


def _exhausted(row: Any, least: int, now: datetime) -> ApiError:
    seconds = float(_LONGEST_RETRY_AFTER) if row.ends_at is None else (row.ends_at - now).total_seconds()
    said = exhausted(f"budget {ids.show('budget', row.id)}", row.spent_nanos, row.limit_nanos, row.period)
    return ApiError(
        429,
        f"{said}, and this costs {usd(least)} USD at least.{turns_at(row.ends_at)}",
        type="insufficient_quota",
        code="insufficient_quota",
        retry_after=min(max(int(seconds) + 1, 1), _LONGEST_RETRY_AFTER),
        should_retry=False if row.ends_at is None or seconds > _LONGEST_RETRY_AFTER else None,
    )
