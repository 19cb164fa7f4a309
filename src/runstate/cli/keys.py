"""`runstate keys create | list | revoke`: who is let in where RUNSTATE_AUTHENTICATION is `keys`."""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from uuid_utils.compat import uuid7

from runstate.core.access import keys
from runstate.database import Database
from runstate.database.migrate import check_head, is_new, migrate
from runstate.documents.access import Scope
from runstate.errors import ConfigurationError
from runstate.rows import ApiKey
from runstate.settings import database_of, load

T = TypeVar("T")

SHOWN: Final = ("name", "prefix", "scopes", "created", "expires", "revoked", "used")
LASTING: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

cli = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that let clients in.")

Url = Annotated[str | None, typer.Option("--database-url", help="Where they are kept; RUNSTATE_DATABASE_URL.")]
Name = Annotated[str, typer.Argument(help="Whose it is; the actor on the states that are proposed with it.")]
Scopes = Annotated[
    list[Scope], typer.Option("--scope", help="What it allows; each includes those before it. May be repeated.")
]
Expires = Annotated[str | None, typer.Option(help="For how long it lets in, such as 30d, 12h or 90m; else for ever.")]


@cli.command()
def create(name: Name, scope: Scopes, expires: Expires = None, database_url: Url = None) -> None:
    """Make a key. It is shown now and never again: only a digest of it is kept. A new database gets its tables."""
    now, text = datetime.now(UTC), keys.mint(secrets.token_bytes)
    until = None if expires is None else now + lasting(expires)

    async def created(database: Database) -> ApiKey:
        return await keys.create(database, now, text, id=uuid7(), name=name, scopes=scope, expires=until)

    made = _with_database(database_url, created, may_be_new=True)
    if sys.stdout.isatty():
        typer.echo(f"{text}\n\nThis is the key of {made.name}: keep it now, it is not shown again.")
    else:
        _as_json({**shown(made), "key": text})


@cli.command("list")
def list_keys(database_url: Url = None) -> None:
    """List the keys, also those that let nobody in any more: a table, or lines of JSON into a pipe."""
    found = _with_database(database_url, keys.every_key)
    if sys.stdout.isatty():
        _as_table(found)
    else:
        for key in found:
            _as_json(shown(key))


@cli.command()
def revoke(name: Name, database_url: Url = None) -> None:
    """Let a key in no more: within a second nothing that it has open goes on, on any server."""
    now = datetime.now(UTC)
    revoked = _with_database(database_url, lambda database: keys.revoke(database, now, name))
    if revoked is None:
        raise ConfigurationError(f"There is no key `{name}`.")
    if sys.stdout.isatty():
        typer.echo(f"The key {name} lets nobody in any more.")
    else:
        _as_json(shown(revoked))


def lasting(text: str) -> timedelta:
    """How long a text such as 30d means."""
    found = LASTING.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"A time is a number and one of s, m, h, d, w, such as 30d: `{text}`.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def shown(key: ApiKey) -> dict[str, Any]:
    """What may be seen of a key."""
    return {name: getattr(key, name) for name in SHOWN}


def _as_json(said: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(said, option=orjson.OPT_UTC_Z).decode())


def _as_table(found: list[ApiKey]) -> None:
    table = Table(*(Column(name, no_wrap=True) for name in SHOWN), box=None, pad_edge=False)
    for key in found:
        columns = shown(key).values()
        table.add_row(*map(_in_words, columns), style="dim" if key.revoked else None)
    Console(highlight=False).print(table, soft_wrap=True)


def _in_words(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return " ".join(value) if isinstance(value, list) else value or ""


def _with_database(url: str | None, do: Callable[[Database], Awaitable[T]], *, may_be_new: bool = False) -> T:
    """What is done with a database whose tables have their newest shape; Misconfigured: they do not."""
    settings = load(os.environ, database_url=url)

    async def run() -> T:
        database = database_of(settings)
        try:
            if may_be_new and await is_new(database):
                await migrate(database)
                typer.echo(f"The tables in {database.shown} were created.", err=True)
            await check_head(database)
            return await do(database)
        finally:
            await database.close()

    return asyncio.run(run())
