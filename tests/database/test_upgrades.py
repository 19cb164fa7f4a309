"""Rolling upgrades: servers of this version with tables that a later version has migrated."""

import shutil
from os import kill
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.migrate import SCRIPTS, check_head, is_compatible, migrate, revision, revisions
from runstate.errors import ConfigurationError
from tests.client import Ask
from tests.migrating import upgrade
from tests.serving import DidNotStartError, Serve, Server, run
from tests.test_workers import children, until

HEAD = revisions()[0]
NEXT = f"{int(HEAD) + 1:04}"
"""The next revision of this generation."""
NEXT_GENERATION = f"{int(HEAD[0]) + 1}001"
MIGRATION = '''
"""Rows are counted."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"


def upgrade() -> None:
    """Add a table, columns and an index."""
    op.create_table("sighting", sa.Column("id", sa.Integer(), primary_key=True))
    op.create_index("ix_sighting_id", "sighting", ["id"])
    for table in ("flow", "deployment", "flow_run", "flow_run_state", "task_run", "concurrency_limit", "transition"):
        op.add_column(table, sa.Column("note", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
'''
LIFE = """mutation($flow: ID!) {
  createFlowRun(input: { flowId: $flow, state: { type: SCHEDULED } }) {
    ... on CreateFlowRunPayload { flowRun { id states { nodes { name } } } } }
  createDeployment(input: { flowId: $flow, name: "d", concurrencyLimit: 1 }) { __typename }
}"""
START = """mutation($run: ID!) { proposeState(input: { run: { flowRunId: $run }, state: { type: RUNNING } }) {
    ... on OrchestrationResult { status run { id stateName } } } }"""


async def migrated_later(url: str, tmp_path: Path, to: str) -> None:
    """Migrate the tables as a later version does, whose newest revision is `to`."""
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{to}_later.py").write_text(MIGRATION.format(revision=to, down_revision=HEAD))
    database = Database(url)
    await upgrade(database, scripts=scripts)
    assert await revision(database) == to
    await database.close()


async def lives(server: Server) -> None:
    """Create and start a run, and read it."""
    async with httpx.AsyncClient(base_url=server.url.removesuffix("/graphql"), timeout=60) as client:
        ask = Ask(client)
        made = await ask('mutation { createFlow(input: { name: "f" }) { ... on CreateFlowPayload { flow { id } } } }')
        first = await ask(LIFE, flow=made["createFlow"]["flow"]["id"])
        run_id = first["createFlowRun"]["flowRun"]["id"]
        assert (await ask(START, run=run_id))["proposeState"]["run"] == {"id": run_id, "stateName": "Running"}
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("to", [NEXT, NEXT_GENERATION])
async def test_a_server_that_runs_goes_on_with_the_tables_of_a_later_version(
    serve: Serve, url: str, tmp_path: Path, to: str
) -> None:
    server = await serve()
    await lives(server)
    await migrated_later(url, tmp_path, to)

    await lives(server)
    await lives(server)
    assert await server.stop() == 0
    assert "Traceback" not in (await server.output).decode()


async def test_a_server_starts_with_tables_of_its_generation_and_says_so(
    serve: Serve, url: str, tmp_path: Path
) -> None:
    await migrated_later(url, tmp_path, NEXT)

    server = await serve()

    await lives(server)
    assert "tables_of_a_later_version" in server.greeting
    assert HEAD in server.greeting
    assert NEXT in server.greeting


async def test_a_server_of_an_earlier_generation_says_what_both_revisions_are(
    serve: Serve, url: str, tmp_path: Path
) -> None:
    await migrated_later(url, tmp_path, NEXT_GENERATION)

    with pytest.raises(DidNotStartError) as refused:
        await serve()

    (line,) = str(refused.value).splitlines()
    assert f"to revision {NEXT_GENERATION}. This version knows revisions up to {HEAD}." in line


async def test_a_worker_is_replaced_while_the_tables_are_of_a_later_version(
    serve: Serve, url: str, tmp_path: Path, kind: str
) -> None:
    if kind == "sqlite":
        pytest.skip("Several workers need PostgreSQL.")
    server = await serve(RUNSTATE_WORKERS="2")
    await migrated_later(url, tmp_path, NEXT)
    await lives(server)
    killed = children(server).pop()
    kill(killed, SIGKILL)
    await until(lambda: len(children(server)) == 2 and killed not in children(server))

    await lives(server)
    assert await server.stop() == 0


@pytest.mark.parametrize(("to", "code"), [(NEXT, 0), (NEXT_GENERATION, 1)])
async def test_migrating_changes_nothing_of_a_later_version(url: str, tmp_path: Path, to: str, code: int) -> None:
    await migrated_later(url, tmp_path, to)

    process = await run("migrate", environment={"RUNSTATE_DATABASE_URL": url})

    assert await process.wait() == code
    database = Database(url)
    assert await revision(database) == to
    await database.close()


@pytest.mark.parametrize("to", [NEXT, NEXT_GENERATION])
async def test_only_the_version_of_the_tables_verifies_them(url: str, tmp_path: Path, to: str) -> None:
    await migrated_later(url, tmp_path, to)
    database = Database(url)

    with pytest.raises(ConfigurationError, match=f"to revision {to}"):
        await check_head(database)

    await database.close()


async def test_tables_of_an_unknown_earlier_revision_are_left_alone(database: Database) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))

    with pytest.raises(ConfigurationError):
        await migrate(database)


@pytest.mark.parametrize(
    ("found", "head"), [("0007", "0006"), ("0010", "0009"), ("1002", "1001")], ids=lambda revision: revision
)
def test_a_later_revision_of_a_generation_is_compatible(found: str, head: str) -> None:
    assert is_compatible(found, head)
    assert not is_compatible(head, found)
    assert not is_compatible(NEXT_GENERATION, HEAD)
