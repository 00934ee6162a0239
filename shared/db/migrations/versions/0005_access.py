"""Who may do what: tenants, teams, keys and their secrets, and the log of every administrative change."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE tenants (
    id text PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz
);
CREATE UNIQUE INDEX tenants_name ON tenants (name) WHERE closed_at IS NULL;

CREATE TABLE teams (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    UNIQUE (tenant_id, id)
);
CREATE UNIQUE INDEX teams_name ON teams (tenant_id, name) WHERE closed_at IS NULL;

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants (id),
    team_id uuid,
    name text NOT NULL,
    prefix text NOT NULL,
    role text CHECK (role IN ('owner', 'admin', 'viewer')),
    scopes text[] NOT NULL CHECK (scopes <@ ARRAY['submit', 'read', 'webhooks', 'admin']),
    models text[],
    limits jsonb NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id)
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);
CREATE INDEX api_keys_team ON api_keys (team_id) WHERE team_id IS NOT NULL;

CREATE TABLE key_secrets (
    hash bytea PRIMARY KEY CHECK (length(hash) = 32),
    key_id uuid NOT NULL REFERENCES api_keys (id),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX key_secrets_key ON key_secrets (key_id);

CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    object_type text NOT NULL,
    object_id text NOT NULL,
    tenant_id text NOT NULL,
    before jsonb,
    after jsonb,
    request_id text NOT NULL
);
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id);

CREATE TABLE access_version (alone boolean PRIMARY KEY DEFAULT true CHECK (alone), number bigint NOT NULL);
INSERT INTO access_version (number) VALUES (0)
"""

# What is written there stays, whoever writes it.
APPEND_ONLY = (
    """
    CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'audit_log is append-only'; END$$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
    """,
)

# Tenants were names that nobody had to make.
PRESENT = """
INSERT INTO tenants (id, name) SELECT tenant_id, tenant_id FROM (
    SELECT 'default' AS tenant_id UNION SELECT tenant_id FROM jobs UNION SELECT tenant_id FROM batches
    UNION SELECT tenant_id FROM idempotency_keys UNION SELECT tenant_id FROM signing_secrets
) AS present
"""


def upgrade() -> None:
    """Make the tables, the tenants there are already, and the columns that say who submitted a job."""
    for statement in (*TABLES.split(";\n"), *APPEND_ONLY, PRESENT):
        op.execute(statement)
    op.execute("ALTER TABLE jobs ADD COLUMN key_id uuid, ADD COLUMN team_id uuid, ADD COLUMN end_user text")


def downgrade() -> None:
    """Drop them again."""
    op.execute("ALTER TABLE jobs DROP COLUMN key_id, DROP COLUMN team_id, DROP COLUMN end_user")
    for table in ("access_version", "audit_log", "key_secrets", "api_keys", "teams", "tenants"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION audit_log_is_append_only")
