"""Generator of migrations: `make migration NAME=what_changes`.

It starts a PostgreSQL server, unless RUNSTATE_TEST_POSTGRES_URL names one.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from runstate.database import Database
from tests.databases import PostgreSQL, postgresql_database, sqlite_url
from tools.migration.generating import generate

Name = Annotated[str, typer.Argument(help="Name of the change: lower-case words, separated by _.")]


def main(name: Name) -> None:
    """Write a migration from the newest schema version to the declared tables."""
    if not name.isidentifier() or not name.islower():
        raise typer.BadParameter("The name must consist of lower-case words, separated by _.")
    with blank_urls() as (sqlite, postgresql):
        written = asyncio.run(_generate(name, sqlite, postgresql))
    typer.echo("Nothing to migrate." if written is None else f"Wrote {written}. Review it before you commit it.")


async def _generate(name: str, *urls: str) -> Path | None:
    sqlite, postgresql = map(Database, urls)
    try:
        return await generate(name, sqlite, postgresql)
    finally:
        await sqlite.close()
        await postgresql.close()


@contextmanager
def blank_urls() -> Iterator[tuple[str, str]]:
    """Yield the URLs of two empty databases, SQLite and PostgreSQL."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = sa.make_url(os.environ.get("RUNSTATE_TEST_POSTGRES_URL") or _server(stack))
        address = server.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        yield sqlite_url(Path(folder) / "blank.db"), stack.enter_context(postgresql_database(address))


def _server(stack: ExitStack) -> str:
    server = PostgreSQL()
    stack.callback(server.stop)
    return server.url


if __name__ == "__main__":
    typer.run(main)
