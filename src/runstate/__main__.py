"""`runstate serve | migrate | schema | verify | watch | logs | demo | worker | keys | secrets | import`."""

# First, because it disables the garbage collector during the imports below.
import runstate.loading  # noqa: F401  # isort: skip

import asyncio
import gc
import os
from contextlib import ExitStack
from datetime import timedelta
from socket import socket
from typing import Annotated

import structlog
import typer

from runstate import __version__, logs
from runstate.app import clock
from runstate.cli.demo import run_demo
from runstate.cli.imports import cli as imports
from runstate.cli.keys import cli as keys
from runstate.cli.logs import run_logs
from runstate.cli.runs import flows, limits, runs
from runstate.cli.secrets import cli as secrets
from runstate.cli.watch import REFUSED, run_watch, subscription_of
from runstate.cli.worker.command_line import cli as worker
from runstate.client.errors import RefusedError
from runstate.core.checks.automations import verify_automations
from runstate.core.checks.secrets import verify_secrets
from runstate.core.checks.verify import verify as findings_of
from runstate.core.rotation import used_keys
from runstate.database.address import parse
from runstate.database.failures import FAILURES, reason
from runstate.database.migrate import check_head
from runstate.database.migrate import migrate as bring_to_head
from runstate.database.ownership import sole_owner
from runstate.errors import ConfigurationError, RunstateError
from runstate.exposure import check_exposure
from runstate.graphql.schema import build_schema, sdl
from runstate.listeners import bind
from runstate.secret_keys import keyring_of_secrets
from runstate.server import Server
from runstate.settings import Settings, database_of, load, unknown_variables
from runstate.workers import Workers

log = structlog.get_logger(__name__)

gc.freeze()  # modules are never freed, so collections need not visit their objects
gc.enable()
cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
cli.add_typer(keys, name="keys")
cli.add_typer(secrets, name="secrets")
cli.add_typer(imports, name="import")
cli.add_typer(runs, name="runs")
cli.add_typer(flows, name="flows")
cli.add_typer(limits, name="limits")
cli.add_typer(worker, name="worker")

Url = Annotated[
    str | None, typer.Option("--database-url", help="URL of the database; RUNSTATE_DATABASE_URL by default.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on; RUNSTATE_HOST by default.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; RUNSTATE_PORT by default.")]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Serve other machines without authentication; RUNSTATE_INSECURE by default."),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="RUNSTATE_API_KEY",
        help="API key, or `user:password`, if the server requires authentication.",
        # A key that was read from a file can end with a newline.
        callback=lambda key: key and key.strip(),
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(help="Number of processes that serve; more than one needs PostgreSQL; RUNSTATE_WORKERS by default."),
]


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
        # Bound first, so that an address in use is reported before anything is migrated.
        listeners = [opened.enter_context(each) for each in bind(settings.host, settings.port)]
        if settings.workers > 1 and database_of(settings).is_sqlite:
            raise ConfigurationError("A SQLite file belongs to one process: use PostgreSQL for several workers.")
        # Also checked in build_app, but the tables must not be migrated by a server that then refuses to start.
        check_exposure(settings)
        asyncio.run(_migrate(settings))
        if not serve_together(settings, listeners):
            raise typer.Exit(1)


def serve_together(settings: Settings, listeners: list[socket]) -> bool:
    """Serve with one process or several until a signal arrives; return whether the server could start."""
    if settings.workers > 1:
        return Workers(settings, listeners).run()
    server = Server(settings)
    server.run(listeners)
    return server.started


@cli.command()
def migrate(database_url: Url = None) -> None:
    """Migrate the tables to the newest schema version."""
    settings = configured(database_url=database_url)
    asyncio.run(_migrate(settings))
    typer.echo(f"The tables in {parse(settings.database_url).shown} have the newest schema version.")


@cli.command()
def schema() -> None:
    """Print the GraphQL schema."""
    typer.echo(sdl(build_schema()), nl=False)


