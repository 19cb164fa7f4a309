"""Waiting and heartbeats."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "heartbeat",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("heard", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_heartbeat")),
    )
    op.create_table(
        "concurrency_waiter",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("run_kind", sa.String(16), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run_id"], ["flow_run.id"], name=op.f("fk_concurrency_waiter_flow_run_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["limit_id"], ["concurrency_limit.id"], name=op.f("fk_concurrency_waiter_limit_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_concurrency_waiter")),
        sa.UniqueConstraint("run_id", "limit_id", name=op.f("uq_concurrency_waiter_run_id_limit_id")),
    )
    op.create_index(
        op.f("ix_concurrency_waiter_limit_id_created"), "concurrency_waiter", ["limit_id", "created"], unique=False
    )
    op.create_index(op.f("ix_concurrency_waiter_flow_run_id"), "concurrency_waiter", ["flow_run_id"], unique=False)
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.add_column(sa.Column("heartbeat_seconds", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("last_answer", JSON, nullable=True))
    with op.batch_alter_table("flow_run_state") as batch_op:
        batch_op.add_column(sa.Column("decision_record", JSON, nullable=True))
    with op.batch_alter_table("task_run") as batch_op:
        batch_op.add_column(sa.Column("heartbeat_seconds", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("last_answer", JSON, nullable=True))
    with op.batch_alter_table("task_run_state") as batch_op:
        batch_op.add_column(sa.Column("decision_record", JSON, nullable=True))


def downgrade() -> None:
    """Revert the change."""
    with op.batch_alter_table("task_run_state") as batch_op:
        batch_op.drop_column("decision_record")
    with op.batch_alter_table("task_run") as batch_op:
        batch_op.drop_column("last_answer")
        batch_op.drop_column("heartbeat_seconds")
    with op.batch_alter_table("flow_run_state") as batch_op:
        batch_op.drop_column("decision_record")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.drop_column("last_answer")
        batch_op.drop_column("heartbeat_seconds")
    op.drop_index(op.f("ix_concurrency_waiter_flow_run_id"), table_name="concurrency_waiter")
    op.drop_index(op.f("ix_concurrency_waiter_limit_id_created"), table_name="concurrency_waiter")
    op.drop_table("concurrency_waiter")
    op.drop_table("heartbeat")
