"""Money: budgets and their windows, what is reserved of them, the ledger, hourly usage; callers' limits and alerts."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Who used what is part of a key of `usage_hours`: nobody is '' and the nil UUID there. `label` is '' for everything,
# `user:NAME` for one end user, `tag:K=V` for a tag, found by how it begins, hence its collation, and kept apart, since
# there may be a hundred times as many; `bucket` b holds the jobs that took from 1.25^b ms on.
TABLES = """
CREATE TABLE budgets (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    team_id uuid,
    key_id uuid,
    end_user text,
    tag text,
    model text,
    batch_id uuid,
    subject text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN batch_id IS NOT NULL THEN 'batch:' || batch_id::text WHEN key_id IS NOT NULL THEN 'key:' || key_id::text
        WHEN end_user IS NOT NULL THEN 'user:' || end_user WHEN team_id IS NOT NULL THEN 'team:' || team_id::text
        ELSE '' END) STORED,
    period text NOT NULL CHECK (period IN ('hour', 'day', 'week', 'month', 'total')),
    timezone text NOT NULL DEFAULT 'UTC',
    limit_nanos bigint NOT NULL CHECK (limit_nanos >= 0),
    hard boolean NOT NULL,
    on_exhausted text NOT NULL CHECK (on_exhausted IN ('reject', 'hold', 'downgrade')),
    downgrade_to text,
    allow_unpriced boolean NOT NULL DEFAULT false,
    thresholds integer[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    CHECK ((on_exhausted = 'downgrade') = (downgrade_to IS NOT NULL))
);
CREATE INDEX budgets_of ON budgets (tenant_id, subject) WHERE closed_at IS NULL;

CREATE TABLE budget_windows (
    id uuid PRIMARY KEY,
    budget_id uuid NOT NULL REFERENCES budgets (id),
    tenant_id text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    reserved_nanos bigint NOT NULL DEFAULT 0,
    spent_nanos bigint NOT NULL DEFAULT 0,
    opening_nanos bigint NOT NULL DEFAULT 0,
    UNIQUE (budget_id, starts_at)
) WITH (fillfactor = 50);

CREATE TABLE reservations (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    tenant_id text NOT NULL,
    nanos bigint NOT NULL,
    usual_nanos bigint NOT NULL,
    windows uuid[] NOT NULL,
    PRIMARY KEY (job_id, attempt)
);

CREATE TABLE ledger (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    number integer NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('reserve', 'settle', 'release', 'adjust')),
    nanos bigint,
    reserved_nanos bigint NOT NULL DEFAULT 0,
    windows uuid[] NOT NULL DEFAULT '{}',
    input_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    estimated boolean NOT NULL DEFAULT false,
    price_version text,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, attempt, number)
) PARTITION BY RANGE (job_id);
CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;
CREATE INDEX ledger_tenant ON ledger (tenant_id, at);

CREATE TABLE usage_hours (
    tenant_id text NOT NULL,
    hour timestamptz NOT NULL,
    team_id uuid NOT NULL,
    key_id uuid NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    label text COLLATE "C" NOT NULL,
    bucket smallint NOT NULL,
    jobs bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    cache_write_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_nanos bigint NOT NULL DEFAULT 0,
    unpriced bigint NOT NULL DEFAULT 0,
    saved_nanos bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, label, hour, model, provider, team_id, key_id, bucket)
) PARTITION BY LIST (label);
CREATE TABLE usage_hours_all PARTITION OF usage_hours FOR VALUES IN ('') WITH (fillfactor = 50);
CREATE TABLE usage_hours_labelled PARTITION OF usage_hours DEFAULT WITH (fillfactor = 50);

CREATE TABLE rate_limits (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    team_id uuid,
    end_user text,
    rpm bigint CHECK (rpm > 0),
    tpm bigint CHECK (tpm > 0),
    in_flight bigint CHECK (in_flight > 0),
    queued bigint CHECK (queued > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (team_id IS NULL OR end_user IS NULL),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id)
);
CREATE UNIQUE INDEX rate_limits_of ON rate_limits
    (tenant_id, (COALESCE(team_id, '00000000-0000-0000-0000-000000000000')), (COALESCE(end_user, '')));

