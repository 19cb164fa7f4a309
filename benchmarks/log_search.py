"""Latency of searches for a rare word in many lines.

    python -m benchmarks.log_search --database-url postgresql+asyncpg://… --lines 10000000

Migrates the database, fills the table of lines up to a number, starts a server and searches through it: for a word
that four lines have, for the token of one line, for a word that no line has, and for a word that all lines have. Prints
median and 95th percentile of each. `--fill-only` fills the table and stops.
"""

import asyncio
import random
import statistics
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
import typer
import uvloop

from benchmarks.http_client import Client, repeat, request, serving
from runstate.core.commands.logs import COLUMNS
from runstate.database import Database
from runstate.database.bulk import append, table_of
from runstate.database.migrate import migrate
from runstate.rows import Log

SEARCH: Final = "query($text: String!) { logs(where: {search: $text}, first: 50) { nodes { id message } } }"
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
BATCH: Final = 1_000
RUN_LINES: Final = 100_000
RARE: Final = "Zebrafinch"
Url = Annotated[str, typer.Option(help="URL of a database for this benchmark.")]


def message(number: int, every: int) -> str:
    """Return the text of a line; some lines have the rare word."""
    word = f" {RARE}" if number % every == every // 2 else ""
    return f"Order {number} of customer {number % 977} was loaded in {number % 83} ms, token {token(number)}{word}"


def token(number: int) -> str:
    """Return the token of a line, 16 random hexadecimal digits."""
    return f"{random.Random(number).getrandbits(64):016x}"


def records(since: int, every: int) -> list[tuple[Any, ...]]:
    """Return a batch of lines, ten microseconds apart."""
    return [
        (
            UUID(int=(since << 80) + number),
            START,
            "etl.orders",
            20,
            message(number, every),
            START + timedelta(microseconds=10 * number),
            UUID(int=1 + number // RUN_LINES),
            None,
            None,
            False,
        )
        for number in range(since, since + BATCH)
    ]


async def fill(database: Database, number: int) -> None:
    """Write lines until there are enough."""
    async with database.read() as connection:
        there = await connection.scalar(sa.select(sa.func.count()).select_from(table_of(Log))) or 0
    waiting = iter(range(there, number, BATCH))

    async def write() -> None:
        for since in waiting:
            async with database.write() as transaction:
                await append(transaction.connection, Log, COLUMNS, records(since, number // 4))

    await asyncio.gather(*(write() for _ in range(1 if database.is_sqlite else 2)))


async def prepare(url: str, number: int) -> None:
    """Migrate and fill a database."""
    database = Database(url, statement_timeout_seconds=600)
    await migrate(database)
    await fill(database, number)
    await database.close()


async def measure(url: str, number: int, seconds: float) -> None:
    """Print the latencies of all searches."""
    words = {
        "in four lines": RARE,
        "in one line": token(number // 3),
        "in no line": "ornithorhynchus",
        "in all": "ORDER",
    }
    for name, text in words.items():
        client = await Client.connect(url)
        found = await client.execute(SEARCH, text=text)
        client.close()
        taken = await repeat(url, request(SEARCH, text=text), seconds, 1)
        median, worst = statistics.median(taken) * 1e3, taken[int(len(taken) * 0.95)] * 1e3
        lines = len(found["logs"]["nodes"])
        print(f"{name}: {lines} found, median {median:.2f} ms, 95 % within {worst:.2f} ms")


def main(
    database_url: Url, lines: int = 1_000_000, seconds: float = 3, *, fill_only: Annotated[bool, typer.Option()] = False
) -> None:
    """Fill the database, and print the latency of searches."""
    uvloop.run(prepare(database_url, lines))
    if not fill_only:
        with serving(database_url) as (url, _):
            uvloop.run(measure(url, lines, seconds))


if __name__ == "__main__":
    typer.run(main)