@cli.command()
def verify(database_url: Url = None) -> None:
    """Check that counters, runs, histories and the log are consistent, and that secrets can be decrypted.

    If not, exit with 1. Servers may be running.
    """
    settings = configured(database_url=database_url)
    findings = asyncio.run(_verify(settings))
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(1)
    typer.echo(f"All data in {parse(settings.database_url).shown} are consistent.")


@cli.command()
def watch(
    url: Annotated[str, typer.Argument(help="URL of the server, such as http://127.0.0.1:4200/graphql.")],
    run: Annotated[str | None, typer.Option(help="Id of a run: print its transitions only, from version 1 on.")] = None,
    where: Annotated[str | None, typer.Option(help="Filter as JSON: a TransitionWhere, or an EventMatchInput.")] = None,
    after: Annotated[str | None, typer.Option(help="Start after this cursor; with --run, after this version.")] = None,
    until_final: Annotated[bool, typer.Option("--until-final", help="Exit when the run ends.")] = False,  # noqa: FBT002
    events: Annotated[bool, typer.Option("--events", help="Print events of all kinds.")] = False,  # noqa: FBT002
    key: Key = None,
) -> None:
    """Print transitions as they are committed: a table on a terminal, otherwise lines of JSON. Reconnect if necessary.

    With --until-final the exit code is 0 if the run completed, 1 if it failed or crashed, 2 if it was cancelled. The
    exit code is 3 if the server rejects the subscription.
    """
    try:
        raise typer.Exit(
            run_watch(url, subscription_of(run, where, after, until_final=until_final, events=events), key)
        )
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


@cli.command(name="logs")
def logs_of_run(
    run: Annotated[str, typer.Argument(help="Id of a flow run or of a task run.")],
    url: Annotated[str, typer.Option(help="URL of the server.")] = "http://127.0.0.1:4200/graphql",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines too, until the run ends.")] = False,  # noqa: FBT002
    tail: Annotated[int, typer.Option(min=0, max=1_000, help="With --follow: number of existing lines.")] = 100,
    key: Key = None,
) -> None:
    """Print the logs of a run, those of its task runs and subflow runs among them, oldest first."""
    try:
        raise typer.Exit(run_logs(url, run, tail, key, follow=follow))
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


@cli.command()
def demo(
    url: Annotated[str, typer.Option(help="URL of the server.")] = "http://127.0.0.1:4200/graphql",
    runs: Annotated[
        int | None, typer.Option(min=1, help="Number of flow runs after which to exit; unlimited by default.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Factor by which the flows run faster; 2 takes half the time.", callback=above_zero)
    ] = 1,
    key: Key = None,
) -> None:
    """Run small flows on a server, to create data: with retries, failures, pauses, caches and subflows."""
    try:
        run_demo(url, key, runs, speed)
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


async def _verify(settings: Settings) -> list[str]:
    database = database_of(settings)
    try:
        await check_head(database)
        findings = await findings_of(database, clock())
        # Without secrets, no key is needed or created.
        if await used_keys(database):
            findings += await verify_secrets(database, keyring_of_secrets(settings))
        kept = timedelta(days=settings.automation_firing_retention_days)
        return findings + await verify_automations(database, clock() - kept)
    finally:
        await database.close()


async def _migrate(settings: Settings) -> None:
    database = database_of(settings)
    try:
        await bring_to_head(database)
    finally:
        await database.close()


def configured(**options: object) -> Settings:
    """Return the settings from the environment and the command line; configure logging from them."""
    settings = load(os.environ, **options)
    logs.configure(settings.log_level, settings.log_format)
    for name, similar in unknown_variables(os.environ).items():
        log.warning("unknown_variable", variable=name, probably=similar)
    return settings


def main() -> None:
    """Run a command. Print errors of the configuration and of the database in one line, without a traceback."""
    try:
        cli()
    except RunstateError as error:
        message = error.message
    except FAILURES as error:
        # The line that is printed suffices for operators; the traceback is for developers.
        log.debug("command_failed", exc_info=True)
        message = f"The database cannot be used: {reason(error)}."
    else:
        return
    typer.echo(message, err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
