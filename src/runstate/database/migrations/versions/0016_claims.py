"""Claims, deleted dates of schedules, and indexes of scheduled and held runs."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the tables, columns and indexes."""
    op.create_table(
        "claim_answer",
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("claim_ids", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["worker.id"], name=op.f("fk_claim_answer_worker_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("worker_id", "key", name=op.f("pk_claim_answer")),
    )
    op.create_index(op.f("ix_claim_answer_created"), "claim_answer", ["created"], unique=False)
    op.create_table(
        "deleted_date",
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("date", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["deployment_schedule.id"], name=op.f("fk_deleted_date_schedule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "date", name=op.f("pk_deleted_date")),
    )
    op.create_index(op.f("ix_deleted_date_date"), "deleted_date", ["date"], unique=False)
    op.create_table(
        "run_claim",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("work_queue_id", sa.Uuid(), nullable=True),
        sa.Column("expires", Timestamp(), nullable=False),
        sa.Column("lease_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run_id"], ["flow_run.id"], name=op.f("fk_run_claim_flow_run_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["work_queue_id"], ["work_queue.id"], name=op.f("fk_run_claim_work_queue_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name=op.f("fk_run_claim_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_claim")),
        sa.UniqueConstraint("flow_run_id", name=op.f("uq_run_claim_flow_run_id")),
    )
    op.create_index(op.f("ix_run_claim_created"), "run_claim", ["created"], unique=False)
    op.create_index(op.f("ix_run_claim_expires"), "run_claim", ["expires"], unique=False)
    op.create_index(op.f("ix_run_claim_work_queue_id"), "run_claim", ["work_queue_id"], unique=False)
    op.create_index(op.f("ix_run_claim_worker_id"), "run_claim", ["worker_id"], unique=False)
    with op.batch_alter_table("deployment_schedule") as batch_op:
        batch_op.add_column(sa.Column("fault", sa.Text(), nullable=True))
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.add_column(sa.Column("claim_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("claim_count", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("expired_claims", sa.Integer(), server_default="0", nullable=False))
    op.create_index(
        "ix_flow_run_work_queue_id_id",
        "flow_run",
        ["work_queue_id", "id"],
        unique=False,
        postgresql_where=sa.text("work_queue_id IS NOT NULL"),
        sqlite_where=sa.text("work_queue_id IS NOT NULL"),
    )
    op.drop_index("ix_flow_run_work_queue_id", table_name="flow_run")
    op.create_index(
        "ix_flow_run_held",
        "flow_run",
        ["work_queue_id"],
        unique=False,
        postgresql_where=sa.text("state_type IN ('PENDING', 'RUNNING')"),
        sqlite_where=sa.text("state_type IN ('PENDING', 'RUNNING')"),
    )
    op.create_index(
        "ix_flow_run_planned",
        "flow_run",
        ["deployment_schedule_id"],
        unique=False,
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
    )
    op.create_index(
        "ix_flow_run_unstarted",
        "flow_run",
        ["deployment_id"],
        unique=False,
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
    )


def downgrade() -> None:
    """Drop the tables, columns and indexes."""
    op.create_index(
        "ix_flow_run_work_queue_id",
        "flow_run",
        ["work_queue_id"],
        unique=False,
        postgresql_where=sa.text("work_queue_id IS NOT NULL"),
        sqlite_where=sa.text("work_queue_id IS NOT NULL"),
    )
    op.drop_index("ix_flow_run_work_queue_id_id", table_name="flow_run")
    op.drop_index("ix_flow_run_unstarted", table_name="flow_run")
    op.drop_index("ix_flow_run_planned", table_name="flow_run")
    op.drop_index("ix_flow_run_held", table_name="flow_run")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.drop_column("expired_claims")
        batch_op.drop_column("claim_count")
        batch_op.drop_column("claim_id")
    with op.batch_alter_table("deployment_schedule") as batch_op:
        batch_op.drop_column("fault")
    op.drop_index(op.f("ix_run_claim_worker_id"), table_name="run_claim")
    op.drop_index(op.f("ix_run_claim_work_queue_id"), table_name="run_claim")
    op.drop_index(op.f("ix_run_claim_expires"), table_name="run_claim")
    op.drop_index(op.f("ix_run_claim_created"), table_name="run_claim")
    op.drop_table("run_claim")
    op.drop_index(op.f("ix_deleted_date_date"), table_name="deleted_date")
    op.drop_table("deleted_date")
    op.drop_index(op.f("ix_claim_answer_created"), table_name="claim_answer")
    op.drop_table("claim_answer")
