"""Compare the server of this checkout with the one of another checkout, by the work of `bench.py`.

    git worktree add ../before REVISION && make -C ../before .venv/serving && make .venv/serving
    python -m benchmarks.paired ../before
    python -m benchmarks.paired ../before --database postgresql --only hundreds --rounds 60

Both servers run at the same time, each with a database of its own. They work in turns of a second, so other load of the
machine slows both. CPU per operation is the steadier figure: a ratio of 1.03 is 3 % more than before.
"""

import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import asyncpg
import sqlalchemy as sa
import typer
import uvloop

from benchmarks.bench import (
    PAGE,
    Place,
    Timed,
    asking,
    at_once,
    create,
    creations,
    finished,
    flow_run_of,
    hundreds,
    lifecycle,
    updates,
)
from benchmarks.databases import postgresql
from benchmarks.http_client import Client, serving

Work = Callable[[Client, Timed, float], Awaitable[None]]


@contextmanager
def databases(kind: str) -> Iterator[list[str]]:
    """Yield the URLs of two new databases."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield [f"sqlite+aiosqlite:///{folder}/{each}.db" for each in ("before", "now")]
            return
        with postgresql(Path(folder) / "postgresql") as (url, _):
            uvloop.run(_create(url))
            named = (sa.make_url(url).set(database=each) for each in ("before", "now"))
            yield [each.render_as_string(hide_password=False) for each in named]


async def _create(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    for each in ("before", "now"):
        await connection.execute(f"CREATE DATABASE {each}")
    await connection.close()


async def works(place: Place) -> dict[str, tuple[int, Callable[[], Work]]]:
    """Return each kind of work with its number of clients, prepared on a server."""
    client = await Client.connect(place.url)
    flow_run = await flow_run_of(client)
    tasks = [await create(client, flow_run) for _ in range(800)]
    await finished(place, 250)
    client.close()
    return {
        "lifecycle 1": (1, lambda: lifecycle(flow_run)),
        "lifecycle 32": (32, lambda: lifecycle(flow_run)),
        "hundreds": (8, lambda: hundreds(tasks, 8)),
        "creations": (8, lambda: creations),
        "updates": (8, lambda: updates),
        "page 1": (1, lambda: asking(PAGE)),
        "page 8": (8, lambda: asking(PAGE)),
        "typename": (8, lambda: asking("{ __typename }")),
    }


async def compare(places: list[Place], name: str, rounds: int, only: str) -> None:
    """Print the ratios of each kind of work."""
    prepared = [await works(place) for place in places]
    for kind, (clients, _) in prepared[0].items():
        if only not in kind:
            continue
        found: list[list[Timed]] = [[], []]
        for turn in range(rounds + 2):
            for which in (0, 1) if turn % 2 else (1, 0):
                timed = await at_once(places[which], clients, prepared[which][kind][1](), 1)
                if turn > 1:  # the first turns fill caches
                    found[which].append(timed)
        print(f"| {name}: {kind} | {_line(*found)} |", flush=True)


def _line(before: list[Timed], now: list[Timed]) -> str:
    def cpu(timed: Timed) -> float:
        return timed.server / timed.count * 1000

    def spread(each: Callable[[Timed], float]) -> str:
        ratios = sorted(each(new) / each(old) for old, new in zip(before, now, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"

    first, second = (statistics.median(cpu(each) for each in side) for side in (before, now))
    return f"{first:.3f} | {second:.3f} | {spread(cpu)} | {spread(lambda each: each.rate)}"


def main(
    before: Annotated[Path, typer.Argument(help="Checkout to compare with; its server is installed in .venv.")],
    now: Annotated[Path, typer.Argument(help="The other checkout.")] = Path(),
    database: Annotated[str, typer.Option(help="`sqlite`, `postgresql`, or both.")] = "sqlite,postgresql",
    rounds: Annotated[int, typer.Option(help="Turns of a second for each server and kind of work.")] = 20,
    only: Annotated[str, typer.Option(help="Only kinds of work whose name contains this.")] = "",
) -> None:
    """Compare both servers and print a table."""
    print("| work | CPU ms before | CPU ms now | CPU now / before (quartiles) | rate now / before (quartiles) |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    pythons = [str(each.absolute() / ".venv/bin/python") for each in (before, now)]
    for kind, name in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL")):
        if kind in database:
            with ExitStack() as stack:
                urls = stack.enter_context(databases(kind))
                served = [
                    (stack.enter_context(serving(url, python=python)), url)
                    for url, python in zip(urls, pythons, strict=True)
                ]
                places = [Place(address, url, server, None) for (address, server), url in served]
                uvloop.run(compare(places, name, rounds, only))


if __name__ == "__main__":
    typer.run(main)
