"""Automations."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, Timestamp

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "automation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("trigger", JSON, nullable=False),
        sa.Column("actions", JSON, nullable=False),
        sa.Column("actions_on_trigger", JSON, nullable=False),
        sa.Column("actions_on_resolve", JSON, nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation")),
    )
    op.create_index(op.f("ix_automation_created"), "automation", ["created"], unique=False)
    op.create_index(op.f("ix_automation_name"), "automation", ["name"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        op.create_index(
            "ix_automation_tags_list", "automation", ["tags"], unique=False, sqlite_where=sa.text("tags <> '[]'")
        )
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("ix_automation_tags", "automation", ["tags"], unique=False, postgresql_using="gin")
    op.create_index(op.f("ix_automation_updated"), "automation", ["updated"], unique=False)
    op.create_table(
        "automation_bucket",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("automation_id", sa.Uuid(), nullable=False),
        sa.Column("trigger_id", sa.Uuid(), nullable=False),
        sa.Column("key", JSON, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("start", Timestamp(), nullable=False),
        sa.Column("end", Timestamp(), nullable=False),
        sa.Column("due", Timestamp(), nullable=True),
        sa.Column("last_event_id", sa.Uuid(), nullable=True),
        sa.Column("last_position", sa.BigInteger(), nullable=True),
        sa.Column("last_depth", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation_bucket")),
        sa.UniqueConstraint("trigger_id", "digest", name=op.f("uq_automation_bucket_trigger_id_digest")),
    )
    op.create_index(op.f("ix_automation_bucket_automation_id"), "automation_bucket", ["automation_id"], unique=False)
    op.create_index(op.f("ix_automation_bucket_due"), "automation_bucket", ["due"], unique=False)
    op.create_table(
        "automation_event_follower",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("leader_id", sa.Uuid(), nullable=False),
        sa.Column("until", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation_event_follower")),
        sa.UniqueConstraint("event_id", name=op.f("uq_automation_event_follower_event_id")),
    )
    op.create_index(
        op.f("ix_automation_event_follower_leader_id"), "automation_event_follower", ["leader_id"], unique=False
    )
    op.create_index(op.f("ix_automation_event_follower_until"), "automation_event_follower", ["until"], unique=False)
    op.create_table(
        "automation_firing",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("automation_id", sa.Uuid(), nullable=False),
        sa.Column("trigger_id", sa.Uuid(), nullable=False),
        sa.Column("fired", Timestamp(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("event_ids", JSON, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_event_id", sa.Uuid(), nullable=False),
        sa.Column("depth", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation_firing")),
    )
    op.create_index(
        op.f("ix_automation_firing_automation_id_fired"), "automation_firing", ["automation_id", "fired"], unique=False
    )
    op.create_index(op.f("ix_automation_firing_created"), "automation_firing", ["created"], unique=False)
    op.create_index(op.f("ix_automation_firing_fired"), "automation_firing", ["fired"], unique=False)
    op.create_table(
        "composite_trigger_child_firing",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("automation_id", sa.Uuid(), nullable=False),
        sa.Column("parent_trigger_id", sa.Uuid(), nullable=False),
        sa.Column("child_trigger_id", sa.Uuid(), nullable=False),
        sa.Column("fired", Timestamp(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("firing", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_composite_trigger_child_firing")),
        sa.UniqueConstraint(
            "parent_trigger_id",
            "child_trigger_id",
            name=op.f("uq_composite_trigger_child_firing_parent_trigger_id_child_trigger_id"),
        ),
    )
    op.create_index(
        op.f("ix_composite_trigger_child_firing_automation_id"),
        "composite_trigger_child_firing",
        ["automation_id"],
        unique=False,
    )
    op.create_table(
        "automation_action_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("firing_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.SmallInteger(), nullable=False),
        sa.Column("action", JSON, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt", Timestamp(), nullable=True),
        sa.Column("finished", Timestamp(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("results", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["firing_id"], ["automation_firing.id"], name=op.f("fk_automation_action_run_firing_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation_action_run")),
        sa.UniqueConstraint("firing_id", "index", name=op.f("uq_automation_action_run_firing_id_index")),
    )
    op.create_index("ix_automation_action_run_next_attempt", "automation_action_run", ["next_attempt"], unique=False)
    op.create_table(
        "automation_related_resource",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("automation_id", sa.Uuid(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("owned_by_resource", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["automation_id"],
            ["automation.id"],
            name=op.f("fk_automation_related_resource_automation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_automation_related_resource")),
        sa.UniqueConstraint(
            "automation_id", "resource_id", name=op.f("uq_automation_related_resource_automation_id_resource_id")
        ),
    )
    op.create_index(
        op.f("ix_automation_related_resource_resource_id_automation_id"),
        "automation_related_resource",
        ["resource_id", "automation_id"],
        unique=False,
    )


def downgrade() -> None:
    """Revert the change."""
    op.drop_index(
        op.f("ix_automation_related_resource_resource_id_automation_id"), table_name="automation_related_resource"
    )
    op.drop_table("automation_related_resource")
    op.drop_index("ix_automation_action_run_next_attempt", table_name="automation_action_run")
    op.drop_table("automation_action_run")
    op.drop_index(op.f("ix_composite_trigger_child_firing_automation_id"), table_name="composite_trigger_child_firing")
    op.drop_table("composite_trigger_child_firing")
    op.drop_index(op.f("ix_automation_firing_fired"), table_name="automation_firing")
    op.drop_index(op.f("ix_automation_firing_created"), table_name="automation_firing")
    op.drop_index(op.f("ix_automation_firing_automation_id_fired"), table_name="automation_firing")
    op.drop_table("automation_firing")
    op.drop_index(op.f("ix_automation_event_follower_until"), table_name="automation_event_follower")
    op.drop_index(op.f("ix_automation_event_follower_leader_id"), table_name="automation_event_follower")
    op.drop_table("automation_event_follower")
    op.drop_index(op.f("ix_automation_bucket_due"), table_name="automation_bucket")
    op.drop_index(op.f("ix_automation_bucket_automation_id"), table_name="automation_bucket")
    op.drop_table("automation_bucket")
    op.drop_index(op.f("ix_automation_updated"), table_name="automation")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_automation_tags_list", table_name="automation")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_automation_tags", table_name="automation")
    op.drop_index(op.f("ix_automation_name"), table_name="automation")
    op.drop_index(op.f("ix_automation_created"), table_name="automation")
    op.drop_table("automation")