CREATE TABLE alerts (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    subject text NOT NULL,
    tenant_id text,
    message text NOT NULL,
    fields jsonb NOT NULL,
    pending text[],
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    error text,
    UNIQUE (kind, subject)
);
CREATE INDEX alerts_due ON alerts (next_try_at) WHERE pending IS NULL OR pending <> '{}'
"""

APPEND_ONLY = (
    """
    CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'ledger is append-only'; END$$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()
    """,
)

# What was used before there was a ledger.
PRESENT = (
    """
    INSERT INTO ledger (job_id, attempt, number, tenant_id, kind, nanos, input_tokens, cached_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, estimated, at)
    SELECT job_id, number, 1, tenant_id, 'settle', cost_nanos, input_tokens, cached_tokens, cache_write_tokens,
        output_tokens, reasoning_tokens, estimated, ended_at
    FROM attempts WHERE input_tokens IS NOT NULL
    """,
    """
    INSERT INTO usage_hours (tenant_id, label, hour, model, provider, team_id, key_id, bucket, attempts, input_tokens,
        cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, unpriced)
    SELECT a.tenant_id, '', date_trunc('hour', a.ended_at, 'UTC'), jobs.model, a.provider,
        COALESCE(jobs.team_id, '00000000-0000-0000-0000-000000000000'),
        COALESCE(jobs.key_id, '00000000-0000-0000-0000-000000000000'), -1, count(*), sum(a.input_tokens),
        COALESCE(sum(a.cached_tokens), 0), COALESCE(sum(a.cache_write_tokens), 0), COALESCE(sum(a.output_tokens), 0),
        COALESCE(sum(a.reasoning_tokens), 0), COALESCE(sum(a.cost_nanos), 0),
        count(*) FILTER (WHERE a.cost_nanos IS NULL)
    FROM attempts a JOIN jobs ON jobs.id = a.job_id WHERE a.input_tokens IS NOT NULL GROUP BY 1, 3, 4, 5, 6, 7
    """,
    """
    INSERT INTO usage_hours (tenant_id, label, hour, model, provider, team_id, key_id, bucket, jobs, errors)
    SELECT tenant_id, '', date_trunc('hour', finished_at, 'UTC'), model, provider,
        COALESCE(team_id, '00000000-0000-0000-0000-000000000000'),
        COALESCE(key_id, '00000000-0000-0000-0000-000000000000'),
        LEAST(90, floor(ln(GREATEST(1,
            extract(epoch FROM finished_at - GREATEST(run_at, created_at)) * 1000)) / ln(1.25))),
        count(*), count(*) FILTER (WHERE status IN ('failed', 'expired'))
    FROM jobs WHERE finished_at IS NOT NULL GROUP BY 1, 3, 4, 5, 6, 7, 8
    """,
)


def upgrade() -> None:
    """Make the tables, and what jobs and batches know of money."""
    for statement in (*TABLES.split(";\n"), *APPEND_ONLY, *PRESENT):
        op.execute(statement)
    op.execute("ALTER TABLE jobs ADD COLUMN max_cost_nanos bigint, ADD COLUMN input_bound bigint")
    op.execute("ALTER TABLE jobs ADD COLUMN downgraded boolean NOT NULL DEFAULT false")
    op.execute("ALTER TABLE jobs ADD COLUMN tags text[], ADD COLUMN held_by uuid")
    op.execute("ALTER TABLE jobs ADD COLUMN put_off integer NOT NULL DEFAULT 0")
    op.execute("CREATE INDEX jobs_held ON jobs (held_by) WHERE held_by IS NOT NULL AND status = 'queued'")


def downgrade() -> None:
    """Drop them again."""
    op.execute("DROP INDEX jobs_held")
    for column in ("max_cost_nanos", "input_bound", "downgraded", "tags", "held_by", "put_off"):
        op.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    for table in ("alerts", "rate_limits", "usage_hours", "ledger", "reservations", "budget_windows", "budgets"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION ledger_is_append_only")
