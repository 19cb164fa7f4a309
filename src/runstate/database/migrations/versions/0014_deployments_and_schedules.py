"""The remaining columns of deployments, their schedules and versions, and the runs of schedules."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the tables and columns. Defaults serve existing rows, and servers of the previous version."""
    op.create_table(
        "deployment_schedule",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("schedule", JSON, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("max_scheduled_runs", sa.Integer(), nullable=True),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("slug", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("next_pass", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_deployment_schedule_deployment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment_schedule")),
        sa.UniqueConstraint("deployment_id", "slug", name=op.f("uq_deployment_schedule_deployment_id_slug")),
    )
    op.create_index(op.f("ix_deployment_schedule_created"), "deployment_schedule", ["created"], unique=False)
    op.create_index(op.f("ix_deployment_schedule_next_pass"), "deployment_schedule", ["next_pass"], unique=False)
    op.create_index(op.f("ix_deployment_schedule_slug"), "deployment_schedule", ["slug"], unique=False)
    op.create_index(op.f("ix_deployment_schedule_updated"), "deployment_schedule", ["updated"], unique=False)
    op.create_table(
        "deployment_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("version_info", JSON, nullable=True),
        sa.Column("snapshot", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_deployment_version_deployment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment_version")),
    )
    op.create_index(op.f("ix_deployment_version_created"), "deployment_version", ["created"], unique=False)
    op.create_index(
        op.f("ix_deployment_version_deployment_id_id"), "deployment_version", ["deployment_id", "id"], unique=False
    )
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.add_column(sa.Column("labels", JSON, server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("entrypoint", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("path", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("pull_steps", JSON, server_default="[]", nullable=True))
        batch_op.add_column(sa.Column("parameter_schema", JSON, server_default="{}", nullable=False))
        batch_op.add_column(
            sa.Column("enforce_parameter_schema", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
        batch_op.add_column(sa.Column("job_variables", JSON, server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("version", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("version_info", JSON, nullable=True))
        batch_op.add_column(sa.Column("last_polled", Timestamp(), nullable=True))
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.add_column(sa.Column("auto_scheduled", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("created_by", JSON, nullable=True))
        batch_op.add_column(sa.Column("deployment_schedule_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("deployment_version", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("job_variables", JSON, server_default="{}", nullable=False))
        batch_op.create_foreign_key(
            batch_op.f("fk_flow_run_deployment_schedule_id"),
            "deployment_schedule",
            ["deployment_schedule_id"],
            ["id"],
            ondelete="SET NULL",
        )
    op.create_index(
        "ix_flow_run_deployment_schedule_id",
        "flow_run",
        ["deployment_schedule_id"],
        unique=False,
        postgresql_where=sa.text("deployment_schedule_id IS NOT NULL"),
        sqlite_where=sa.text("deployment_schedule_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop the tables and columns."""
    op.drop_index("ix_flow_run_deployment_schedule_id", table_name="flow_run")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_flow_run_deployment_schedule_id"), type_="foreignkey")
        batch_op.drop_column("job_variables")
        batch_op.drop_column("deployment_version")
        batch_op.drop_column("deployment_schedule_id")
        batch_op.drop_column("created_by")
        batch_op.drop_column("auto_scheduled")
    with op.batch_alter_table("deployment") as batch_op:
        batch_op.drop_column("last_polled")
        batch_op.drop_column("version_info")
        batch_op.drop_column("version")
        batch_op.drop_column("job_variables")
        batch_op.drop_column("enforce_parameter_schema")
        batch_op.drop_column("parameter_schema")
        batch_op.drop_column("pull_steps")
        batch_op.drop_column("path")
        batch_op.drop_column("entrypoint")
        batch_op.drop_column("labels")
    op.drop_index(op.f("ix_deployment_version_deployment_id_id"), table_name="deployment_version")
    op.drop_index(op.f("ix_deployment_version_created"), table_name="deployment_version")
    op.drop_table("deployment_version")
    op.drop_index(op.f("ix_deployment_schedule_updated"), table_name="deployment_schedule")
    op.drop_index(op.f("ix_deployment_schedule_slug"), table_name="deployment_schedule")
    op.drop_index(op.f("ix_deployment_schedule_next_pass"), table_name="deployment_schedule")
    op.drop_index(op.f("ix_deployment_schedule_created"), table_name="deployment_schedule")
    op.drop_table("deployment_schedule")
