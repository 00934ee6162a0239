"""Where a job may go when its target will not do."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; most jobs have one target and leave it empty."""
    op.execute("ALTER TABLE jobs ADD COLUMN route jsonb")
    op.execute(
        "CREATE INDEX jobs_elsewhere ON jobs (provider, upstream_model, id) "
        "WHERE status = 'queued' AND route IS NOT NULL"
    )


def downgrade() -> None:
    """Drop it again."""
    op.execute("ALTER TABLE jobs DROP COLUMN route")
