"""Imports of databases of Prefect: what arrives, that it arrives once, and what is left alone."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.checks.secrets import verify_secrets
from runstate.core.checks.verify import verify
from runstate.core.commands.block_documents import about
from runstate.core.commands.scheduling import key_of
from runstate.core.keyring import Keyring
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
    Configuration,
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    FlowRunState,
    Installation,
    Log,
    RunTally,
    StoredEvent,
    TaskRun,
    Transition,
    row_classes,
)
from tests.conftest import KINDS
from tests.databases import postgresql_database, sqlite_url
from tests.imports.reference import THEN, Filled, at, filled
from tests.services.factories import NOW, Making

KEYRING = Keyring([b"k" * 32])
VOLATILE = {"ciphertext"}
"""Columns that are random."""
UNLIKE = {AutomationRelatedResource, Configuration, Installation, RunTally, StoredEvent}
"""Tables with random ids or with the order of writing."""


class Arrived(NamedTuple):
    """A database that everything was imported into, and the report."""

    url: str
    report: Report


@pytest.fixture(scope="module")
def source() -> Filled:
    return filled()


@pytest.fixture(scope="module")
def file(source: Filled, tmp_path_factory: pytest.TempPathFactory) -> str:
    return source.reference.to_sqlite(tmp_path_factory.mktemp("prefect") / "prefect.db")


@pytest.fixture(scope="module", params=KINDS)
def arrived(request: pytest.FixtureRequest, file: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrived]:
    """Yield a database that everything was imported into. Tests only read it."""
    template = request.getfixturevalue(f"{request.param}_template")
    if request.param == "sqlite":
        url = sqlite_url(Path(shutil.copy(template, tmp_path_factory.mktemp("arrived") / "runstate.db")))
        yield Arrived(url, asyncio.run(_bring_to(file, url)))
    else:
        with postgresql_database(request.getfixturevalue("postgresql"), template) as url:
            yield Arrived(url, asyncio.run(_bring_to(file, url)))


async def _bring_to(file: str, url: str) -> Report:
    database = Database(url)
    try:
        return await bring(file, database)
    finally:
        await database.close()


@pytest.fixture(scope="module")
def expected(file: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return all rows after an import that nobody disturbed."""
    url = sqlite_url(Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("expected") / "runstate.db")))
    asyncio.run(_bring_to(file, url))
    return asyncio.run(_dump_of(url))


async def _dump_of(url: str) -> dict[str, list[str]]:
    database = Database(url)
    try:
        return await dump(database)
    finally:
        await database.close()


@pytest.fixture
async def there(arrived: Arrived) -> AsyncIterator[Database]:
    database = Database(arrived.url)
    yield database
    await database.close()


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
            if row not in UNLIKE:
                asked = sa.select(*(each for each in table_of(row).c if each.name not in VOLATILE))
                values = await connection.execute(asked)
                found[table_of(row).name] = sorted(str([_sorted(value) for value in each]) for each in values)
    return found


def _sorted(value: Any) -> Any:
    """Return a value with the keys of objects in order: PostgreSQL has its own."""
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, dict | list) else value


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


async def test_everything_arrives_and_is_consistent(there: Database, arrived: Arrived, source: Filled) -> None:
    left = {
        name: each.found - each.imported for name, each in arrived.report.tables.items() if each.found != each.imported
    }
    assert left == {"artifact": 1, "automation": 1, "concurrency_limit": 1, "task_run_state_cache": 1}
    assert await verify(there, NOW) == []
    assert await verify_secrets(there, KEYRING) == []


async def test_a_run_has_its_history_with_versions(there: Database, source: Filled) -> None:
    run = await only(there, FlowRun, id=source.ids["run"])
    history = sorted(await rows(there, FlowRunState, run_id=run.id), key=lambda each: each.version)
    assert [(each.version, each.type.value) for each in history] == [
        (1, "SCHEDULED"),
        (2, "PENDING"),
        (3, "RUNNING"),
        (4, "COMPLETED"),
    ]
    assert (run.version, run.state_id, run.state_type) == (4, history[-1].id, StateType.COMPLETED)
    assert (history[-1].data, history[-1].persisted, history[-1].actor) == (
        {"storage_key": "k"},
        True,
        "service:import",
    )
    assert (run.total_run_time_seconds, run.run_count, run.end_time) == (1.5, 1, at(seconds=3))
    assert (run.policy.retries, run.policy.retry_delay_seconds, run.policy.pause_keys) == (2, 5.0, ("a", "b"))


async def test_unusual_histories_are_made_consistent(there: Database, source: Filled) -> None:
    back = await only(there, FlowRun, id=source.ids["going back"])
    assert (back.state_type, back.version, back.state_timestamp) == (StateType.CRASHED, 3, at(seconds=1))
    lost = await only(there, FlowRun, id=source.ids["without history"])
    assert (lost.state_type, lost.version, lost.deployment_id) == (StateType.COMPLETED, 1, None)
    none = await only(there, FlowRun, id=source.ids["without state"])
    assert (none.state_type, none.version) == (None, 0)
    keys = {each.dynamic_key for each in await rows(there, TaskRun, flow_run_id=None)}
    assert keys == {"same", f"same-{source.ids['background']}"}


