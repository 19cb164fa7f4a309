"""Bulk operations."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "bulk_operation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("mutation", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.Uuid(), nullable=True),
        sa.Column("has_more", sa.Boolean(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("outcomes", JSON, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_bulk_operation")),
    )
    op.create_index(op.f("ix_bulk_operation_updated"), "bulk_operation", ["updated"], unique=False)
    op.create_index(
        op.f("ix_flow_run_flow_id_expected_start_time"), "flow_run", ["flow_id", "expected_start_time"], unique=False
    )


def downgrade() -> None:
    """Revert the change."""
    op.drop_index(op.f("ix_flow_run_flow_id_expected_start_time"), table_name="flow_run")
    op.drop_index(op.f("ix_bulk_operation_updated"), table_name="bulk_operation")
    op.drop_table("bulk_operation")
