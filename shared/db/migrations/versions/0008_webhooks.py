"""Webhook endpoints, their secrets, and what became of each try to deliver an event."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A secret is sealed with a key from the environment; one without an endpoint signs what goes to addresses that jobs and
# batches name themselves. `public` is that of an ed25519 key. The values of `headers` are sealed too.
TABLES = """
CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    url text NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    event_types text[] NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    include_result boolean NOT NULL DEFAULT false,
    ordered boolean NOT NULL DEFAULT false,
    signing text NOT NULL DEFAULT 'v1' CHECK (signing IN ('v1', 'v1a')),
    rpm integer,
    concurrency integer NOT NULL DEFAULT 10,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text,
    failing_since timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant_id, id) WHERE deleted_at IS NULL;

CREATE TABLE webhook_secrets (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    endpoint_id uuid REFERENCES webhook_endpoints (id),
    kind text NOT NULL CHECK (kind IN ('v1', 'v1a')),
    sealed bytea NOT NULL,
    public bytea,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CHECK ((kind = 'v1a') = (public IS NOT NULL))
);
CREATE INDEX webhook_secrets_endpoint ON webhook_secrets (endpoint_id) WHERE endpoint_id IS NOT NULL;
CREATE UNIQUE INDEX webhook_secrets_tenant ON webhook_secrets (tenant_id) WHERE endpoint_id IS NULL;

CREATE TABLE delivery_attempts (
    delivery_id uuid NOT NULL,
    number integer NOT NULL,
    tenant_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    status integer,
    error text,
    ms integer NOT NULL,
    excerpt text,
    PRIMARY KEY (delivery_id, number)
) PARTITION BY RANGE (delivery_id);
CREATE TABLE delivery_attempts_default PARTITION OF delivery_attempts DEFAULT
"""

# A delivery is one event to one endpoint, or to the address that a job or a batch named itself (`url`). What it is
# about is a job, a batch or, of other events, `body`. `lane` is whom a slow receiver holds up: itself.
DELIVERIES = """
CREATE TABLE deliveries (
    id uuid NOT NULL PRIMARY KEY,
    event_id uuid NOT NULL,
    tenant_id text NOT NULL,
    endpoint_id uuid,
    lane text NOT NULL,
    type text NOT NULL,
    job_id uuid,
    batch_id uuid,
    body jsonb,
    url text,
    include_result boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'exhausted', 'disabled')),
    tries integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    answer_status integer,
    answer_error text,
    CONSTRAINT ended_has_end CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT of_one_thing CHECK (num_nonnulls(job_id, batch_id, body) = 1),
    CONSTRAINT to_one_place CHECK (num_nonnulls(endpoint_id, url) = 1)
) PARTITION BY RANGE (id);
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE INDEX deliveries_lane ON deliveries (lane, next_at) WHERE status = 'pending';
CREATE INDEX deliveries_due ON deliveries (next_at, lane) WHERE status = 'pending';
CREATE INDEX deliveries_exhausted ON deliveries (tenant_id, id) WHERE status = 'exhausted';
CREATE INDEX deliveries_batch ON deliveries (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX deliveries_job ON deliveries (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX deliveries_tenant ON deliveries (tenant_id, id)
"""

# As `shared.ids.new_id`, for rows that a statement makes.
NEW_ID = """
CREATE FUNCTION new_id(at timestamptz DEFAULT clock_timestamp()) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
        || overlay(substr(replace(gen_random_uuid()::text, '-', ''), 13) PLACING '7' FROM 1 FOR 1))::uuid
$$
"""

# The lane of an address that a job or a batch names: all of a host's ports and paths, short enough for an index.
LANE_OF = """
CREATE FUNCTION lane_of(tenant text, url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT tenant || '/' || left(lower(COALESCE(substring(url FROM '^[A-Za-z]+://([^/?#]+)'), '')), 200)
$$
"""

MOVED = """
INSERT INTO deliveries (id, event_id, tenant_id, lane, type, job_id, batch_id, url, include_result, status, tries,
    next_at, created_at, finished_at, answer_status, answer_error)
SELECT id, id, tenant_id, lane_of(tenant_id, url), type, job_id, batch_id, url, include_result,
    status, tries, next_at, created_at, finished_at, answer_status, answer_error
FROM old_deliveries
"""


def upgrade() -> None:
    """Make the tables; deliveries are partitioned from here on."""
    op.execute("ALTER TABLE deliveries RENAME TO old_deliveries")
    for name in ("deliveries_pkey", "deliveries_pending", "deliveries_job"):
        op.execute(f"ALTER INDEX {name} RENAME TO old_{name}")
    # The only hosts that jobs and batches may name in a webhook; null: any.
    op.execute("ALTER TABLE tenants ADD COLUMN webhook_hosts text[]")
    for statement in (*TABLES.split(";\n"), *DELIVERIES.split(";\n"), NEW_ID, LANE_OF, MOVED):
        op.execute(statement)
    op.execute("DROP TABLE old_deliveries")


def downgrade() -> None:
    """Not possible: the secrets are sealed."""
    raise NotImplementedError
