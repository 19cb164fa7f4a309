"""`runstate serve | migrate | schema | verify | watch | demo | keys`."""

import asyncio
import fcntl
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import structlog
import typer
import uvicorn
from pydantic import ValidationError

from runstate.app import build_app, clock
from runstate.core.verify import verify as findings_of
from runstate.database import Database
from runstate.database.migrate import migrate as bring_to_head
from runstate.demo import run_demo
from runstate.errors import Misconfigured
from runstate.graphql.schema import build_schema, sdl
from runstate.keys import cli as keys
from runstate.settings import Settings
from runstate.watch import REFUSED, RefusedError, run_watch, wish_of

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cli.add_typer(keys, name="keys")

Url = Annotated[str | None, typer.Option("--database-url", help="Where it is kept; RUNSTATE_DATABASE_URL.")]
Host = Annotated[str | None, typer.Option(help="The address to listen on; RUNSTATE_HOST.")]
Port = Annotated[int | None, typer.Option(help="The port to listen on; RUNSTATE_PORT.")]

Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Everybody who reaches the server may do everything; RUNSTATE_INSECURE."),
]


class Server(uvicorn.Server):
    """Uvicorn that ends with exit code 0 when it is asked to stop, and says where to look when it has started."""

    def __init__(self, settings: Settings) -> None:
        self.app = build_app(settings)
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=2**18,
                ws_ping_timeout=settings.subscriber_patience_seconds + 60,  # who is slow is told so, not cut off
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                timeout_keep_alive=75,  # longer than clients and proxies keep idle connections
            )
        )
        self.settings = settings

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; the second one does not wait."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start, and say where to look."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started:
            self._give_up_the_dead()
            port = self.servers[0].sockets[0].getsockname()[1]
            typer.echo(f"runstate listens on http://{self.settings.host}:{port}/graphql")
            typer.echo(f"It keeps its data in {shown(self.settings.database_url)}")

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Tell subscribers what was committed so far, then close every connection."""
        for server in self.servers:
            server.close()
        if hub := getattr(self.app.state, "hub", None):
            await hub.stop()
        await super().shutdown(sockets=sockets)  # type: ignore[arg-type]

    def _give_up_the_dead(self) -> None:
        """Have connections ended whose other side takes nothing for long: neither WebSockets nor events notice it."""
        milliseconds = round(self.settings.subscriber_patience_seconds * 1000) + 60_000
        if sys.platform == "linux":
            for listening in self.servers[0].sockets:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


@cli.command()
def serve(host: Host = None, port: Port = None, database_url: Url = None, insecure: Insecure = None) -> None:
    """Run the server."""
    settings = configured(host=host, port=port, database_url=database_url, insecure=insecure)
    with sole_owner(settings.database_url):
        server = Server(settings)
        server.run()
    if not server.started:
        raise typer.Exit(1)


@cli.command()
def migrate(database_url: Url = None) -> None:
    """Bring the tables to their newest shape."""
    settings = configured(database_url=database_url)
    asyncio.run(_migrate(settings))
    typer.echo(f"The tables in {shown(settings.database_url)} have their newest shape.")


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
    typer.echo(f"Everything in {shown(settings.database_url)} agrees.")


@cli.command()
def watch(
    url: Annotated[str, typer.Argument(help="Where the server is, such as http://127.0.0.1:4200/graphql.")],
    run: Annotated[str | None, typer.Option(help="Only this run, from its first version on.")] = None,
    where: Annotated[str | None, typer.Option(help="Only these: a TransitionWhere as JSON.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this cursor; with --run: after this version.")] = None,
    until_final: Annotated[bool, typer.Option("--until-final", help="End when the run does.")] = False,  # noqa: FBT002
) -> None:
    """Print transitions as they come: a table, or lines of JSON into a pipe; connect again when that is needed.

    With --until-final the exit code says how the run ended: 0 completed, 1 failed or crashed, 2 cancelled. 3: the
    server does not want to tell.
    """
    try:
        raise typer.Exit(run_watch(url, wish_of(run, where, after, until_final=until_final)))
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


@cli.command()
def demo(
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:4200/graphql",
    runs: Annotated[int | None, typer.Option(min=1, help="End after so many flow runs; without it: never.")] = None,
    pace: Annotated[float, typer.Option(min=0, help="How many seconds a second of the flows takes.")] = 1,
    key: Annotated[str | None, typer.Option(envvar="RUNSTATE_KEY", help="A key that may propose.")] = None,
) -> None:
    """Run a few small flows on a server: with retries, failures, pauses, caches and subflows to look at."""
    try:
        run_demo(url, key, runs, pace)
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


async def _verify(settings: Settings) -> list[str]:
    database = Database(settings.database_url)
    try:
        return await findings_of(database, clock())
    finally:
        await database.close()


async def _migrate(settings: Settings) -> None:
    database = Database(settings.database_url)
    try:
        await bring_to_head(database)
    finally:
        await database.close()


def configured(**given: object) -> Settings:
    """The settings from the environment and the command line, and logging as they say."""
    settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    colors = sys.stderr.isatty()
    for_people = structlog.dev.ConsoleRenderer(colors=colors)
    for_programs = structlog.processors.JSONRenderer()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *([structlog.processors.format_exc_info, for_programs] if settings.log_format == "json" else [for_people]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return settings


def shown(url: str) -> str:
    """A database URL without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


@contextmanager
def sole_owner(url: str) -> Iterator[None]:
    """Hold a SQLite file for as long as the block runs; `Misconfigured` if another server does."""
    file = Database(url).file
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
            raise Misconfigured(message) from None
        yield


def main() -> None:
    """Run a command; what is misconfigured is said in a line."""
    try:
        cli()
    except (Misconfigured, ValidationError, sa.exc.ArgumentError) as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
