"""Files, batches made of them, jobs that wait for others of their batch, answers that are repaired."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A file without `bytes` is still being written. The lines of a batch's output are not stored again: such a file has a
# batch and which of its lines it holds.
FILES = """
CREATE TABLE files (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    filename text NOT NULL,
    purpose text NOT NULL,
    storage text NOT NULL CHECK (storage IN ('postgres', 'disk', 's3', 'batch')),
    bytes bigint,
    lines bigint,
    batch_id uuid,
    holds text CHECK (holds IN ('output', 'errors')),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    deleted_at timestamptz,
    CHECK ((storage = 'batch') = (batch_id IS NOT NULL)),
    CHECK ((batch_id IS NULL) = (holds IS NULL))
);
CREATE INDEX files_tenant ON files (tenant_id, id) WHERE deleted_at IS NULL;
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX files_unwritten ON files (created_at) WHERE bytes IS NULL AND storage <> 'batch';
CREATE INDEX files_deleted ON files (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE file_parts (
    file_id uuid NOT NULL,
    number integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (file_id, number)
);

CREATE TABLE dependencies (
    needs uuid NOT NULL,
    job_id uuid NOT NULL,
    tenant_id text NOT NULL,
    go_on boolean NOT NULL,
    PRIMARY KEY (needs, job_id)
);
CREATE INDEX dependencies_of ON dependencies (job_id);
"""

# `validating_until` is how long the front door that validates a batch has left to say that it still does.
BATCHES = """
ALTER TABLE batches
    ADD COLUMN input_file_id uuid,
    ADD COLUMN output_file_id uuid,
    ADD COLUMN error_file_id uuid,
    ADD COLUMN defaults jsonb,
    ADD COLUMN errors jsonb,
    ADD COLUMN webhook jsonb,
    ADD COLUMN submitter jsonb,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN in_progress_at timestamptz,
    ADD COLUMN validating_until timestamptz,
    ADD COLUMN validations integer NOT NULL DEFAULT 0,
    ADD COLUMN deleted_at timestamptz
"""

# What `waits_for` says: so many jobs of its batch have to end before; 0: none any more, it is to be let go;
# -1: it was let go, and its body has their answers, which `template` had not.
JOBS = "ALTER TABLE jobs ADD COLUMN waits_for integer, ADD COLUMN repairs smallint NOT NULL DEFAULT 0"

STATEMENTS = (
    *FILES.split(";\n"),
    BATCHES,
    "UPDATE batches SET in_progress_at = created_at",
    "CREATE INDEX batches_validating ON batches (validating_until) WHERE status = 'validating'",
    "CREATE INDEX batches_cancelling ON batches (cancelling_at) WHERE status = 'cancelling'",
    JOBS,
    "ALTER TABLE payloads ADD COLUMN template bytea",
    "CREATE INDEX jobs_ready ON jobs (id) WHERE waits_for = 0 AND status = 'queued'",
    "ALTER TABLE deliveries ALTER COLUMN job_id DROP NOT NULL, ADD COLUMN batch_id uuid",
    "ALTER TABLE deliveries ADD CONSTRAINT of_a_job_or_a_batch CHECK ((job_id IS NULL) <> (batch_id IS NULL))",
)


def upgrade() -> None:
    """Make the tables and the columns."""
    for statement in STATEMENTS:
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them again."""
    op.execute("DELETE FROM deliveries WHERE job_id IS NULL")
    op.execute("ALTER TABLE deliveries DROP COLUMN batch_id, ALTER COLUMN job_id SET NOT NULL")
    op.execute("ALTER TABLE payloads DROP COLUMN template")
    op.execute("ALTER TABLE jobs DROP COLUMN waits_for, DROP COLUMN repairs")
    for name in (
        "input_file_id", "output_file_id", "error_file_id", "defaults", "errors", "webhook", "submitter", "expires_at",
        "in_progress_at", "validating_until", "validations", "deleted_at",
    ):  # fmt: skip
        op.execute(f"ALTER TABLE batches DROP COLUMN {name}")
    for table in ("dependencies", "file_parts", "files"):
        op.execute(f"DROP TABLE {table}")
