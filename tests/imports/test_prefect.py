"""Imports of databases of Prefect: what arrives, that it arrives once, and what is left alone."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.checks.secrets import verify_secrets
from runstate.core.checks.verify import verify
from runstate.core.commands.block_documents import about
from runstate.core.keyring import Keyring
from runstate.core.commands.scheduling import key_of
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.documents.states import StateType
from runstate.errors import ConfigurationError
from runstate.imports.facts import facts_of
from runstate.imports.importer import Importer
from runstate.imports.prefect import import_all
from runstate.imports.report import Report
from runstate.imports.source import opened
from runstate.rows import (
    Artifact,
    Automation,
    AutomationRelatedResource,
    Base,
    BlockDocument,
    ConcurrencyLease,
    ConcurrencyLimit,
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    FlowRunState,
    Log,
    RunTally,
    StoredEvent,
    TaskRun,
    Transition,
    row_classes,
)
from tests.databases import postgresql_database
from tests.imports.reference import THEN, Filled, Reference, at, filled
from tests.services.factories import NOW, Making

KEYRING = Keyring([b"k" * 32])
VOLATILE = {"ciphertext"}
"""Columns that are random."""


@pytest.fixture
def source() -> Filled:
    return filled()


@pytest.fixture
def file(source: Filled, tmp_path: Path) -> str:
    return source.reference.to_sqlite(tmp_path / "prefect.db")


async def bring(url: str, target: Database | None, key: str | None = None, **options: Any) -> Report:
    """Import a database; return the report."""
    async with opened(url) as source:
        facts = await facts_of(source, key)
        return await import_all(Importer(source, target, facts, KEYRING, NOW, **options))


async def dump(database: Database) -> dict[str, list[str]]:
    """Return all rows of the tables that an import writes, by table."""
    found = {}
    async with database.read() as connection:
        for row in row_classes():
            if row not in {RunTally, StoredEvent, AutomationRelatedResource}:
                columns = [each for each in table_of(row).c if each.name not in VOLATILE]
                found[table_of(row).name] = sorted(str(tuple(each)) for each in await connection.execute(sa.select(*columns)))
    return found


async def rows(database: Database, row: type[Base], **columns: Any) -> list[Any]:
    """Return the rows with these values."""
    table = table_of(row)
    where = [table.c[name] == value for name, value in columns.items()]
    async with database.read() as connection:
        return [row.of(each._mapping) for each in await connection.execute(sa.select(table).where(*where))]  # type: ignore[arg-type] # noqa: SLF001


async def only(database: Database, row: type[Base], **columns: Any) -> Any:
    """Return the only row with these values."""
    (found,) = await rows(database, row, **columns)
    return found


async def test_everything_arrives_and_is_consistent(database: Database, source: Filled, file: str) -> None:
    report = await bring(file, database)

    left = {name: each.found - each.imported for name, each in report.tables.items() if each.found != each.imported}
    assert left == {"artifact": 1, "automation": 1, "concurrency_limit": 1, "task_run_state_cache": 1}
    assert await verify(database, NOW) == []
    assert await verify_secrets(database, KEYRING) == []


async def test_a_run_has_its_history_with_versions(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    run = await only(database, FlowRun, id=source.ids["run"])
    history = sorted(await rows(database, FlowRunState, run_id=run.id), key=lambda each: each.version)
    assert [(each.version, each.type.value) for each in history] == [
        (1, "SCHEDULED"),
        (2, "PENDING"),
        (3, "RUNNING"),
        (4, "COMPLETED"),
    ]
    assert (run.version, run.state_id, run.state_type) == (4, history[-1].id, StateType.COMPLETED)
    assert (history[-1].data, history[-1].persisted, history[-1].actor) == ({"storage_key": "k"}, True, "service:import")
    assert (run.total_run_time_seconds, run.run_count, run.end_time) == (1.5, 1, at(seconds=3))
    assert (run.policy.retries, run.policy.retry_delay_seconds, run.policy.pause_keys) == (2, 5.0, ("a", "b"))


async def test_unusual_histories_are_made_consistent(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    back = await only(database, FlowRun, id=source.ids["going back"])
    assert (back.state_type, back.version, back.state_timestamp) == (StateType.CRASHED, 3, at(seconds=1))
    lost = await only(database, FlowRun, id=source.ids["without history"])
    assert (lost.state_type, lost.version, lost.deployment_id) == (StateType.COMPLETED, 1, None)
    none = await only(database, FlowRun, id=source.ids["without state"])
    assert (none.state_type, none.version) == (None, 0)
    keys = {each.dynamic_key for each in await rows(database, TaskRun, flow_run_id=None)}
    assert keys == {"same", f"same-{source.ids['background']}"}


async def test_a_subflow_run_belongs_to_its_task_run(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    assert (await only(database, FlowRun, id=source.ids["subflow"])).parent_task_run_id == source.ids["task"]


async def test_runs_hold_the_slots_of_their_states(database: Database, source: Filled, file: str) -> None:
    report = await bring(file, database)

    limits = {each.name: each for each in await rows(database, ConcurrencyLimit)}
    assert {name.partition(":")[0]: each.occupied for name, each in limits.items() if each.limit == 4} == {
        "deployment": 1,
        "tag": 1,
        "shared": 0,
    }
    assert limits["tag:web"].limit == 9
    lease = await only(database, ConcurrencyLease, run_id=source.ids["holder"])
    assert (lease.automatic, lease.expires, lease.limit_id) == (True, None, source.ids["limit"])
    deployment = await only(database, Deployment, id=source.ids["deployment"])
    assert deployment.concurrency_limit_id == source.ids["limit"]
    assert any("slots of the limit shared (2)" in line for line in report.lines())


async def test_the_scheduler_does_not_create_a_planned_run_again(
    database: Database, source: Filled, file: str
) -> None:
    await bring(file, database)

    run = await only(database, FlowRun, id=source.ids["planned"])
    assert run.idempotency_key == key_of(source.ids["schedule"], THEN)
    assert (run.deployment_schedule_id, run.next_scheduled_start_time) == (source.ids["schedule"], THEN)
    schedules = await rows(database, DeploymentSchedule)
    assert {type(each.schedule).__name__ for each in schedules} == {"CronSchedule", "IntervalSchedule", "RRuleSchedule"}
    paused = [each for each in schedules if each.slug == "s"]
    assert [each.next_pass for each in paused] == [None]
    assert {each.next_pass for each in schedules} == {NOW, None}


async def test_blocks_are_encrypted_with_our_key(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    block = await only(database, BlockDocument, id=source.ids["block"])
    assert KEYRING.decrypt(block.ciphertext, about(block.id)) == {"token": "secret of outer"}


async def test_blocks_of_another_key_are_left_out(database: Database, file: str) -> None:
    report = await bring(file, database, "A" * 43 + "=")

    assert await rows(database, BlockDocument) == []
    assert any("--encryption-key" in line for line in report.lines())


async def test_lines_keep_their_time_in_their_ids(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    lines = await rows(database, Log)
    assert {each.id.version for each in lines} == {7}
    assert {each.id.int >> 80 for each in lines} == {int(THEN.timestamp() * 1000)}
    assert sorted((len(each.message), each.truncated) for each in lines) == [(5, False), (100_000, True)]


async def test_artifacts_are_in_their_collection(database: Database, file: str) -> None:
    await bring(file, database)

    found = await rows(database, Artifact)
    assert sorted(each.data for each in found) == ["# One", "# Two"]
    assert len({each.collection_id for each in found}) == 1


async def test_only_automations_are_told(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)

    automation = await only(database, Automation)
    told = await only(database, StoredEvent)
    related = await only(database, AutomationRelatedResource)
    assert await rows(database, Transition) == []
    assert (told.name, told.received) == ("runstate.automation.created", NOW)
    assert (related.resource_id, related.owned_by_resource) == (
        f"runstate.deployment.{source.ids['deployment']}",
        True,
    )
    assert automation.trigger.expect == ["runstate.flow-run.Failed"]
    assert automation.trigger.match[0].label == "resource.id"
    assert automation.trigger.for_each[0].role == "flow"


async def test_a_second_import_changes_nothing(database: Database, file: str) -> None:
    await bring(file, database)
    once = await dump(database)

    report = await bring(file, database)

    assert {each.imported for each in report.tables.values()} == {0}
    assert await dump(database) == once
    assert len(await rows(database, StoredEvent)) == 1


class Killed(Exception):
    """The import ends, as if its process had been killed."""


def after(pages: int) -> Callable[[str, int], None]:
    """Return a function that ends an import after some pages."""
    left = iter(range(pages))

    def watch(table: str, number: int) -> None:
        if next(left, None) is None:
            raise Killed

    return watch


async def test_a_killed_import_goes_on(url: str, file: str, kind: str, tmp_path: Path) -> None:
    database = Database(url)
    for pages in (3, 9, 17, 21, 24, 27):
        with pytest.raises(Killed):
            await bring(file, database, watch=after(pages), page=2)

    await bring(file, database, page=2)

    resumed = await dump(database)
    assert await verify(database, NOW) == []
    await database.close()
    assert {name: len(found) for name, found in resumed.items() if name in {"flow_run", "flow_run_state", "log"}} == {
        "flow_run": 7,
        "flow_run_state": 13,
        "log": 2,
    }


async def test_a_dry_run_tells_the_same_and_writes_nothing(database: Database, file: str) -> None:
    before = await dump(database)
    dry = await bring(file, database, dry_run=True)
    without_target = await bring(file, None, dry_run=True)
    assert await dump(database) == before

    real = await bring(file, database)

    numbers = {name: each for name, each in real.tables.items() if not name.startswith("slots")}
    assert dry.tables == without_target.tables == numbers
    assert dry.homeless == real.homeless


async def test_what_has_a_taken_name_is_left_alone(database: Database, source: Filled, file: str) -> None:
    make = Making(database)
    flow = await make.flow()
    await make.batcher.close()
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(table_of(Flow)).values(name="etl"))

    report = await bring(file, database)

    assert (await only(database, Flow)).id == flow
    assert (await only(database, FlowRun, id=source.ids["run"])).flow_id == flow
    assert any("another one has its name: etl" in line for line in report.lines())
    assert await verify(database, NOW) == []


async def test_imported_states_need_no_entry_in_an_older_log(database: Database, file: str) -> None:
    make = Making(database)
    make.clock.now = THEN - timedelta(days=1)
    await make.flow_run(states.running())
    await make.batcher.close()

    await bring(file, database)

    assert len(await rows(database, Transition)) == 1
    assert await verify(database, NOW) == []


async def test_a_run_that_went_on_here_stays_as_it_is(database: Database, source: Filled, file: str) -> None:
    await bring(file, database)
    table, run = table_of(FlowRun), source.ids["run"]
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(table).where(table.c.id == run).values(state_id=UUID(int=1)))

    report = await bring(file, database)

    assert (await only(database, FlowRun, id=run)).state_id == UUID(int=1)
    assert any("in another state" in line for line in report.lines())


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_source_on_postgresql_gives_the_same(
    database: Database, source: Filled, file: str, postgresql: str, tmp_path: Path, sqlite_template: Path
) -> None:
    other = Database(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    (tmp_path / "other.db").write_bytes(sqlite_template.read_bytes())
    await bring(file, other)
    expected = await dump(other)
    await other.close()

    return_value = await _from_postgresql(source.reference, postgresql, database)

    found = await dump(database)
    assert found | {"configuration": [], "installation": []} == expected | {"configuration": [], "installation": []}
    assert return_value.tables["flow_run"].imported == 7


async def _from_postgresql(reference: Reference, server: str, target: Database) -> Report:
    with postgresql_database(server) as url:
        return await bring(await reference.to_postgresql(url), target)


async def test_other_databases_are_refused(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        await bring(str(tmp_path / "nothing.db"), database)
    with pytest.raises(ConfigurationError, match="not a database of Prefect 3"):
        await bring(database.url.render_as_string(hide_password=False), database)


async def test_a_database_of_an_older_version_is_refused(
    database: Database, source: Filled, tmp_path: Path
) -> None:
    file = source.reference.to_sqlite(tmp_path / "older.db")

    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE flow_run DROP COLUMN deployment_version")
    with pytest.raises(ConfigurationError, match="flow_run has no column deployment_version"):
        await bring(file, database)
