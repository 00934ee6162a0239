"""Tokens written to a provider's prompt cache, which cost more than others."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column wherever tokens are counted."""
    op.execute("ALTER TABLE jobs ADD COLUMN cache_write_tokens bigint")
    op.execute("ALTER TABLE attempts ADD COLUMN cache_write_tokens bigint")
    op.execute("ALTER TABLE batches ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Drop it again."""
    for table in ("jobs", "attempts", "batches"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN cache_write_tokens")
