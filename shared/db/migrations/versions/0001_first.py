"""The first schema.

`jobs` is narrow and partitioned by its id, a UUIDv7 and hence by time: a look-up prunes to one partition and retention
drops partitions. What is big lives beside it in `payloads` and `results`, never read by a list.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BATCHES = """
CREATE TABLE batches (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    endpoint text NOT NULL,
    status text NOT NULL CHECK (status IN
        ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')),
    completion_window text,
    total integer NOT NULL,
    completed integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    cancelled integer NOT NULL DEFAULT 0,
    expired integer NOT NULL DEFAULT 0,
    sequence bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_nanos bigint NOT NULL DEFAULT 0,
    unpriced integer NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    cancelling_at timestamptz,
    finished_at timestamptz,
    CHECK (completed + failed + cancelled + expired <= total)
);
CREATE INDEX batches_tenant ON batches (tenant_id, id);
"""

JOBS = """
CREATE TABLE jobs (
    id uuid NOT NULL PRIMARY KEY,
    tenant_id text NOT NULL,
    batch_id uuid,
    batch_sequence bigint,
    custom_id text,
    url text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    upstream_model text NOT NULL,
    priority text NOT NULL CHECK (priority IN ('interactive', 'standard', 'bulk')),
    status text NOT NULL CHECK (status IN
        ('queued', 'in_progress', 'completed', 'failed', 'cancelled', 'expired')),
    attempt integer NOT NULL DEFAULT 0,
    charged integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    run_at timestamptz NOT NULL,
    deadline timestamptz,
    started_at timestamptz,
    claimed_at timestamptz,
    finished_at timestamptz,
    cancel_asked_at timestamptz,
    lease_id uuid,
    error jsonb,
    deployment text,
    input_tokens bigint,
    cached_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    cost_nanos bigint,
    metadata jsonb NOT NULL,
    webhook jsonb,
    CONSTRAINT terminal_has_end CHECK
        ((status IN ('completed', 'failed', 'cancelled', 'expired')) = (finished_at IS NOT NULL)),
    CONSTRAINT in_progress_has_lease CHECK ((status = 'in_progress') = (lease_id IS NOT NULL)),
    CONSTRAINT charged_within_attempts CHECK (charged <= attempt)
) PARTITION BY RANGE (id);
CREATE INDEX jobs_tenant ON jobs (tenant_id, id);
CREATE INDEX jobs_batch ON jobs (batch_id, batch_sequence) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (id) WHERE status = 'queued';
CREATE INDEX jobs_leased ON jobs (lease_id) WHERE lease_id IS NOT NULL;
CREATE INDEX jobs_deadline ON jobs (deadline) WHERE deadline IS NOT NULL AND finished_at IS NULL;

CREATE TABLE payloads (job_id uuid NOT NULL PRIMARY KEY, body bytea NOT NULL) PARTITION BY RANGE (job_id);
CREATE TABLE results (job_id uuid NOT NULL PRIMARY KEY, body bytea NOT NULL) PARTITION BY RANGE (job_id);

CREATE TABLE attempts (
    job_id uuid NOT NULL,
    number integer NOT NULL,
    tenant_id text NOT NULL,
    provider text NOT NULL,
    deployment text,
    key_name text,
    status text NOT NULL CHECK (status IN
        ('completed', 'failed', 'released', 'lost', 'cancelled', 'expired')),
    charged boolean NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    error jsonb,
    upstream_request_id text,
    input_tokens bigint,
    cached_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    estimated boolean NOT NULL DEFAULT false,
    cost_nanos bigint,
    PRIMARY KEY (job_id, number)
) PARTITION BY RANGE (job_id);
"""

REST = """
CREATE TABLE leases (
    id uuid PRIMARY KEY,
    worker text NOT NULL,
    provider text NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE deliveries (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    type text NOT NULL,
    url text NOT NULL,
    include_result boolean NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'exhausted', 'disabled')),
    tries integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    answer_status integer,
    answer_error text,
    CONSTRAINT ended_has_end CHECK ((status = 'pending') = (finished_at IS NULL))
);
CREATE INDEX deliveries_pending ON deliveries (next_at) WHERE status = 'pending';
CREATE INDEX deliveries_job ON deliveries (job_id);

CREATE TABLE idempotency_keys (
    tenant_id text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    object_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE signing_secrets (
    tenant_id text PRIMARY KEY,
    secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
"""

# A partition that nobody made in time is a delay in pruning, never a refused insert.
DEFAULTS = "".join(
    f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;\n"
    for table in ("jobs", "payloads", "results", "attempts")
)


def upgrade() -> None:
    """Create everything."""
    for script in (BATCHES, JOBS, REST, DEFAULTS):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)


def downgrade() -> None:
    """Drop everything."""
    for table in (
        "signing_secrets", "idempotency_keys", "deliveries", "leases",
        "attempts", "results", "payloads", "jobs", "batches",
    ):  # fmt: skip
        op.execute(f"DROP TABLE {table}")
