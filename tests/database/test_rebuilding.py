"""Rebuilt tables on SQLite: rows, references, indexes and counters are unchanged."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.migrate import changing_tables
from runstate.rows import Base, FlowRunInput
from tests.migrating import downgrade, upgrade

BEFORE = "0003"
"""The last revision in which SQLite stored JSON texts that look like numbers as numbers."""
FLOW, FLOW_RUN, TASK_RUN, SUBFLOW_RUN = (f"{number:032x}" for number in range(1, 5))
RUN = {"name": "run", "tags": '["a"]', "labels": "{}", "version": 0, "run_count": 0, "total_run_time_seconds": 0.0}
OF_FLOW = {**RUN, "flow_id": FLOW, "parameters": '{"x": 1.0}', "context": "{}", "policy": "{}"}
OF_TASK = {**RUN, "task_key": "t", "dynamic_key": "0", "policy": "{}", "task_inputs": "{}", "flow_run_run_count": 0}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("flow", {"id": FLOW, "name": "etl", "tags": "[]", "labels": "{}"}),
    ("flow_run", {"id": FLOW_RUN, **OF_FLOW}),
    ("task_run", {"id": TASK_RUN, "flow_run_id": FLOW_RUN, **OF_TASK}),
    ("flow_run", {"id": SUBFLOW_RUN, "parent_task_run_id": TASK_RUN, **OF_FLOW}),
]
WRITTEN = ["5", "1.0", "0.1", "0.30000000000000004", "1e300", "12345678901234567890", '"5"', "true", "[1.0]", "{}"]
READ = [5, 1, 0.1, 0.30000000000000004, 1e300, 12345678901234567168.0, "5", True, [1.0], {}]
"""Values as SQLite stored them: 1 for 1.0, and the nearest fraction for an integer of twenty digits."""


async def insert(database: Database, table: str, **columns: Any) -> None:
    """Insert a row at an old revision, without the row classes of today."""
    names = sa.table(table, *map(sa.column, columns))
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(names).values(columns))


async def select(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement as SQLite returns them."""
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(statement))]


async def note(database: Database, version: int) -> None:
    """Insert an entry of the log."""
    own = {"run_kind": "FLOW_RUN", "run_id": FLOW_RUN, "state_id": FLOW_RUN, "tags": "[]"}
    state = {"version": version, "occurred": 0, "state_type": "RUNNING", "state_name": "Running"}
    await insert(database, "transition", **own, **state)


@pytest.fixture
async def old(blank_url: str) -> AsyncIterator[Database]:
    """Yield a database at the old revision, with rows."""
    database = Database(blank_url)
    await upgrade(database, BEFORE)
    for table, columns in ROWS:
        await insert(database, table, created=1, updated=2, **columns)
    for place, value in enumerate(WRITTEN):
        own = {"id": f"{place:032x}", "created": 1, "updated": 2}
        await insert(database, "flow_run_input", **own, flow_run_id=FLOW_RUN, key=f"key-{place}", value=value)
    yield database
    await database.close()


async def values(database: Database) -> list[Any]:
    """Return the values of inputs, oldest first."""
    async with database.read() as connection:
        return list((await connection.execute(sa.select(FlowRunInput.value).order_by(FlowRunInput.id))).scalars())


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_upgraded_json_is_text_with_the_same_value(old: Database) -> None:
    await upgrade(old)

    assert await values(old) == READ
    assert {kind for (kind,) in await select(old, "SELECT typeof(value) FROM flow_run_input")} == {"text"}
    assert await select(old, "SELECT DISTINCT parameters FROM flow_run") == [('{"x": 1.0}',)]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_downgrade_restores_the_old_tables(old: Database) -> None:
    before = await select(old, "SELECT * FROM flow_run_input ORDER BY id")
    await upgrade(old)
    await downgrade(old, BEFORE)

    assert await select(old, "SELECT * FROM flow_run_input ORDER BY id") == before


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_rows_that_reference_a_rebuilt_table_stay(old: Database) -> None:
    references = "SELECT id, flow_id, parent_task_run_id FROM flow_run ORDER BY id"
    before = await select(old, references)
    await upgrade(old)

    assert await select(old, references) == before == [(FLOW_RUN, FLOW, None), (SUBFLOW_RUN, FLOW, TASK_RUN)]
    assert await select(old, "SELECT id, flow_run_id FROM task_run") == [(TASK_RUN, FLOW_RUN)]
    assert len(await select(old, "SELECT id FROM flow_run_input")) == len(WRITTEN)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_rebuilt_tables_keep_their_indexes(old: Database) -> None:
    indexes = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    before = await select(old, indexes)
    await upgrade(old, "0004")

    assert await select(old, indexes) == before
    assert {"ix_flow_run_tags_list", "uq_task_run_task_key_dynamic_key"} <= {name for name, _ in before}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("kept", [2, 0], ids=["some are kept", "all are gone"])
async def test_the_log_does_not_reuse_a_number(old: Database, kept: int) -> None:
    for version in (1, 2, 3):
        await note(old, version)
    async with old.write() as transaction:
        await transaction.connection.execute(sa.text(f"DELETE FROM transition WHERE seq > {kept}"))  # noqa: S608
    await upgrade(old)
    await note(old, 4)

    assert await select(old, "SELECT max(seq) FROM transition") == [(4,)]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_foreign_keys_are_enforced_again_after_migrating(old: Database) -> None:
    await upgrade(old)

    with pytest.raises(sa.exc.IntegrityError):
        await insert(old, "flow_run", id=TASK_RUN, created=1, updated=2, **{**OF_FLOW, "flow_id": TASK_RUN})


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_migration_that_breaks_a_reference_is_rolled_back(old: Database) -> None:
    async with changing_tables(old) as connection:
        await connection.execute(sa.text("DELETE FROM flow"))

    with pytest.raises(RuntimeError, match="from flow_run to flow"):
        await upgrade(old)
    assert await select(old, "SELECT version_num FROM alembic_version") == [(BEFORE,)]
    assert await select(old, "SELECT typeof(value) FROM flow_run_input WHERE key = 'key-0'") == [("integer",)]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_tables_have_autoincrement_where_their_class_declares_it(database: Database) -> None:
    counting = await select(database, "SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%'")

    tables = Base.metadata.tables.values()
    assert {name for (name,) in counting} == {it.name for it in tables if it.dialect_options["sqlite"]["autoincrement"]}
