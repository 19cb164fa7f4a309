"""`runstate serve | migrate | schema | verify | watch | demo | keys`."""

import runstate.loading  # noqa: F401  # isort: skip

import asyncio
import fcntl
import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket
from typing import Annotated

import structlog
import typer

from runstate import __version__, logs
from runstate.app import clock
from runstate.cli.demo import run_demo
from runstate.cli.keys import cli as keys
from runstate.cli.watch import REFUSED, RefusedError, run_watch, wish_of
from runstate.core.checks.verify import verify as findings_of
from runstate.database.address import parse
from runstate.database.failures import FAILURES, reason
from runstate.database.migrate import check_head
from runstate.database.migrate import migrate as bring_to_head
from runstate.errors import ConfigurationError
from runstate.exposure import check_exposure
from runstate.graphql.schema import build_schema, sdl
from runstate.listeners import bind
from runstate.server import Server
from runstate.settings import Settings, database_of, load, unknown_variables
from runstate.workers import Workers

log = structlog.get_logger(__name__)

gc.freeze()  # what was loaded stays
gc.enable()
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cli.add_typer(keys, name="keys")


Url = Annotated[str | None, typer.Option("--database-url", help="Where it is kept; RUNSTATE_DATABASE_URL.")]
Host = Annotated[str | None, typer.Option(help="The address to listen on; RUNSTATE_HOST.")]
Port = Annotated[int | None, typer.Option(help="The port to listen on; RUNSTATE_PORT.")]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Everybody who reaches the server may do everything; RUNSTATE_INSECURE."),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="RUNSTATE_API_KEY",
        help="A key, or `user:password`, where the server wants one.",
        callback=lambda key: key and key.strip(),
    ),
]
Processes = Annotated[int | None, typer.Option(help="How many processes serve, on PostgreSQL; RUNSTATE_WORKERS.")]


def print_version(wanted: bool) -> None:  # noqa: FBT001 typer passes the value of the option
    """Print the version and exit, if it is wanted."""
    if wanted:
        typer.echo(f"runstate {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
]


def above_zero(value: float) -> float:
    """Return a number that is above 0."""
    if not value > 0:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


@cli.callback()
def commands(*, version: Version = False) -> None:
    """Orchestration-state server with a GraphQL API."""


@cli.command()
def serve(
    host: Host = None,
    port: Port = None,
    database_url: Url = None,
    insecure: Insecure = None,
    workers: Processes = None,
) -> None:
    """Run the server."""
    settings = configured(host=host, port=port, database_url=database_url, insecure=insecure, workers=workers)
    with sole_owner(settings.database_url), ExitStack() as opened:
        listeners = [opened.enter_context(each) for each in bind(settings.host, settings.port)]
        if settings.workers > 1 and database_of(settings).is_sqlite:
            raise ConfigurationError("One process owns a SQLite file: use PostgreSQL for several workers.")
        check_exposure(settings)
        asyncio.run(_migrate(settings))
        if not serve_together(settings, listeners):
            raise typer.Exit(1)


def serve_together(settings: Settings, listeners: list[socket]) -> bool:
    """Serve with one process or several until asked to stop; return whether it went well."""
    if settings.workers > 1:
        return Workers(settings, listeners).run()
    server = Server(settings)
    server.run(listeners)
    return server.started


@cli.command()
def migrate(database_url: Url = None) -> None:
    """Bring the tables to their newest shape."""
    settings = configured(database_url=database_url)
    asyncio.run(_migrate(settings))
    typer.echo(f"The tables in {parse(settings.database_url).shown} have their newest shape.")


@cli.command()
def schema() -> None:
    """Print the GraphQL schema."""
    typer.echo(sdl(build_schema()), nl=False)


@cli.command()
def verify(database_url: Url = None) -> None:
    """Check that counters, runs, histories and the log agree; exit code 1 if something does not. Others may go on."""
    settings = configured(database_url=database_url)
    findings = asyncio.run(_verify(settings))
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(1)
    typer.echo(f"Everything in {parse(settings.database_url).shown} agrees.")


@cli.command()
def watch(
    url: Annotated[str, typer.Argument(help="Where the server is, such as http://127.0.0.1:4200/graphql.")],
    run: Annotated[str | None, typer.Option(help="Only this run, from its first version on.")] = None,
    where: Annotated[str | None, typer.Option(help="Only these: a TransitionWhere as JSON.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this cursor; with --run: after this version.")] = None,
    until_final: Annotated[bool, typer.Option("--until-final", help="End when the run does.")] = False,  # noqa: FBT002
    key: Key = None,
) -> None:
    """Print transitions as they come: a table, or lines of JSON into a pipe; connect again when that is needed.

    With --until-final the exit code says how the run ended: 0 completed, 1 failed or crashed, 2 cancelled. 3: the
    server does not want to tell.
    """
    try:
        raise typer.Exit(run_watch(url, wish_of(run, where, after, until_final=until_final), key))
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


@cli.command()
def demo(
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:4200/graphql",
    runs: Annotated[int | None, typer.Option(min=1, help="End after so many flow runs; without it: never.")] = None,
    speed: Annotated[
        float, typer.Option(help="How fast the flows run: 20 is twenty times as fast as usual.", callback=above_zero)
    ] = 1,
    key: Key = None,
) -> None:
    """Run a few small flows on a server: with retries, failures, pauses, caches and subflows to look at."""
    try:
        run_demo(url, key, runs, speed)
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


async def _verify(settings: Settings) -> list[str]:
    database = database_of(settings)
    try:
        await check_head(database)
        return await findings_of(database, clock())
    finally:
        await database.close()


async def _migrate(settings: Settings) -> None:
    database = database_of(settings)
    try:
        await bring_to_head(database)
    finally:
        await database.close()


def configured(**options: object) -> Settings:
    """Return the settings from the environment and the command line, and configure logging by them."""
    settings = load(os.environ, **options)
    logs.configure(settings.log_level, settings.log_format)
    for name, similar in unknown_variables(os.environ).items():
        log.warning("unknown_variable", variable=name, probably=similar)
    return settings


@contextmanager
def sole_owner(url: str) -> Iterator[None]:
    """Hold a SQLite file for as long as the block runs; `Misconfigured` if another server does."""
    file = parse(url).file
    if file is None:
        yield
        return
    lock = Path(f"{file}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another server keeps its data in {file}: stop it, or use PostgreSQL for several."
            raise ConfigurationError(message) from None
        yield


def main() -> None:
    """Run a command; what is misconfigured, and what the database refuses, is said in a line."""
    try:
        cli()
    except ConfigurationError as error:
        message = error.message
    except FAILURES as error:
        log.debug("command_failed", exc_info=True)
        message = f"The database cannot be used: {reason(error)}."
    else:
        return
    typer.echo(message, err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