async def test_a_subflow_run_belongs_to_its_task_run(there: Database, source: Filled) -> None:
    assert (await only(there, FlowRun, id=source.ids["subflow"])).parent_task_run_id == source.ids["task"]


async def test_runs_hold_the_slots_of_their_states(there: Database, arrived: Arrived, source: Filled) -> None:
    limits = {each.name: each for each in await rows(there, ConcurrencyLimit)}
    assert {name.partition(":")[0]: each.occupied for name, each in limits.items() if each.limit == 4} == {
        "deployment": 1,
        "tag": 1,
        "shared": 0,
    }
    assert limits["tag:web"].limit == 9
    lease = await only(there, ConcurrencyLease, run_id=source.ids["holder"])
    assert (lease.automatic, lease.expires, lease.limit_id) == (True, None, source.ids["limit"])
    deployment = await only(there, Deployment, id=source.ids["deployment"])
    assert deployment.concurrency_limit_id == source.ids["limit"]
    assert any("slots of the limit shared (2)" in line for line in arrived.report.lines())


async def test_the_scheduler_does_not_create_a_planned_run_again(there: Database, source: Filled) -> None:
    run = await only(there, FlowRun, id=source.ids["planned"])
    assert run.idempotency_key == key_of(source.ids["schedule"], THEN)
    assert (run.deployment_schedule_id, run.next_scheduled_start_time) == (source.ids["schedule"], THEN)
    schedules = await rows(there, DeploymentSchedule)
    assert {type(each.schedule).__name__ for each in schedules} == {"CronSchedule", "IntervalSchedule", "RRuleSchedule"}
    paused = [each for each in schedules if each.slug == "s"]
    assert [each.next_pass for each in paused] == [None]
    assert {each.next_pass for each in schedules} == {NOW, None}


async def test_blocks_are_encrypted_with_our_key(there: Database, source: Filled) -> None:
    block = await only(there, BlockDocument, id=source.ids["block"])
    assert KEYRING.decrypt(block.ciphertext, about(block.id)) == {"token": "secret of outer"}


async def test_blocks_of_another_key_are_left_out(database: Database, file: str) -> None:
    report = await bring(file, database, "A" * 43 + "=")

    assert await rows(database, BlockDocument) == []
    assert any("--encryption-key" in line for line in report.lines())


async def test_lines_keep_their_time_in_their_ids(there: Database, source: Filled) -> None:
    lines = await rows(there, Log)
    assert {each.id.version for each in lines} == {7}
    assert {each.id.int >> 80 for each in lines} == {int(THEN.timestamp() * 1000)}
    assert sorted((len(each.message), each.truncated) for each in lines) == [(5, False), (100_000, True)]


async def test_artifacts_are_in_their_collection(there: Database) -> None:
    found = await rows(there, Artifact)
    assert sorted(each.data for each in found) == ["# One", "# Two"]
    assert len({each.collection_id for each in found}) == 1


async def test_only_automations_are_told(there: Database, source: Filled) -> None:
    automation = await only(there, Automation)
    told = await only(there, StoredEvent)
    related = await only(there, AutomationRelatedResource)
    assert await rows(there, Transition) == []
    assert (told.name, told.received) == ("runstate.automation.created", NOW)
    assert (related.resource_id, related.owned_by_resource) == (
        f"runstate.deployment.{source.ids['deployment']}",
        True,
    )
    assert automation.trigger.expect == ["prefect.flow-run.Failed", "runstate.flow-run.Failed"]
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


async def test_a_killed_import_goes_on_to_the_same_result(
    database: Database, expected: dict[str, list[str]], file: str
) -> None:
    for pages in (3, 12, 19, 24, 27):
        with pytest.raises(Killed):
            await bring(file, database, watch=after(pages), page=2)

    await bring(file, database, page=2)

    assert await dump(database) == expected
    assert await verify(database, NOW) == []


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


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    with postgresql_database(postgresql) as url:
        yield url


async def test_a_source_on_postgresql_gives_the_same(
    database: Database, expected: dict[str, list[str]], source: Filled, postgresql_url: str
) -> None:
    await bring(await source.reference.to_postgresql(postgresql_url), database)

    assert await dump(database) == expected


async def test_other_databases_are_refused(database: Database, url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        await bring(str(tmp_path / "nothing.db"), database)
    with pytest.raises(ConfigurationError, match="not a database of Prefect 3"):
        await bring(url, database)


async def test_a_database_of_an_older_version_is_refused(database: Database, source: Filled, tmp_path: Path) -> None:
    file = source.reference.to_sqlite(tmp_path / "older.db")

    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE flow_run DROP COLUMN deployment_version")
    with pytest.raises(ConfigurationError, match="flow_run has no column deployment_version"):
        await bring(file, database)
