"""Events, runs and firings know the firing of an automation that led to them."""

from importlib import import_module
from typing import Any

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON

revision = "0024"
down_revision = "0023"
DROP = "DROP VIEW any_event"


def _view(*, cause: bool) -> Any:
    """Return the view of all events, with or without the firings that led to them."""
    events = import_module("runstate.database.migrations.versions.0020_events")
    names = events.SQLITE if op.get_bind().dialect.name == "sqlite" else events.POSTGRESQL
    if not cause:
        return events.VIEW.format(**names)
    return events.VIEW.format(**{**names, "zero": "t.cause"}).replace("AS run_id, depth", "AS run_id, cause")


def upgrade() -> None:
    """Add the columns and create the view anew; the number of firings before an event is no longer stored."""
    op.execute(DROP)
    with op.batch_alter_table("automation_bucket") as batch_op:
        batch_op.add_column(sa.Column("last_cause", sa.Uuid(), nullable=True))
        batch_op.drop_column("last_depth")
    with op.batch_alter_table("automation_firing") as batch_op:
        batch_op.add_column(sa.Column("root_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("cause", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("chain", JSON, server_default="[]", nullable=False))
        batch_op.drop_column("depth")
    with op.batch_alter_table("event") as batch_op:
        batch_op.add_column(sa.Column("cause", sa.Uuid(), nullable=True))
        batch_op.drop_column("depth")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.add_column(sa.Column("cause", sa.Uuid(), nullable=True))
    with op.batch_alter_table("transition", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.add_column(sa.Column("cause", sa.Uuid(), nullable=True))
    op.get_bind().exec_driver_sql(_view(cause=True))


def downgrade() -> None:
    """Remove the columns."""
    op.execute(DROP)
    with op.batch_alter_table("transition", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.drop_column("cause")
    with op.batch_alter_table("flow_run") as batch_op:
        batch_op.drop_column("cause")
    with op.batch_alter_table("event") as batch_op:
        if op.get_bind().dialect.name == "sqlite":
            batch_op.add_column(sa.Column("depth", sa.SmallInteger(), server_default=sa.text("'0'"), nullable=False))
        if op.get_bind().dialect.name == "postgresql":
            batch_op.add_column(
                sa.Column("depth", sa.SmallInteger(), server_default=sa.text("'0'::smallint"), nullable=False)
            )
        batch_op.drop_column("cause")
    with op.batch_alter_table("automation_firing") as batch_op:
        batch_op.add_column(sa.Column("depth", sa.SmallInteger(), server_default="1", nullable=False))
        batch_op.drop_column("chain")
        batch_op.drop_column("cause")
        batch_op.drop_column("root_id")
    with op.batch_alter_table("automation_bucket") as batch_op:
        batch_op.add_column(sa.Column("last_depth", sa.SmallInteger(), nullable=True))
        batch_op.drop_column("last_cause")
    op.get_bind().exec_driver_sql(_view(cause=False))
