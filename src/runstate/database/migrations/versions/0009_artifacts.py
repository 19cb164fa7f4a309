"""Artifacts."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "artifact_collection",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("latest_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("data", JSON, nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata_", JSON, nullable=True),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("task_run_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact_collection")),
        sa.UniqueConstraint("key", name=op.f("uq_artifact_collection_key")),
    )
    op.create_index(op.f("ix_artifact_collection_created"), "artifact_collection", ["created"], unique=False)
    op.create_index(op.f("ix_artifact_collection_flow_run_id"), "artifact_collection", ["flow_run_id"], unique=False)
    op.create_index(op.f("ix_artifact_collection_task_run_id"), "artifact_collection", ["task_run_id"], unique=False)
    op.create_index(
        "ix_artifact_collection_type",
        "artifact_collection",
        ["type"],
        unique=False,
        postgresql_where=sa.text("type IS NOT NULL"),
        sqlite_where=sa.text("type IS NOT NULL"),
    )
    op.create_index(op.f("ix_artifact_collection_updated"), "artifact_collection", ["updated"], unique=False)
    op.create_table(
        "artifact",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("data", JSON, nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata_", JSON, nullable=True),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("task_run_id", sa.Uuid(), nullable=True),
        sa.Column("collection_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["collection_id"], ["artifact_collection.id"], name=op.f("fk_artifact_collection_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
    )
    op.create_index(
        op.f("ix_artifact_collection_id_created_id"), "artifact", ["collection_id", "created", "id"], unique=False
    )
    op.create_index(op.f("ix_artifact_created"), "artifact", ["created"], unique=False)
    op.create_index(op.f("ix_artifact_flow_run_id"), "artifact", ["flow_run_id"], unique=False)
    op.create_index(
        "ix_artifact_key",
        "artifact",
        ["key"],
        unique=False,
        postgresql_where=sa.text("key IS NOT NULL"),
        sqlite_where=sa.text("key IS NOT NULL"),
    )
    op.create_index(op.f("ix_artifact_task_run_id"), "artifact", ["task_run_id"], unique=False)
    op.create_index(
        "ix_artifact_type",
        "artifact",
        ["type"],
        unique=False,
        postgresql_where=sa.text("type IS NOT NULL"),
        sqlite_where=sa.text("type IS NOT NULL"),
    )
    op.create_index(op.f("ix_artifact_updated"), "artifact", ["updated"], unique=False)


def downgrade() -> None:
    """Revert the change."""
    op.drop_index(op.f("ix_artifact_updated"), table_name="artifact")
    op.drop_index("ix_artifact_type", table_name="artifact")
    op.drop_index(op.f("ix_artifact_task_run_id"), table_name="artifact")
    op.drop_index("ix_artifact_key", table_name="artifact")
    op.drop_index(op.f("ix_artifact_flow_run_id"), table_name="artifact")
    op.drop_index(op.f("ix_artifact_created"), table_name="artifact")
    op.drop_index(op.f("ix_artifact_collection_id_created_id"), table_name="artifact")
    op.drop_table("artifact")
    op.drop_index(op.f("ix_artifact_collection_updated"), table_name="artifact_collection")
    op.drop_index("ix_artifact_collection_type", table_name="artifact_collection")
    op.drop_index(op.f("ix_artifact_collection_task_run_id"), table_name="artifact_collection")
    op.drop_index(op.f("ix_artifact_collection_flow_run_id"), table_name="artifact_collection")
    op.drop_index(op.f("ix_artifact_collection_created"), table_name="artifact_collection")
    op.drop_table("artifact_collection")
