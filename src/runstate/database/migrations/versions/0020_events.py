"""Events: stored ones, and a view of all with those that transitions tell."""

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, ServerSays, Timestamp, Xid8

revision = "0020"
down_revision = "0019"

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CONTINUE = """INSERT INTO sqlite_sequence (name, seq) SELECT 'transition', 0
  WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'transition')"""

VIEW = """
CREATE VIEW any_event AS
SELECT seq, xid, boot, id, name, occurred, received, follows, resource, related, payload, resource_id,
  resource_id AS stored_resource_id, {no_uuid} AS run_id, depth
FROM event
UNION ALL
SELECT t.seq, t.xid, t.boot, t.state_id,
  CASE t.run_kind WHEN 'FLOW_RUN' THEN 'runstate.flow-run.' ELSE 'runstate.task-run.' END || t.state_name,
  t.occurred, t.occurred,
  (SELECT p.state_id FROM transition p
    WHERE p.run_id = t.run_id AND p.version = t.version - 1 AND p.occurred > t.occurred - {five_minutes}),
  {object}(
    'resource_id', {own_id},
    'name', t.run_name,
    'labels', {object}(
      'runstate.state-type', t.state_type,
      'runstate.state-name', t.state_name,
      'runstate.state-message', coalesce(t.message, ''),
      'runstate.state-timestamp', {instant},
      'runstate.run-count', CAST(coalesce(t.run_count, 0) AS TEXT))),
  (SELECT {list} FROM (
    SELECT 1 AS n, '' AS tag,
      {object}('resource_id', 'runstate.flow.' || {flow_id}, 'role', 'flow', 'name',
        (SELECT f.name FROM flow f WHERE f.id = t.flow_id)) AS v
      WHERE t.flow_id IS NOT NULL
    UNION ALL SELECT 2, '',
      {object}('resource_id', 'runstate.deployment.' || {deployment_id}, 'role', 'deployment', 'name',
        (SELECT d.name FROM deployment d WHERE d.id = t.deployment_id))
      WHERE t.deployment_id IS NOT NULL
    UNION ALL SELECT 3, '',
      {object}('resource_id', 'runstate.work-queue.' || {queue_id}, 'role', 'work-queue', 'name', q.name)
      FROM flow_run r JOIN work_queue q ON q.id = r.work_queue_id WHERE r.id = t.flow_run_id
    UNION ALL SELECT 4, '',
      {object}('resource_id', 'runstate.work-pool.' || {pool_id}, 'role', 'work-pool', 'name', w.name,
        'labels', {object}('runstate.work-pool.type', w.type))
      FROM flow_run r JOIN work_queue q ON q.id = r.work_queue_id JOIN work_pool w ON w.id = q.work_pool_id
      WHERE r.id = t.flow_run_id
    UNION ALL SELECT 5, '',
      {object}('resource_id', 'runstate.flow-run.' || {flow_run_id}, 'role', 'flow-run', 'name',
        (SELECT r.name FROM flow_run r WHERE r.id = t.flow_run_id))
      WHERE t.run_kind = 'TASK_RUN' AND t.flow_run_id IS NOT NULL
    UNION ALL SELECT 6, '',
      {object}('resource_id', 'runstate.task-run.' || {task_id}, 'role', 'task-run', 'name', k.name)
      FROM flow_run r JOIN task_run k ON k.id = r.parent_task_run_id
      WHERE t.run_kind = 'FLOW_RUN' AND r.id = t.run_id
    UNION ALL SELECT 7, tags.tag, {object}('resource_id', 'runstate.tag.' || tags.tag, 'role', 'tag')
      FROM (
        SELECT value AS tag FROM {tags_t}
        UNION SELECT {each}.value FROM flow f, {tags_f} WHERE f.id = t.flow_id
        UNION SELECT {each}.value FROM deployment d, {tags_d} WHERE d.id = t.deployment_id
        UNION SELECT {each}.value FROM flow_run r JOIN task_run k ON k.id = r.parent_task_run_id, {tags_k}
          WHERE t.run_kind = 'FLOW_RUN' AND r.id = t.run_id
      ) AS tags
    UNION ALL SELECT 8, '',
      {object}('resource_id', 'runstate.' || lower({creator} ->> 'type') || '.' || ({creator} ->> 'id'),
        'role', 'creator', 'name', {creator} ->> 'display_value')
      FROM flow_run r
      WHERE t.run_kind = 'FLOW_RUN' AND r.id = t.run_id AND ({creator} ->> 'type') IN ('DEPLOYMENT', 'AUTOMATION')
        AND ({creator} ->> 'id') IS NOT NULL
    ORDER BY 1, 2
  ) AS things),
  {object}(
    'intended', {object}('from', t.previous_state_type, 'to', t.state_type),
    'initial_state', {json}(CASE WHEN t.previous_state_type IS NOT NULL THEN {object}(
      'type', t.previous_state_type, 'name', t.previous_state_name, 'message',
      (SELECT p.message FROM transition p WHERE p.run_id = t.run_id AND p.version = t.version - 1)) END),
    'validated_state', {object}('type', t.state_type, 'name', t.state_name, 'message', t.message)),
  {own_id}, {no_text}, t.run_id, {zero}
FROM transition t
"""


