"""`runstate worker start`."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from typing import Annotated

import typer

from runstate.cli.watch import REFUSED
from runstate.cli.worker.api import Api, ProblemError
from runstate.cli.worker.worker import Options, Worker, default_name
from runstate.client.errors import RefusedError
from runstate.client.sockets import socket_address

cli = typer.Typer(no_args_is_help=True, help="Execute runs of work pools.")


@cli.callback()
def commands() -> None:
    """Execute runs of work pools."""


@cli.command()
def start(  # noqa: PLR0913 each option of the command is an argument
    pool: Annotated[str, typer.Option("--pool", "-p", help="Name of a work pool of type `process`.")],
    url: Annotated[
        str, typer.Option(envvar="RUNSTATE_URL", help="URL of the server.")
    ] = "http://127.0.0.1:4200/graphql",
    *,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of the worker; host and pid by default.")
    ] = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="Name of a queue, repeatable; all queues by default.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, help="Number of runs at the same time; one for each core by default.")
    ] = os.cpu_count() or 1,
    lease: Annotated[
        float, typer.Option(min=10, max=3600, help="Seconds after which claims expire if the worker dies.")
    ] = 60,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks for due runs without a hint.")] = 15,
    heartbeat: Annotated[float, typer.Option(min=1, help="Seconds between two heartbeats of the worker.")] = 30,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL to a process that is stopped.")
    ] = 30,
    key: Annotated[str | None, typer.Option(envvar="RUNSTATE_API_KEY", help="API key, or `user:password`.")] = None,
) -> None:
    """Claim due runs of a pool and execute each as a command.

    On SIGTERM or SIGINT, the worker claims no more runs and ends with its last process; a second signal stops them.
    """
    options = Options(pool, name or default_name(), tuple(queue or ()), limit, lease, poll, heartbeat, grace)
    try:
        asyncio.run(work(url, key and key.strip(), options))
    except RefusedError as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(REFUSED) from None


async def work(url: str, key: str | None, options: Options) -> None:
    """Work until SIGTERM. Raise RefusedError if the server refuses the worker."""
    environment = {"RUNSTATE_URL": url, **({"RUNSTATE_API_KEY": key} if key else {})}
    api = Api(socket_address(url), key, lambda text: say(options.name, text))
    worker = Worker(api, options, environment, say)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await worker.run()
    except* (RefusedError, ProblemError) as refused:
        raise RefusedError(str(first_of(refused))) from None
    say(options.name, "Stopped.")


def first_of(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the first error of a group."""
    found = group.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found


def say(label: str, message: str) -> None:
    """Print a step."""
    typer.echo(f"{datetime.now(UTC):%H:%M:%S}  {label:48} {message}")
