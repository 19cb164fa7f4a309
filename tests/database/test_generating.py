"""Generated migrations: upgrade and downgrade on both databases, without manual edits."""

import copy
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from runstate.database import Database
from runstate.database.migrate import SCRIPTS, configuration
from runstate.documents.policies import FlowRunPolicy
from runstate.rows import Base, Deployment, Flow, FlowRun
from runstate.rows.base import JSON, Timestamp
from runstate.rows.log import ServerSays, Xid8
from runstate.rows.runs import STATE_TYPE
from tests.databases import postgresql_database, sqlite_url
from tests.migrating import downgrade, upgrade
from tools.migration.comparing import changes
from tools.migration.generating import generate

ROOT = Path(__file__).parent.parent.parent
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Megabytes(sa.TypeDecorator[int]):
    """A type without a frozen copy for migrations."""

    impl = sa.Integer
    cache_ok = True


class Both(NamedTuple):
    """A SQLite and a PostgreSQL database with the same rows."""

    sqlite: Database
    postgresql: Database


@pytest.fixture
def urls(sqlite_template: Path, postgresql: str, postgresql_template: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    with postgresql_database(postgresql, postgresql_template) as url:
        yield sqlite_url(Path(shutil.copy(sqlite_template, tmp_path / "runstate.db"))), url


@pytest.fixture
async def both(urls: tuple[str, str]) -> AsyncIterator[Both]:
    both = Both(*map(Database, urls))
    for database in both:
        await insert_some(database)
    yield both
    for database in both:
        await database.close()


async def insert_some(database: Database) -> None:
    """Insert rows with references to each other."""
    own = {"id": UUID(int=1), "created": NOW, "updated": NOW, "name": "one"}
    run = {**own, "flow_id": own["id"], "deployment_id": own["id"], "policy": FlowRunPolicy()}
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), own)
        await transaction.connection.execute(sa.insert(Deployment), {**own, "flow_id": own["id"]})
        await transaction.connection.execute(sa.insert(FlowRun), run)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Return a copy of the migrations in a temporary directory."""
    return Path(shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def declared() -> sa.MetaData:
    """Return the declared tables, to change."""
    return copy.deepcopy(Base.metadata)


async def differences(database: Database, metadata: sa.MetaData) -> list[Any]:
    """Return the differences between the database and the declared tables."""
    async with database.read() as connection:
        return list((await connection.run_sync(changes, metadata)).there.as_diffs())


async def rows(database: Database) -> list[int]:
    """Return the number of rows in some tables."""
    async with database.read() as connection:
        asked = [sa.select(sa.func.count()).select_from(sa.table(name)) for name in ("flow", "deployment", "flow_run")]
        return [(await connection.execute(each)).scalar_one() for each in asked]


def with_a_table(metadata: sa.MetaData) -> None:
    here = sa.text("ends IS NOT NULL")
    sa.Table(
        "note",
        metadata,
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("created", Timestamp(), nullable=False),
        sa.Column("flow_id", sa.ForeignKey("flow.id", ondelete="CASCADE"), index=True, nullable=False),
        sa.Column("name", sa.Text(), unique=True, nullable=False),
        sa.Column("value", JSON),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("ends", Timestamp()),
        sa.CheckConstraint("weight >= 0", name="weight_not_negative"),
        sa.UniqueConstraint("flow_id", "weight"),
        sa.Index("ix_note_ends", "ends", postgresql_where=here, sqlite_where=here),
        sa.Index("ix_note_tags", "tags", postgresql_using="gin").ddl_if("postgresql"),
        sa.Index("ix_note_tags_list", "tags", sqlite_where=sa.text("tags <> '[]'")).ddl_if("sqlite"),
    )


def with_a_table_that_counts(metadata: sa.MetaData) -> None:
    sa.Table(
        "sighting",
        metadata,
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("xid", Xid8().with_variant(sa.Text(), "sqlite"), server_default=ServerSays("pg_current_xact_id()")),
        sa.Column("state_type", STATE_TYPE, nullable=False),
        sqlite_autoincrement=True,
    )


def with_columns(metadata: sa.MetaData) -> None:
    metadata.tables["flow_run"].append_column(sa.Column("seen", Timestamp()))
    metadata.tables["deployment"].append_column(sa.Column("settings", JSON))
    metadata.tables["transition"].append_column(sa.Column("reason", sa.Text()))


def with_indexes(metadata: sa.MetaData) -> None:
    deployment, flow_run = metadata.tables["deployment"].c, metadata.tables["flow_run"].c
    paused = sa.text("paused")
    sa.Index("ix_deployment_description", deployment.description, postgresql_where=paused, sqlite_where=paused)
    sa.Index("ix_flow_run_context", flow_run.context, postgresql_using="gin").ddl_if("postgresql")
    sa.Index("ix_flow_run_flow_version", flow_run.flow_version)


def with_constraints(metadata: sa.MetaData) -> None:
    flow_run = metadata.tables["flow_run"]
    flow_run.append_constraint(sa.CheckConstraint("run_count < 1000000", name="run_count_small"))
    metadata.tables["flow_run_input"].append_constraint(sa.UniqueConstraint("flow_run_id", "sender"))
    follows: sa.Column[Any] = sa.Column("follows_id", sa.ForeignKey("flow_run.id", ondelete="SET NULL"), index=True)
    flow_run.append_column(follows)


def with_other_columns(metadata: sa.MetaData) -> None:
    # No column of the view `any_event`: PostgreSQL changes no type under a view.
    metadata.tables["saved_search"].c.name.type = sa.String(255)
    metadata.tables["flow"].c.labels.nullable = True


CHANGES = (with_a_table, with_a_table_that_counts, with_columns, with_indexes, with_constraints, with_other_columns)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_generated_migration_upgrades_and_downgrades(
    both: Both, scripts: Path, declared: sa.MetaData, change: Callable[[sa.MetaData], None]
) -> None:
    change(declared)
    assert await generate("there", *both, declared, scripts)

    for database in both:
        await leads(database, scripts, Base.metadata, declared)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_generated_migration_drops_what_is_no_longer_declared(
    both: Both, scripts: Path, declared: sa.MetaData, change: Callable[[sa.MetaData], None]
) -> None:
    change(declared)
    await generate("there", *both, declared, scripts)
    assert await generate("away", *both, Base.metadata, scripts)

    for database in both:
        await leads(database, scripts, declared, Base.metadata)


async def leads(database: Database, scripts: Path, old: sa.MetaData, new: sa.MetaData) -> None:
    """Check that the newest migration leads from the old tables to the new ones, back, and to the new ones again."""
    before = await rows(database)
    await upgrade(database, scripts=scripts)
    assert await differences(database, new) == []
    await downgrade(database, "-1", scripts)
    assert await differences(database, old) == []
    await upgrade(database, scripts=scripts)
    assert await differences(database, new) == []
    assert await rows(database) == before


async def test_a_generated_migration_has_the_options_of_both_databases(
    both: Both, scripts: Path, declared: sa.MetaData
) -> None:
    with_a_table(declared)
    written = await generate("notes_on_flows", *both, declared, scripts)

    assert written
    assert written.name == f"{int(newest()) + 1:04}_notes_on_flows.py"
    text = written.read_text()
    for line in (
        '"""Notes on flows."""',
        "from runstate.database.migrations.types import JSON, Timestamp",
        f'down_revision = "{newest()}"',
        'sa.Column("id", sa.Uuid(), nullable=False),',
        'sa.Column("created", Timestamp(), nullable=False),',
        'sa.Column("value", JSON, nullable=True),',
        'sa.CheckConstraint("weight >= 0", name=op.f("ck_note_weight_not_negative")),',
        'if op.get_bind().dialect.name == "sqlite":',
        'op.create_index("ix_note_tags", "note", ["tags"], unique=False, postgresql_using="gin")',
    ):
        assert f"{line}\n" in text


def newest() -> str:
    """Return the number of the newest migration."""
    return str(ScriptDirectory.from_config(configuration()).get_current_head())


async def test_a_generated_migration_passes_the_linters(both: Both, scripts: Path, declared: sa.MetaData) -> None:
    for change in CHANGES:
        change(declared)
    written = await generate("everything", *both, declared, scripts)

    assert written
    assert objections(written) == b""


def objections(file: Path) -> bytes:
    """Return the output of ruff for a file, checked as one of the migrations."""
    place, said = str(SCRIPTS / "versions" / file.name), b""
    for command in (["check", "--quiet"], ["format", "--quiet", "--diff"]):
        given = [sys.executable, "-m", "ruff", *command, "--stdin-filename", place, "-"]
        said += subprocess.run(given, input=file.read_bytes(), cwd=ROOT, capture_output=True, check=False).stdout  # noqa: S603
    return said


async def test_no_migration_is_written_without_changes(both: Both, scripts: Path) -> None:
    before = sorted(scripts.rglob("*.py"))

    assert await generate("nothing", *both, scripts=scripts) is None
    assert sorted(scripts.rglob("*.py")) == before


async def test_a_type_without_a_frozen_copy_is_refused(both: Both, scripts: Path, declared: sa.MetaData) -> None:
    declared.tables["flow"].append_column(sa.Column("size", Megabytes()))

    with pytest.raises(LookupError, match="types has no Megabytes"):
        await generate("sizes", *both, declared, scripts)