def _dashed(column: str) -> str:
    """Return the text of an id on SQLite, which stores ids without dashes."""
    parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    return "(" + " || '-' || ".join(f"substr({column}, {start}, {length})" for start, length in parts) + ")"


def _own(written: str) -> str:
    return f"CASE t.run_kind WHEN 'FLOW_RUN' THEN 'runstate.flow-run.' ELSE 'runstate.task-run.' END || {written}"


IDS = {
    "flow_id": "t.flow_id",
    "deployment_id": "t.deployment_id",
    "queue_id": "q.id",
    "pool_id": "w.id",
    "flow_run_id": "t.flow_run_id",
    "task_id": "k.id",
}
POSTGRESQL = {
    "no_uuid": "NULL::uuid",
    "no_text": "NULL::text",
    "zero": "0::smallint",
    "five_minutes": "interval '5 minutes'",
    "object": "jsonb_build_object",
    "json": "",
    "list": "coalesce(jsonb_agg(v), '[]'::jsonb)",
    "instant": "to_char(t.occurred AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    "own_id": _own("t.run_id::text"),
    "creator": "r.created_by",
    "each": "each",
    **{f"tags_{name}": f"jsonb_array_elements_text({name}.tags) AS each (value)" for name in "tfdk"},
    **{name: f"{column}::text" for name, column in IDS.items()},
}
SQLITE = {
    "no_uuid": "NULL",
    "no_text": "NULL",
    "zero": "0",
    "five_minutes": "300000000",
    "object": "json_object",
    "json": "json",
    "list": "json_group_array(json(v))",
    "instant": "strftime('%Y-%m-%dT%H:%M:%S', t.occurred / 1000000, 'unixepoch')"
    " || printf('.%06dZ', t.occurred % 1000000)",
    "own_id": _own(_dashed("t.run_id")),
    "creator": "r.created_by",
    "each": "each",
    **{f"tags_{name}": f"json_each({name}.tags) AS each" for name in "tfdk"},
    **{name: _dashed(column) for name, column in IDS.items()},
}


def upgrade() -> None:
    """Create the tables and the view."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "event",
        sa.Column(
            "seq",
            COUNTER,
            autoincrement=False,
            nullable=False,
            server_default=ServerSays("nextval('transition_seq_seq')"),
        ),
        sa.Column("xid", Xid8(), server_default=ServerSays("pg_current_xact_id()"), nullable=True),
        sa.Column("boot", Timestamp(), server_default=ServerSays("pg_postmaster_start_time()"), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("occurred", Timestamp(), nullable=False),
        sa.Column("received", Timestamp(), nullable=False),
        sa.Column("follows", sa.Uuid(), nullable=True),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("resource", JSON, nullable=False),
        sa.Column("related", JSON, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("depth", sa.SmallInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sa.UniqueConstraint("id", name=op.f("uq_event_id")),
    )
    op.create_index(op.f("ix_event_boot_xid"), "event", ["boot", "xid"], unique=False)
    op.create_index(op.f("ix_event_occurred"), "event", ["occurred"], unique=False)
    op.create_index(op.f("ix_event_resource_id_occurred"), "event", ["resource_id", "occurred"], unique=False)
    op.create_index(op.f("ix_event_xid"), "event", ["xid"], unique=False)
    op.create_table(
        "event_resource",
        sa.Column("event_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_seq", "place", name=op.f("pk_event_resource")),
    )
    op.create_index(
        op.f("ix_event_resource_resource_id_event_seq"), "event_resource", ["resource_id", "event_seq"], unique=False
    )
    op.add_column("transition", sa.Column("run_name", sa.Text(), nullable=True))
    op.add_column("transition", sa.Column("run_count", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_transition_occurred"), "transition", ["occurred"], unique=False)
    op.create_index(op.f("ix_transition_state_id"), "transition", ["state_id"], unique=False)
    if on_sqlite:
        op.execute(CONTINUE)
    op.get_bind().exec_driver_sql(VIEW.format(**(SQLITE if on_sqlite else POSTGRESQL)))


def downgrade() -> None:
    """Remove the view and the tables."""
    op.execute("DROP VIEW any_event")
    op.drop_index(op.f("ix_transition_state_id"), table_name="transition")
    op.drop_index(op.f("ix_transition_occurred"), table_name="transition")
    op.drop_column("transition", "run_count")
    op.drop_column("transition", "run_name")
    op.drop_table("event_resource")
    op.drop_table("event")
