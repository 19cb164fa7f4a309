"""Work pools, their queues and workers."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the tables, and the queues of deployments and runs."""
    op.create_table(
        "work_pool",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("base_job_template", JSON, nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("storage_configuration", JSON, nullable=False),
        sa.Column("online_until", Timestamp(), nullable=True),
        sa.Column("status_changed", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_pool")),
        sa.UniqueConstraint("name", name=op.f("uq_work_pool_name")),
    )
    op.create_index(op.f("ix_work_pool_created"), "work_pool", ["created"], unique=False)
    op.create_index(op.f("ix_work_pool_type"), "work_pool", ["type"], unique=False)
    op.create_table(
        "work_queue",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("work_pool_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("filter", JSON, nullable=True),
        sa.Column("last_polled", Timestamp(), nullable=True),
        sa.Column("shows_pause", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["work_pool_id"], ["work_pool.id"], name=op.f("fk_work_queue_work_pool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_queue")),
        sa.UniqueConstraint("work_pool_id", "name", name=op.f("uq_work_queue_work_pool_id_name")),
    )
    op.create_index(op.f("ix_work_queue_created"), "work_queue", ["created"], unique=False)
    op.create_index(op.f("ix_work_queue_name"), "work_queue", ["name"], unique=False)
    op.create_index(op.f("ix_work_queue_priority"), "work_queue", ["priority"], unique=False)
    op.create_table(
        "worker",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("work_pool_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_heartbeat_time", Timestamp(), nullable=False),
        sa.Column("heartbeat_interval_seconds", sa.Double(), nullable=False),
        sa.Column("reported", JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["work_pool_id"], ["work_pool.id"], name=op.f("fk_worker_work_pool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
        sa.UniqueConstraint("work_pool_id", "name", name=op.f("uq_worker_work_pool_id_name")),
    )
    op.create_index(op.f("ix_worker_last_heartbeat_time"), "worker", ["last_heartbeat_time"], unique=False)
    op.create_index(op.f("ix_worker_name"), "worker", ["name"], unique=False)
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.add_column(sa.Column("work_queue_id", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_deployment_work_queue_id"), "work_queue", ["work_queue_id"], ["id"], ondelete="SET NULL"
        )
    op.create_index(op.f("ix_deployment_work_queue_id"), "deployment", ["work_queue_id"], unique=False)
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.add_column(sa.Column("work_queue_id", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_flow_run_work_queue_id"), "work_queue", ["work_queue_id"], ["id"], ondelete="SET NULL"
        )
    op.create_index(
        "ix_flow_run_work_queue_id",
        "flow_run",
        ["work_queue_id"],
        unique=False,
        postgresql_where=sa.text("work_queue_id IS NOT NULL"),
        sqlite_where=sa.text("work_queue_id IS NOT NULL"),
    )
    op.create_index(
        "ix_flow_run_due",
        "flow_run",
        ["work_queue_id", "next_scheduled_start_time", "id"],
        unique=False,
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
    )


def downgrade() -> None:
    """Drop the tables and columns."""
    op.drop_index("ix_flow_run_due", table_name="flow_run")
    op.drop_index("ix_flow_run_work_queue_id", table_name="flow_run")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_flow_run_work_queue_id"), type_="foreignkey")
        batch_op.drop_column("work_queue_id")
    op.drop_index(op.f("ix_deployment_work_queue_id"), table_name="deployment")
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_deployment_work_queue_id"), type_="foreignkey")
        batch_op.drop_column("work_queue_id")
    op.drop_index(op.f("ix_worker_name"), table_name="worker")
    op.drop_index(op.f("ix_worker_last_heartbeat_time"), table_name="worker")
    op.drop_table("worker")
    op.drop_index(op.f("ix_work_queue_priority"), table_name="work_queue")
    op.drop_index(op.f("ix_work_queue_name"), table_name="work_queue")
    op.drop_index(op.f("ix_work_queue_created"), table_name="work_queue")
    op.drop_table("work_queue")
    op.drop_index(op.f("ix_work_pool_type"), table_name="work_pool")
    op.drop_index(op.f("ix_work_pool_created"), table_name="work_pool")
    op.drop_table("work_pool")
