"""The public JSON of a job, an attempt, a batch, an alert: what answers, events and result lines hold.

Times are RFC 3339 UTC (a batch's are Unix seconds, as OpenAI's), money is a decimal string, an unknown price is null.
"""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson

from shared import ids, pricing
from shared.lifecycle import TERMINAL


def moment(value: datetime | None) -> str | None:
    """Return RFC 3339 in UTC, e.g. `2026-11-21T05:00:00.123456Z`."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def money(nanos: int | None) -> str | None:
    """Return nano-dollars as a decimal string of dollars."""
    return None if nanos is None else pricing.usd(nanos)


def usage(row: Any) -> dict[str, Any] | None:
    """Return the tokens of a job or an attempt in OpenAI's shape, None where none are known."""
    if row.input_tokens is None:
        return None
    return {
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens or 0,
        "total_tokens": row.input_tokens + (row.output_tokens or 0),
        "prompt_tokens_details": {
            "cached_tokens": row.cached_tokens or 0,
            "cache_write_tokens": row.cache_write_tokens or 0,
        },
        "completion_tokens_details": {"reasoning_tokens": row.reasoning_tokens or 0},
    }


def job(row: Any, result: bytes | None = None) -> dict[str, Any]:
    """Return the public job of a row of `jobs`; `result` is the stored answer, embedded as it is."""
    ended = row.status in TERMINAL
    return {
        "id": ids.show("job", row.id),
        "object": "job",
        "custom_id": row.custom_id,
        "url": row.url,
        "model": row.model,
        "status": row.status,
        "priority": row.priority,
        "created_at": moment(row.created_at),
        "run_at": moment(row.run_at),
        "deadline": moment(row.deadline),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "queue": None,
        "attempts": row.attempt - row.put_off,
        "result": orjson.Fragment(result) if result is not None and row.status == "completed" else None,
        "error": row.error if ended else None,
        "provider": row.provider,
        "deployment": row.deployment,
        "usage": usage(row),
        "cost_usd": money(row.cost_nanos),
        "max_cost_usd": money(row.max_cost_nanos),
        "downgraded": row.downgraded,
        "held_by": None if row.held_by is None else ids.show("budget", row.held_by),
        "cache": "miss",
        "batch_id": None if row.batch_id is None else ids.show("batch", row.batch_id),
        "metadata": row.metadata,
    }


def attempt(row: Any) -> dict[str, Any]:
    """Return the public attempt of a row of `attempts`."""
    return {
        "object": "job.attempt",
        "number": row.number,
        "provider": row.provider,
        "deployment": row.deployment,
        "key": row.key_name,
        "status": row.status,
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
        "charged": row.charged,
        "error": row.error,
        "request_id": row.upstream_request_id,
        "usage": usage(row),
        "usage_estimated": row.estimated,
        "cost_usd": money(row.cost_nanos),
    }


def running_attempt(row: Any) -> dict[str, Any]:
    """Return the public attempt that a job in progress is at."""
    return {
        "object": "job.attempt",
        "number": row.attempt,
        "provider": row.provider,
        "deployment": None,
        "key": None,
        "status": "in_progress",
        "started_at": moment(row.claimed_at),
        "ended_at": None,
        "charged": None,
        "error": None,
        "request_id": None,
        "usage": None,
        "usage_estimated": False,
        "cost_usd": None,
    }


