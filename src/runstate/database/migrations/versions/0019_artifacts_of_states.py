"""Artifacts that the data of states make."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

TABLES = ("flow_run_state", "task_run_state")


def upgrade() -> None:
    """Apply the change."""
    for table in TABLES:
        op.add_column(table, sa.Column("artifact_id", sa.Uuid(), nullable=True))
        op.create_index(
            op.f(f"ix_{table}_artifact_id"),
            table,
            ["artifact_id"],
            unique=False,
            postgresql_where=sa.text("artifact_id IS NOT NULL"),
            sqlite_where=sa.text("artifact_id IS NOT NULL"),
        )


def downgrade() -> None:
    """Revert the change."""
    for table in TABLES:
        op.drop_index(op.f(f"ix_{table}_artifact_id"), table_name=table)
        with op.batch_alter_table(table) as batch:
            batch.drop_column("artifact_id")
