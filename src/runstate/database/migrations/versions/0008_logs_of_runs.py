"""Logs of runs."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import ServerSays, Timestamp, Xid8

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("logger", sa.Text(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("timestamp", Timestamp(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("task_run_id", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log")),
    )
    op.create_index(op.f("ix_log_flow_run_id_timestamp_id"), "log", ["flow_run_id", "timestamp", "id"], unique=False)
    op.create_index(
        op.f("ix_log_task_run_id_timestamp_id"),
        "log",
        ["task_run_id", "timestamp", "id"],
        unique=False,
        postgresql_where=sa.text("task_run_id IS NOT NULL"),
        sqlite_where=sa.text("task_run_id IS NOT NULL"),
    )
    op.create_index(op.f("ix_log_timestamp_id"), "log", ["timestamp", "id"], unique=False)
    op.create_table(
        "log_write",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("xid", Xid8(), server_default=ServerSays("pg_current_xact_id()"), nullable=True),
        sa.Column("boot", Timestamp(), server_default=ServerSays("pg_postmaster_start_time()"), nullable=True),
        sa.Column("written", Timestamp(), nullable=False),
        sa.Column("first_id", sa.Uuid(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_log_write")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_log_write_boot_xid"), "log_write", ["boot", "xid"], unique=False)
    op.create_index(op.f("ix_log_write_flow_run_id_seq"), "log_write", ["flow_run_id", "seq"], unique=False)
    op.create_index(op.f("ix_log_write_xid"), "log_write", ["xid"], unique=False)


def downgrade() -> None:
    """Revert the change."""
    op.drop_index(op.f("ix_log_write_xid"), table_name="log_write")
    op.drop_index(op.f("ix_log_write_flow_run_id_seq"), table_name="log_write")
    op.drop_index(op.f("ix_log_write_boot_xid"), table_name="log_write")
    op.drop_table("log_write")
    op.drop_index(op.f("ix_log_timestamp_id"), table_name="log")
    op.drop_index(op.f("ix_log_task_run_id_timestamp_id"), table_name="log")
    op.drop_index(op.f("ix_log_flow_run_id_timestamp_id"), table_name="log")
    op.drop_table("log")