def batch(row: Any) -> dict[str, Any]:
    """Return the public batch of a row of `batches`, in OpenAI's shape with Sluice's counts and cost."""

    def seconds(value: datetime | None) -> int | None:
        return None if value is None else int(value.timestamp())

    def ended(*statuses: str) -> int | None:
        return seconds(row.finished_at) if row.status in statuses else None

    def file(id_: UUID | None, *, there: bool = True) -> str | None:
        return None if id_ is None or not there else ids.show("file", id_)

    return {
        "id": ids.show("batch", row.id),
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": None if row.errors is None else {"object": "list", "data": row.errors},
        "input_file_id": file(row.input_file_id),
        "completion_window": row.completion_window,
        "status": row.status,
        "output_file_id": file(row.output_file_id, there=row.in_progress_at is not None),
        "error_file_id": file(row.error_file_id, there=bool(row.failed + row.expired + row.cancelled)),
        "created_at": seconds(row.created_at),
        "in_progress_at": seconds(row.in_progress_at),
        "expires_at": seconds(row.expires_at),
        "finalizing_at": ended("completed", "expired"),
        "completed_at": ended("completed"),
        "failed_at": ended("failed"),
        "expired_at": ended("expired"),
        "cancelling_at": seconds(row.cancelling_at),
        "cancelled_at": ended("cancelled"),
        "request_counts": {
            "total": row.total,
            "completed": row.completed,
            "failed": row.failed,
            "cancelled": row.cancelled,
            "expired": row.expired,
        },
        "usage": {
            "input_tokens": row.input_tokens,
            "input_tokens_details": {"cached_tokens": row.cached_tokens, "cache_write_tokens": row.cache_write_tokens},
            "output_tokens": row.output_tokens,
            "output_tokens_details": {"reasoning_tokens": row.reasoning_tokens},
            "total_tokens": row.input_tokens + row.output_tokens,
        },
        "cost_usd": None if row.unpriced else money(row.cost_nanos),
        "max_cost_usd": money(row.max_cost_nanos),
        "metadata": row.metadata,
    }


def file(row: Any, *, size: int | None = None) -> dict[str, Any]:
    """Return the public file of a row of `files`, in OpenAI's shape; `size` where the row does not know it."""
    return {
        "id": ids.show("file", row.id),
        "object": "file",
        "bytes": row.bytes or size or 0,
        "created_at": int(row.created_at.timestamp()),
        "expires_at": None if row.expires_at is None else int(row.expires_at.timestamp()),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


_ENDED_WITHOUT_ANSWER = {
    "cancelled": ("cancelled", "The job was cancelled."),
    "expired": ("batch_expired", "The job's deadline passed before it was completed."),
}


def output_line(row: Any) -> dict[str, Any]:
    """Return an ended job of a batch as a line of OpenAI's batch output or error file."""
    response, error = None, None
    if row.status == "completed":
        response = {"status_code": 200, "request_id": ids.show("job", row.id), "body": orjson.Fragment(row.result)}
    else:
        code, message = _ENDED_WITHOUT_ANSWER.get(row.status) or (row.error["code"], row.error["message"])
        error = {"code": code, "message": message}
    return {"id": f"batch_req_{row.id.hex}", "custom_id": row.custom_id, "response": response, "error": error}


def result_line(row: Any) -> dict[str, Any]:
    """Return it with what it cost and the cursor behind it."""
    return output_line(row) | {"cost_usd": money(row.cost_nanos), "cursor": str(row.batch_sequence)}


def _line_widths() -> dict[str, int]:
    def bare(status: str) -> int:
        row = SimpleNamespace(
            id=UUID(int=0), status=status, custom_id=None, result=b"0", error={"code": "", "message": ""}
        )
        return len(orjson.dumps(output_line(row))) - len("null") + len("\n")

    quoted = len('""')
    return {
        "answered": bare("completed") - len("0"),
        "failed": bare("failed") - 2 * quoted,
        "cancelled": bare("cancelled"),
        "expired": bare("expired"),
    }


LINE_WIDTHS = _line_widths()
"""The bytes of an output line, by status, without its custom id, its answer, and its error's code and message."""


def alert(row: Any) -> dict[str, Any]:
    """Return an alert. What its channels said of it is not in it."""
    return {
        "id": ids.show("alert", row.id),
        "object": "alert",
        "at": moment(row.at),
        "kind": row.kind,
        "subject": row.subject,
        "tenant_id": row.tenant_id,
        "message": row.message,
        "fields": row.fields,
    }


def exhausted(name: str, spent: int, limit: int, period: str) -> str:
    """Return that a budget of so many nano-dollars is spent, without a full stop."""
    return f"The {name} is exhausted: {pricing.usd(spent)} of {pricing.usd(limit)} USD are spent ({period})"


def turns_at(ends_at: datetime | None) -> str:
    """Return a sentence on when a window of money turns, with a space before it; nothing where it never does."""
    return "" if ends_at is None else f" It turns at {ends_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}."
