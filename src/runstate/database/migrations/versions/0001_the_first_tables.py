"""The first tables."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import NUMERIC_JSON, ServerSays, Timestamp, Xid8

revision = "0001"
down_revision = None

TABLES = (
    "concurrency_limit",
    "counted_name",
    "flow",
    "installation",
    "proposal_answer",
    "run_tally",
    "transition",
    "transition_mark",
    "concurrency_lease",
    "deployment",
    "flow_run",
    "flow_run_input",
    "flow_run_state",
    "task_run",
    "task_run_state",
    "task_run_state_cache",
)


def _index_what_is_known(table: str, column: str) -> None:
    there = sa.text(f"{column} IS NOT NULL")
    op.create_index(f"ix_{table}_{column}", table, [column], postgresql_where=there, sqlite_where=there)


def upgrade() -> None:
    """Create all tables. Flow runs and task runs refer to each other, so PostgreSQL gets one foreign key afterwards."""
    parent_task_run = sa.ForeignKeyConstraint(
        ["parent_task_run_id"], ["task_run.id"], name="fk_flow_run_parent_task_run_id", ondelete="SET NULL"
    )
    later = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "concurrency_limit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("occupied", sa.Integer(), nullable=False),
        sa.Column("slot_decay_per_second", sa.Double(), nullable=False),
        sa.Column("drained", Timestamp(), nullable=True),
        sa.Column("average_slot_occupancy_seconds", sa.Double(), nullable=False),
        sa.CheckConstraint('"limit" >= 0', name=op.f("ck_concurrency_limit_limit_not_negative")),
        sa.CheckConstraint("occupied >= 0", name=op.f("ck_concurrency_limit_occupied_not_negative")),
        sa.CheckConstraint("slot_decay_per_second >= 0", name=op.f("ck_concurrency_limit_decay_not_negative")),
        sa.PrimaryKeyConstraint("id", name="pk_concurrency_limit"),
        sa.UniqueConstraint("name", name="uq_concurrency_limit_name"),
    )
    op.create_index("ix_concurrency_limit_created", "concurrency_limit", ["created"])
    op.create_table(
        "counted_name",
        sa.Column("state_type", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("state_type", "name", name="pk_counted_name"),
    )
    op.create_table(
        "run_tally",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("run_kind", sa.String(16), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=True),
        sa.Column("deployment_id", sa.Uuid(), nullable=True),
        sa.Column("state_type", sa.String(16), nullable=True),
        sa.Column("state_name", sa.Text(), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_run_tally"),
    )
    op.create_index("ix_run_tally_deployment_id", "run_tally", ["deployment_id"])
    op.create_index("ix_run_tally_run_kind_flow_id", "run_tally", ["run_kind", "flow_id"])
    op.create_table(
        "flow",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", NUMERIC_JSON, nullable=False),
        sa.Column("labels", NUMERIC_JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flow"),
        sa.UniqueConstraint("name", name="uq_flow_name"),
    )
    op.create_index("ix_flow_created", "flow", ["created"])
    op.create_table(
        "installation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=True),
        sa.Column("floor", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.create_table(
        "proposal_answer",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("answer", NUMERIC_JSON, nullable=False),
        sa.Column("state_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "key", name="pk_proposal_answer"),
    )
    op.create_index("ix_proposal_answer_created", "proposal_answer", ["created"])
    op.create_table(
        "transition",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("xid", Xid8(), server_default=ServerSays("pg_current_xact_id()"), nullable=True),
        sa.Column("boot", Timestamp(), server_default=ServerSays("pg_postmaster_start_time()"), nullable=True),
        sa.Column("run_kind", sa.String(16), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("state_id", sa.Uuid(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("flow_id", sa.Uuid(), nullable=True),
        sa.Column("deployment_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("occurred", Timestamp(), nullable=False),
        sa.Column("previous_state_type", sa.String(16), nullable=True),
        sa.Column("previous_state_name", sa.Text(), nullable=True),
        sa.Column("state_type", sa.String(16), nullable=False),
        sa.Column("state_name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("tags", NUMERIC_JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_transition"),
        sa.UniqueConstraint("run_id", "version", name="uq_transition_run_id_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_transition_boot_xid", "transition", ["boot", "xid"])
    op.create_index("ix_transition_xid", "transition", ["xid"])
    op.create_table(
        "transition_mark",
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("reaches", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("at", name="pk_transition_mark"),
    )
    op.create_index("ix_transition_mark_reaches", "transition_mark", ["reaches"])
    op.create_table(
        "concurrency_lease",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("expires", Timestamp(), nullable=True),
        sa.CheckConstraint("slots > 0", name=op.f("ck_concurrency_lease_slots_positive")),
        sa.ForeignKeyConstraint(
            ["limit_id"], ["concurrency_limit.id"], name="fk_concurrency_lease_limit_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_concurrency_lease"),
    )
    op.create_index("ix_concurrency_lease_created", "concurrency_lease", ["created"])
    op.create_index("ix_concurrency_lease_expires", "concurrency_lease", ["expires"])
    op.create_index("ix_concurrency_lease_limit_id", "concurrency_lease", ["limit_id"])
    op.create_index("ix_concurrency_lease_run_id", "concurrency_lease", ["run_id"])
    op.create_table(
        "deployment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("concurrency_limit_id", sa.Uuid(), nullable=True),
        sa.Column("concurrency_options", NUMERIC_JSON, nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("parameters", NUMERIC_JSON, nullable=False),
        sa.Column("tags", NUMERIC_JSON, nullable=False),
        sa.Column("work_queue_name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["concurrency_limit_id"],
            ["concurrency_limit.id"],
            name="fk_deployment_concurrency_limit_id",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name="fk_deployment_flow_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_deployment"),
        sa.UniqueConstraint("flow_id", "name", name="uq_deployment_flow_id_name"),
    )
    op.create_index("ix_deployment_concurrency_limit_id", "deployment", ["concurrency_limit_id"])
    op.create_index("ix_deployment_created", "deployment", ["created"])
    op.create_index("ix_deployment_name", "deployment", ["name"])
    op.create_table(
        "flow_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=True),
        sa.Column("parent_task_run_id", sa.Uuid(), nullable=True),
        sa.Column("parameters", NUMERIC_JSON, nullable=False),
        sa.Column("context", NUMERIC_JSON, nullable=False),
        sa.Column("policy", NUMERIC_JSON, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("infrastructure_pid", sa.Text(), nullable=True),
        sa.Column("flow_version", sa.Text(), nullable=True),
        sa.Column("work_queue_name", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", NUMERIC_JSON, nullable=False),
        sa.Column("labels", NUMERIC_JSON, nullable=False),
        sa.Column("state_id", sa.Uuid(), nullable=True),
        sa.Column("state_type", sa.String(16), nullable=True),
        sa.Column("state_name", sa.Text(), nullable=True),
        sa.Column("state_timestamp", Timestamp(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("expected_start_time", Timestamp(), nullable=True),
        sa.Column("next_scheduled_start_time", Timestamp(), nullable=True),
        sa.Column("start_time", Timestamp(), nullable=True),
        sa.Column("end_time", Timestamp(), nullable=True),
        sa.Column("total_run_time_seconds", sa.Double(), nullable=False),
        sa.CheckConstraint("run_count >= 0", name=op.f("ck_flow_run_run_count_not_negative")),
        sa.CheckConstraint("total_run_time_seconds >= 0", name=op.f("ck_flow_run_run_time_not_negative")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_flow_run_version_not_negative")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name="fk_flow_run_deployment_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name="fk_flow_run_flow_id", ondelete="CASCADE"),
        *([] if later else [parent_task_run]),
        sa.PrimaryKeyConstraint("id", name="pk_flow_run"),
        sa.UniqueConstraint("flow_id", "idempotency_key", name="uq_flow_run_flow_id_idempotency_key"),
    )
    op.create_index("ix_flow_run_created", "flow_run", ["created"])
    op.create_index("ix_flow_run_deployment_id", "flow_run", ["deployment_id"])
    _index_what_is_known("flow_run", "end_time")
    _index_what_is_known("flow_run", "expected_start_time")
    op.create_index("ix_flow_run_name", "flow_run", ["name"])
    _index_what_is_known("flow_run", "next_scheduled_start_time")
    op.create_index("ix_flow_run_parent_task_run_id", "flow_run", ["parent_task_run_id"])
    _index_what_is_known("flow_run", "start_time")
    op.create_index("ix_flow_run_state_type_start_time", "flow_run", ["state_type", "start_time"])
    if later:
        op.create_index("ix_flow_run_tags", "flow_run", ["tags"], postgresql_using="gin")
    op.create_table(
        "flow_run_input",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", NUMERIC_JSON, nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run_id"], ["flow_run.id"], name="fk_flow_run_input_flow_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_flow_run_input"),
        sa.UniqueConstraint("flow_run_id", "key", name="uq_flow_run_input_flow_run_id_key"),
    )
    op.create_index("ix_flow_run_input_created", "flow_run_input", ["created"])
    op.create_table(
        "flow_run_state",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("timestamp", Timestamp(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", NUMERIC_JSON, nullable=True),
        sa.Column("details", NUMERIC_JSON, nullable=False),
        sa.Column("persisted", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["flow_run.id"], name="fk_flow_run_state_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_flow_run_state"),
        sa.UniqueConstraint("run_id", "version", name="uq_flow_run_state_run_id_version"),
    )
    op.create_table(
        "task_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("task_key", sa.Text(), nullable=False),
        sa.Column("dynamic_key", sa.Text(), nullable=False),
        sa.Column("cache_key", sa.Text(), nullable=True),
        sa.Column("task_version", sa.Text(), nullable=True),
        sa.Column("policy", NUMERIC_JSON, nullable=False),
        sa.Column("task_inputs", NUMERIC_JSON, nullable=False),
        sa.Column("flow_run_run_count", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", NUMERIC_JSON, nullable=False),
        sa.Column("labels", NUMERIC_JSON, nullable=False),
        sa.Column("state_id", sa.Uuid(), nullable=True),
        sa.Column("state_type", sa.String(16), nullable=True),
        sa.Column("state_name", sa.Text(), nullable=True),
        sa.Column("state_timestamp", Timestamp(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("expected_start_time", Timestamp(), nullable=True),
        sa.Column("next_scheduled_start_time", Timestamp(), nullable=True),
        sa.Column("start_time", Timestamp(), nullable=True),
        sa.Column("end_time", Timestamp(), nullable=True),
        sa.Column("total_run_time_seconds", sa.Double(), nullable=False),
        sa.CheckConstraint("run_count >= 0", name=op.f("ck_task_run_run_count_not_negative")),
        sa.CheckConstraint("total_run_time_seconds >= 0", name=op.f("ck_task_run_run_time_not_negative")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_task_run_version_not_negative")),
        sa.ForeignKeyConstraint(["flow_run_id"], ["flow_run.id"], name="fk_task_run_flow_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_task_run"),
        sa.UniqueConstraint(
            "flow_run_id", "task_key", "dynamic_key", name="uq_task_run_flow_run_id_task_key_dynamic_key"
        ),
    )
    op.create_index("ix_task_run_created", "task_run", ["created"])
    _index_what_is_known("task_run", "end_time")
    _index_what_is_known("task_run", "expected_start_time")
    op.create_index("ix_task_run_name", "task_run", ["name"])
    _index_what_is_known("task_run", "next_scheduled_start_time")
    _index_what_is_known("task_run", "start_time")
    op.create_index("ix_task_run_state_type_start_time", "task_run", ["state_type", "start_time"])
    if later:
        op.create_index("ix_task_run_tags", "task_run", ["tags"], postgresql_using="gin")
    op.create_index(
        "uq_task_run_task_key_dynamic_key",
        "task_run",
        ["task_key", "dynamic_key"],
        unique=True,
        postgresql_where=sa.text("flow_run_id IS NULL"),
        sqlite_where=sa.text("flow_run_id IS NULL"),
    )
    op.create_table(
        "task_run_state",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("timestamp", Timestamp(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", NUMERIC_JSON, nullable=True),
        sa.Column("details", NUMERIC_JSON, nullable=False),
        sa.Column("persisted", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["task_run.id"], name="fk_task_run_state_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_task_run_state"),
        sa.UniqueConstraint("run_id", "version", name="uq_task_run_state_run_id_version"),
    )
    op.create_table(
        "task_run_state_cache",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("updated", Timestamp(), nullable=False),
        sa.Column("cache_key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("expires", Timestamp(), nullable=True),
        sa.Column("state_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["state_id"], ["task_run_state.id"], name="fk_task_run_state_cache_state_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task_run_state_cache"),
    )
    op.create_index("ix_task_run_state_cache_digest_created", "task_run_state_cache", ["digest", "created"])
    op.create_index("ix_task_run_state_cache_expires", "task_run_state_cache", ["expires"])
    op.create_index("ix_task_run_state_cache_state_id", "task_run_state_cache", ["state_id"])
    if later:
        op.create_foreign_key(
            "fk_flow_run_parent_task_run_id",
            "flow_run",
            "task_run",
            ["parent_task_run_id"],
            ["id"],
            ondelete="SET NULL",
        )
    installation = sa.table("installation", sa.column("id", sa.Uuid()))
    op.execute(sa.insert(installation).values(id=uuid4()))


def downgrade() -> None:
    """Drop all tables."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("fk_flow_run_parent_task_run_id", "flow_run")
    for table in reversed(TABLES):
        op.drop_table(table)
