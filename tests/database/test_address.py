"""The URL of a database: every accepted form, and the errors for invalid ones."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.address import parse
from runstate.database.migrate import at_head, migrate
from runstate.errors import ConfigurationError
from tests.databases import say
from tests.serving import run

BASE = "postgresql://user:secret@db.example:5433/runs"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql_urls_have_three_schemes(scheme: str) -> None:
    address = parse(BASE.replace("postgresql", scheme))

    assert address.dsn == BASE
    assert (address.url.drivername, address.url.host, address.url.database) == (
        "postgresql+asyncpg",
        "db.example",
        "runs",
    )
    assert address.shown == f"{scheme}://user:***@db.example:5433/runs"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_sqlite_urls_have_two_schemes(scheme: str, tmp_path: Path) -> None:
    assert parse(f"{scheme}:///{tmp_path}/a.db").file == tmp_path / "a.db"
    assert parse(f"{scheme}:///a.db").file == Path("a.db")
    assert parse(f"{scheme}://").file is None


@pytest.mark.parametrize(
    ("query", "settings"),
    [
        ("application_name=rs", {"application_name": "rs"}),
        ("options=-csearch_path%3Dapp", {"search_path": "app"}),
        ("options=-c%20search_path=app%20-c%20work_mem=8MB", {"search_path": "app", "work_mem": "8MB"}),
        ("options=--search_path=a,%5C%20b", {"search_path": "a, b"}),
    ],
)
def test_a_url_may_contain_session_settings(query: str, settings: dict[str, str]) -> None:
    address = parse(f"{BASE}?{query}&sslmode=disable")

    assert address.settings == settings
    assert address.dsn == f"{BASE}?sslmode=disable"


def test_a_url_may_contain_several_hosts_and_a_connect_timeout() -> None:
    hosts = "postgresql://u:p@one:1,[::1]:2,three/runs?target_session_attrs=read-write"
    address = parse(f"{hosts}&connect_timeout=10&ssl=require")

    assert address.dsn == f"{hosts}&sslmode=require"
    assert address.connect_seconds == 10


def test_parameters_that_ask_for_what_happens_anyway_are_accepted() -> None:
    assert parse(f"{BASE}?channel_binding=prefer&gssencmode=disable&client_encoding=UTF8").dsn == BASE


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/x", "must start with sqlite:///"),
        ("runs.db", "must start with sqlite:///"),
        ("", "must start with sqlite:///"),
        (f"{BASE}?server_settings=search_path%3Dapp", "`server_settings`"),
        (f"{BASE}?sslmod=require&command_timeout=1", "`command_timeout`, `sslmod`"),
        (f"{BASE}?sslmode=require&channel_binding=require", "`channel_binding`"),
        (f"{BASE}?options=search_path", "options must consist of -c name=value"),
        (f"{BASE}?connect_timeout=soon", "is malformed"),
        ("postgresql://user:se#cret@db/runs", "write # as %23"),
        ("sqlite:///a.db?foreign_keys=on", "`foreign_keys`"),
    ],
)
def test_an_error_in_a_url_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        parse(url)

    assert message in failed.value.message
    assert "secret" not in failed.value.message


def test_no_password_is_shown() -> None:
    for url in (BASE, f"{BASE}?password=secret&user=x", "postgresql:///runs?password=secret"):
        assert "secret" not in parse(url).shown


async def output(*command: str, **environment: str) -> tuple[int | None, str]:
    """Return the exit code of a command and its output without the log."""
    process = await run(*command, environment={f"RUNSTATE_{name.upper()}": each for name, each in environment.items()})
    printed, _ = await asyncio.wait_for(process.communicate(), timeout=120)
    return process.returncode, "".join(line for line in printed.decode().splitlines(True) if line[0] != "{")  # noqa: FBT003


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": "127.0.0.1", "port": "1"}, "connection refused"),
        ({"dbname": "nothing"}, 'database "nothing" does not exist'),
        ({"user": "nobody"}, '"nobody"'),
        ({"host": "nothing.invalid"}, "Name or service not known"),
        ({"sslmode": "perhaps"}, "sslmode"),
        ({"sslmode": "verify-full", "sslrootcert": "/nothing.pem"}, "No such file"),
        ({"options": "-csearch_path=nowhere"}, "no schema has been selected"),
        ({"options": "-cnonsense=1"}, "nonsense"),
    ],
)
@pytest.mark.parametrize("kind", ["postgresql"])
async def test_an_error_of_postgresql_is_printed_in_one_line(
    blank_url: str, change: dict[str, Any], message: str
) -> None:
    made = sa.make_url(blank_url)
    named = {"user": made.username, "password": made.password or "", "dbname": made.database, "host": made.host}
    parts = {**named, **made.query, **change}
    url = f"postgresql:///?{urlencode({name: value for name, value in parts.items() if value})}"
    code, printed = await output("migrate", database_url=url)

    assert (code, printed.count("\n")) == (1, 1), printed
    assert printed.startswith("The database cannot be used: ")
    assert message in printed


@pytest.mark.parametrize("command", ["serve", "migrate", "verify"])
async def test_an_error_of_sqlite_is_printed_in_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("this is no database" * 100)
    for path in (tmp_path / "file", tmp_path / "file" / "in.db", Path("/proc/nothing/runs.db"), tmp_path):
        code, printed = await output(command, database_url=f"sqlite:///{path}", port="0")

        assert (code, printed.count("\n")) == (1, 1), printed
        assert "cannot be used" in printed


async def test_a_database_without_tables_cannot_be_verified(blank_url: str) -> None:
    code, printed = await output("verify", database_url=blank_url)

    assert (code, printed.count("\n")) == (1, 1), printed
    assert "has no tables of runstate. Create them with `runstate migrate`" in printed


@pytest.mark.parametrize("command", [("serve",), ("migrate",), ("verify",), ("keys", "list")], ids=" ".join)
async def test_tables_of_a_later_version_are_reported(database: Database, url: str, command: tuple[str, ...]) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    code, printed = await output(*command, database_url=url, port="0")

    assert (code, printed.count("\n")) == (1, 1), printed
    assert "by a later version of runstate, to revision 9999" in printed


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("schema", ["app", "Two Words", 'a"b'])
async def test_installations_in_separate_schemas_are_independent(blank_url: str, schema: str) -> None:
    databases = [Database(blank_url), Database(blank_url, schema=schema)]
    for each in databases:
        await migrate(each)
        await migrate(each)
    for number, each in enumerate(databases):
        assert await at_head(each)
        async with each.read() as connection:
            tables = sa.text(
                "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name = 'flow_run'"
            )
            assert {*await connection.scalars(tables)} == {"public", schema}
            assert await connection.scalar(sa.text("SELECT current_schema()")) == ("public", schema)[number]
    assert databases[0].channel("news") != databases[1].channel("news")
    for each in databases:
        await each.close()


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_search_path_in_the_url_is_used(blank_url: str) -> None:
    await say(blank_url, "CREATE SCHEMA app")
    database = Database(f"{blank_url}{'&' if '?' in blank_url else '?'}options=-csearch_path%3Dapp")
    await migrate(database)

    async with database.read() as connection:
        tables = sa.text("SELECT table_schema FROM information_schema.tables WHERE table_name = 'flow_run'")
        assert [*await connection.scalars(tables)] == ["app"]
    await database.close()


def test_sqlite_has_no_schemas(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RUNSTATE_DATABASE_SCHEMA"):
        Database(f"sqlite:///{tmp_path}/a.db", schema="app")
