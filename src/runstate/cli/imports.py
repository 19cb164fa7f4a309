"""`runstate import prefect`: brings an existing database of Prefect over."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runstate.core.keyring import Keyring
from runstate.database import Database
from runstate.database.migrate import check_head, migrate
from runstate.database.ownership import sole_owner
from runstate.imports.facts import facts_of
from runstate.imports.importer import Importer, Watch
from runstate.imports.prefect import TABLES, import_all
from runstate.imports.report import Report
from runstate.imports.source import opened
from runstate.secret_keys import keyring_of_secrets
from runstate.settings import Settings, database_of, load

cli = typer.Typer(no_args_is_help=True, help="Bring the data of another server over.")


@cli.callback()
def imports() -> None:
    """Bring the data of another server over."""


@cli.command()
def prefect(
    source: Annotated[
        str, typer.Argument(help="Database of Prefect 3.8.5: a SQLite file, or the URL of SQLite or PostgreSQL.")
    ],
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="URL of our database; RUNSTATE_DATABASE_URL by default.")
    ] = None,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Write nothing; print what would be imported.")
    ] = False,
    encryption_key: Annotated[
        str | None,
        typer.Option(
            envvar=["PREFECT_SERVER_ENCRYPTION_KEY", "ORION_ENCRYPTION_KEY"],
            help="Key of the blocks, if the server had it in its environment; by default that in its database.",
        ),
    ] = None,
) -> None:
    """Import flows, deployments, runs with their history, logs, blocks, limits, pools and automations from Prefect.

    Only what is missing is written, and ids are kept: an import that was stopped goes on if it is started again, and a
    second one changes nothing. The source is only read. On SQLite no server may use our database meanwhile; on
    PostgreSQL servers may. The report says what was imported and what has no place.
    """
    settings = load(os.environ, database_url=database_url)
    for line in asyncio.run(_import(settings, source, encryption_key, dry_run=dry_run)).lines():
        typer.echo(line)


async def _import(settings: Settings, url: str, key: str | None, *, dry_run: bool) -> Report:
    async with opened(url) as source, _target(settings, dry_run=dry_run) as target:
        facts = await facts_of(source, key)
        # A dry run must not create a key.
        keyring = Keyring() if dry_run else keyring_of_secrets(settings)
        totals = {table.name: await source.count(table.name) for table in TABLES}
        with progress(totals) as watch:
            importer = Importer(source, target, facts, keyring, datetime.now(UTC), dry_run=dry_run, watch=watch)
            return await import_all(importer)


@asynccontextmanager
async def _target(settings: Settings, *, dry_run: bool) -> AsyncIterator[Database | None]:
    """Yield our database with the newest tables; for a dry run None if it has no tables yet."""
    database = database_of(settings)
    try:
        if not dry_run:
            with sole_owner(settings.database_url):
                await migrate(database)
                yield database
        elif await _is_blank(database):
            yield None
        else:
            await check_head(database)
            yield database
    finally:
        await database.close()


async def _is_blank(database: Database) -> bool:
    if database.file and not database.file.exists():
        return True
    async with database.reader.connect() as connection:
        return not await connection.run_sync(lambda found: sa.inspect(found).get_table_names(schema=database.schema))


@contextmanager
def progress(totals: dict[str, int]) -> Iterator[Watch]:
    """Show a bar for each table on a terminal, or print a line for each one that is done."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {name: bars.add_task(name, total=total) for name, total in totals.items() if total}
        done = dict.fromkeys(totals, 0)

        def watch(table: str, rows: int) -> None:
            done[table] += rows
            bars.advance(tasks[table], rows)
            if not console.is_terminal and done[table] >= totals[table]:
                typer.echo(f"{table}: {done[table]} rows", err=True)

        yield watch
