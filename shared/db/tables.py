"""The tables as SQLAlchemy Core sees them, for queries whose shape depends on the caller.

The migrations are what makes them; a test holds the two against each other.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()

_moment = DateTime(timezone=True)
_KINDS = ("input", "cached", "cache_write", "output", "reasoning")


def _tokens() -> list[Column[int]]:
    return [Column(f"{kind}_tokens", BigInteger) for kind in _KINDS]


jobs = Table(
    "jobs",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("batch_id", UUID),
    Column("batch_sequence", BigInteger),
    Column("custom_id", Text),
    Column("url", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("charged", Integer, nullable=False, server_default=text("0")),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("run_at", _moment, nullable=False),
    Column("deadline", _moment),
    Column("started_at", _moment),
    Column("claimed_at", _moment),
    Column("finished_at", _moment),
    Column("cancel_asked_at", _moment),
    Column("lease_id", UUID),
    Column("error", JSONB),
    Column("deployment", Text),
    *_tokens(),
    Column("cost_nanos", BigInteger),
    Column("metadata", JSONB, nullable=False),
    Column("webhook", JSONB),
    *(Column(f"{kind}_estimate", BigInteger, nullable=False, server_default=text("0")) for kind in ("input", "output")),
    Column("route", JSONB),
    Column("key_id", UUID),
    Column("team_id", UUID),
    Column("end_user", Text),
    Column("max_cost_nanos", BigInteger),
    Column("input_bound", BigInteger),
    Column("downgraded", Boolean, nullable=False, server_default=text("false")),
    Column("tags", ARRAY(Text)),
    Column("held_by", UUID),
    Column("put_off", Integer, nullable=False, server_default=text("0")),
    Column("waits_for", Integer),
    Column("repairs", SmallInteger, nullable=False, server_default=text("0")),
)

payloads = Table(
    "payloads",
    metadata,
    Column("job_id", UUID, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("template", LargeBinary),
)

results = Table(
    "results",
    metadata,
    Column("job_id", UUID, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", UUID, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("deployment", Text),
    Column("key_name", Text),
    Column("status", Text, nullable=False),
    Column("charged", Boolean, nullable=False),
    Column("started_at", _moment, nullable=False),
    Column("ended_at", _moment, nullable=False),
    Column("error", JSONB),
    Column("upstream_request_id", Text),
    *_tokens(),
    Column("estimated", Boolean, nullable=False, server_default=text("false")),
    Column("cost_nanos", BigInteger),
)

batches = Table(
    "batches",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("completion_window", Text),
    *(
        Column(name, Integer, nullable=False, server_default=None if name == "total" else text("0"))
        for name in ("total", "completed", "failed", "cancelled", "expired")
    ),
    Column("sequence", BigInteger, nullable=False, server_default=text("0")),
    *(Column(f"{kind}_tokens", BigInteger, nullable=False, server_default=text("0")) for kind in _KINDS),
    Column("cost_nanos", BigInteger, nullable=False, server_default=text("0")),
    Column("unpriced", Integer, nullable=False, server_default=text("0")),
    Column("metadata", JSONB, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("cancelling_at", _moment),
    Column("finished_at", _moment),
    Column("validations", Integer, nullable=False, server_default=text("0")),
    *(Column(f"{name}_file_id", UUID) for name in ("input", "output", "error")),
    *(Column(name, JSONB) for name in ("defaults", "errors", "webhook", "submitter")),
    *(Column(name, _moment) for name in ("expires_at", "in_progress_at", "validating_until", "deleted_at")),
)

deliveries = Table(
    "deliveries",
    metadata,
    *(Column(name, UUID, nullable=False, primary_key=name == "id") for name in ("id", "event_id")),
    Column("tenant_id", Text, nullable=False),
    Column("endpoint_id", UUID),
    Column("lane", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("job_id", UUID),
    Column("batch_id", UUID),
    Column("body", JSONB),
    Column("url", Text),
    Column("include_result", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_at", _moment, nullable=False, server_default=text("now()")),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("finished_at", _moment),
    Column("answer_status", Integer),
    Column("answer_error", Text),
)

files = Table(
    "files",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("storage", Text, nullable=False),
    Column("bytes", BigInteger),
    Column("lines", BigInteger),
    Column("batch_id", UUID),
    Column("holds", Text),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("expires_at", _moment),
    Column("deleted_at", _moment),
)
