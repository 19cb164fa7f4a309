"""JSON columns are text on SQLite: columns of type JSON converted values that look like numbers."""

from json import dumps

import sqlalchemy as sa
from alembic import op

from runstate.database.migrations.types import JSON, NUMERIC_JSON

revision = "0004"
down_revision = "0003"

COLUMNS = {
    "api_key": ("scopes",),
    "deployment": ("concurrency_options", "parameters", "tags"),
    "flow": ("tags", "labels"),
    "flow_run": ("parameters", "context", "policy", "tags", "labels"),
    "flow_run_input": ("value",),
    "flow_run_state": ("data", "details"),
    "proposal_answer": ("answer",),
    "task_run": ("policy", "task_inputs", "tags", "labels"),
    "task_run_state": ("data", "details"),
    "transition": ("tags",),
}
"""JSON columns by table."""
ANY_VALUE = (("flow_run_input", "value"), ("flow_run_state", "data"), ("task_run_state", "data"))
"""Columns whose value may be a bare number."""


def upgrade() -> None:
    """Rebuild the tables with text columns, on SQLite."""
    if op.get_bind().dialect.name == "sqlite":
        fractions = [(table, column, _fractions(table, column)) for table, column in ANY_VALUE]
        _rebuild(JSON, NUMERIC_JSON)
        for table, column, found in fractions:
            _write(table, column, found)
        _prefer_tags()


def _prefer_tags() -> None:
    """Drop the indexes on tags, and create them again after all others.

    A rebuild creates indexes in any order. Without statistics, SQLite prefers the newest of equally good indexes. If it
    used another one, a search by tag and state would read all rows in the state.
    """
    for table in ("flow_run", "task_run"):
        op.drop_index(f"ix_{table}_tags_list", table)
        op.create_index(f"ix_{table}_tags_list", table, ["tags"], sqlite_where=sa.text("tags <> '[]'"))


def downgrade() -> None:
    """Rebuild the tables with the previous type, on SQLite."""
    if op.get_bind().dialect.name == "sqlite":
        _rebuild(NUMERIC_JSON, JSON)


def _rebuild(kind: sa.JSON, existing: sa.JSON) -> None:
    for table, columns in COLUMNS.items():
        counting = {"sqlite_autoincrement": True} if table == "transition" else {}
        with op.batch_alter_table(table, table_kwargs=counting) as batch:
            for column in columns:
                batch.alter_column(column, type_=kind, existing_type=existing)


def _fractions(table: str, column: str) -> list[dict[str, str]]:
    """Return the fractional numbers as text with all digits; SQLite's conversion to text would keep fifteen."""
    held = sa.table(table, sa.column("id", sa.Text()), sa.column(column, sa.Double())).c
    found = op.get_bind().execute(sa.select(held.id, held[column]).where(sa.func.typeof(held[column]) == "real"))
    return [{"row": row, "written": dumps(number)} for row, number in found]


def _write(table: str, column: str, numbers: list[dict[str, str]]) -> None:
    changed = sa.table(table, sa.column("id", sa.Text()), sa.column(column, sa.Text()))
    change = sa.update(changed).where(changed.c.id == sa.bindparam("row")).values({column: sa.bindparam("written")})
    if numbers:
        op.get_bind().execute(change, numbers)
