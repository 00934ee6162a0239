"""What each job is expected to use, so that a claim can tell whether its provider's limits admit it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for kind in ("input", "output"):
        op.execute(f"ALTER TABLE jobs ADD COLUMN {kind}_estimate bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Drop them again."""
    for kind in ("input", "output"):
        op.execute(f"ALTER TABLE jobs DROP COLUMN {kind}_estimate")
