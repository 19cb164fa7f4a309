"""`runstate keys create | list | revoke`: API keys, which clients must send if RUNSTATE_AUTHENTICATION is `keys`."""

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

cli = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

Url = Annotated[
    str | None, typer.Option("--database-url", help="URL of the database; RUNSTATE_DATABASE_URL by default.")
]
Name = Annotated[str, typer.Argument(help="Unique name of the key; the actor of states that are proposed with it.")]
Scopes = Annotated[
    list[Scope], typer.Option("--scope", help="Scope of the key; each scope includes those before it. May be repeated.")
]
Expires = Annotated[
    str | None, typer.Option(help="Lifetime of the key, such as 30d, 12h or 90m; unlimited by default.")
]


@cli.command()
def create(name: Name, scope: Scopes, expires: Expires = None, database_url: Url = None) -> None:
    """Create a key, and the tables of a new database. The key is shown only once: only its digest is stored."""
    now, text = datetime.now(UTC), keys.mint(secrets.token_bytes)
    until = None if expires is None else now + lasting(expires)

    async def created(database: Database) -> ApiKey:
        return await keys.create(database, now, text, id=uuid7(), name=name, scopes=scope, expires=until)

    made = _with_database(database_url, created, may_be_new=True)
    if sys.stdout.isatty():
        typer.echo(f"{text}\n\nStore the key of {made.name} now: it is not shown again.")
    else:
        _print_json({**shown(made), "key": text})


@cli.command("list")
def list_keys(database_url: Url = None) -> None:
    """List all keys, including revoked and expired ones: a table on a terminal, otherwise lines of JSON."""
    found = _with_database(database_url, keys.every_key)
    if sys.stdout.isatty():
        _print_table(found)
    else:
        for key in found:
            _print_json(shown(key))


@cli.command()
def revoke(name: Name, database_url: Url = None) -> None:
    """Revoke a key. Within a second all servers reject it and end its sockets and streams."""
    now = datetime.now(UTC)
    revoked = _with_database(database_url, lambda database: keys.revoke(database, now, name))
    if revoked is None:
        raise ConfigurationError(f"There is no key `{name}`.")
    if sys.stdout.isatty():
        typer.echo(f"The key {name} is revoked.")
    else:
        _print_json(shown(revoked))


def lasting(text: str) -> timedelta:
    """Return the duration that a text such as 30d denotes. Raise ConfigurationError if it is malformed."""
    found = LASTING.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"A duration is a number and one of s, m, h, d, w, such as 30d, not `{text}`.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def shown(key: ApiKey) -> dict[str, Any]:
    """Return the columns of a key that may be shown."""
    return {name: getattr(key, name) for name in SHOWN}


def _print_json(said: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(said, option=orjson.OPT_UTC_Z).decode())


def _print_table(found: list[ApiKey]) -> None:
    table = Table(*(Column(name, no_wrap=True) for name in SHOWN), box=None, pad_edge=False)
    for key in found:
        columns = shown(key).values()
        table.add_row(*map(_cell, columns), style="dim" if key.revoked else None)
    Console(highlight=False).print(table, soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return " ".join(value) if isinstance(value, list) else value or ""


def _with_database(url: str | None, do: Callable[[Database], Awaitable[T]], *, may_be_new: bool = False) -> T:
    """Return the result of a function of the database. Raise ConfigurationError if the tables are not up to date.

    The tables of a new database are created if it may be new.
    """
    settings = load(os.environ, database_url=url)

    async def run() -> T:
        database = database_of(settings)
        try:
            if may_be_new and await is_new(database):
                await migrate(database)
                # On standard error, because a pipe gets the key from standard output.
                typer.echo(f"The tables in {database.shown} were created.", err=True)
            await check_head(database)
            return await do(database)
        finally:
            await database.close()

    return asyncio.run(run())
