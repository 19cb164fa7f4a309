"""States that clients report late."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

TABLES = ("flow_run_state", "task_run_state")


def upgrade() -> None:
    """Apply the change."""
    for table in TABLES:
        op.add_column(table, sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Revert the change."""
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            batch.drop_column("late")
