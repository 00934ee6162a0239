"""The lines of a batch as jobs, one after the other, whether they come inline or from a file; what waits for what."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway_api import conversation, reading
from gateway_api.access import Caller
from gateway_api.router import Router
from shared import pipelines
from shared.batch_request import with_defaults
from shared.db.dependencies import Dependency
from shared.db.jobs import NewJob
from shared.errors import Fault

MOST_DEPENDENCIES = 500_000
"""Of one batch."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A job with those it waits for, by custom id; `at` is the param of its line."""

    at: str
    id: UUID
    custom_id: str | None
    needs: set[str]
    go_on: bool


class Lines:
    """Reads a batch's lines. A fault's param begins with what the line is called."""

    def __init__(
        self,
        batch: UUID,
        router: Router,
        caller: Caller,
        *,
        defaults: Mapping[str, Any],
        endpoint: str | None,
        strict: bool,
        expires_at: datetime | None,
        most_bytes: int,
    ) -> None:
        """Read for a batch that expires then; where it is `strict` no line may name another route than `endpoint`.

        The requests may have `most_bytes` together.
        """
        self._batch = batch
        self._router = router
        self._caller = caller
        self._defaults = defaults
        self._endpoint = endpoint
        self._strict = strict
        given = defaults.get("deadline")
        self._deadline = None if given is None else datetime.fromisoformat(given)
        self._expires_at = expires_at
        self._seen: dict[str, tuple[str, UUID]] = {}
        self._waiting: list[_Waiting] = []
        self._names: dict[str, str] = {}
        self._needs = 0
        self._bytes = 0
        self._most_bytes = most_bytes

    def read(self, line: object, at: str) -> NewJob | list[Fault]:
        """Return a line, which is called `at`, as a job, or all that is wrong with it."""
        if isinstance(line, dict):
            if self._endpoint is not None:
                if self._strict and line.get("url", self._endpoint) != self._endpoint:
                    return [Fault(f"{at}.url", f"is not the batch's endpoint, {self._endpoint}", "url_mismatch")]
                line = {"url": self._endpoint, **line}
            line = with_defaults(line, self._defaults)
            if conversation.earlier_id(line) is not None:
                said = "a line of a batch cannot go on from a response"
                return [Fault(f"{at}.body.previous_response_id", said, "unsupported_parameter")]
            reading.drop_unsupported(line, self._router)
        job = reading.new_job(line, self._router, caller=self._caller, batch=self._batch, prefix=at)
        if isinstance(job, list):
            return job
        if job.custom_id is not None:
            first, _ = self._seen.setdefault(job.custom_id, (at, job.id))
            if first != at:
                said = f"is that of {'line ' if self._strict else ''}{first} too"
                return [Fault(f"{at}.custom_id", said, "duplicate_custom_id")]
        if job.waits_for and isinstance(line, dict):
            needs = {self._names.setdefault(name, name) for name in line["depends_on"]}
            self._needs += len(needs)
            if self._needs > MOST_DEPENDENCIES:
                said = f"the jobs of a batch may wait for {MOST_DEPENDENCIES:,} others in all"
                return [Fault(f"{at}.depends_on", said, "too_many_dependencies")]
            if asked := set(pipelines.placeholders(line["body"])) - needs:
                said = f"asks for the output of {min(asked)!r}, which `depends_on` does not name"
                return [Fault(f"{at}.body", said, "unknown_dependency")]
            go_on = line.get("on_dependency_failure") == "continue"
            self._waiting.append(_Waiting(at, job.id, job.custom_id, needs, go_on))
        self._bytes += len(job.body)  # with what the defaults add to each
        if self._bytes > self._most_bytes:
            said = f"the requests have more than {self._most_bytes:,} bytes together, with the batch's defaults"
            return [Fault(f"{at}.body", said, "batch_too_large")]
        limits = [one for one in (job.deadline or self._deadline, self._expires_at) if one is not None]
        return replace(job, deadline=min(limits)) if limits else job

    def dependencies(self) -> tuple[list[Dependency], list[Fault]]:
        """Return what waits for what, all lines having been read, and what is wrong with that."""
        faults = [
            Fault(f"{one.at}.depends_on", f"no line has the custom id {name[:100]!r}", "unknown_dependency")
            for one in self._waiting
            for name in one.needs
            if name not in self._seen
        ]
        if not faults:
            named = {one.custom_id or f"\0{one.id}": one.needs for one in self._waiting}
            if found := pipelines.cycle(named):
                said = f"these wait for each other: {', '.join(repr(one[:100]) for one in found[:10])}"
                faults.append(Fault(f"{self._seen[found[0]][0]}.depends_on", said, "circular_dependency"))
        if faults:
            return [], faults
        needs = [
            Dependency(self._seen[name][1], one.id, self._caller.tenant, one.go_on)
            for one in self._waiting
            for name in one.needs
        ]
        return needs, []
