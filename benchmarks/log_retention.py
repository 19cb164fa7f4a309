"""The rate of writers while expired lines are deleted.

    python -m benchmarks.log_retention --database-url postgresql+asyncpg://… --lines 1000000

Migrates an empty database, fills it with lines that have expired, and starts a server on loopback. Four clients write
lines, first alone, then while a second process deletes the expired lines as the service `cleanup` does, then alone
again. Prints the rates and the time of the deletion.
"""

import asyncio
import multiprocessing
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
import uvloop

from benchmarks.http_client import serving
from benchmarks.log_search import prepare
from benchmarks.logs import throughput
from runstate.database import Database
from runstate.database.queries.expiry import delete_expired

SETTINGS: Final = {"run_log_retention_days": 30.0}
Url = Annotated[str, typer.Option(help="URL of an empty database.")]


def delete(url: str) -> None:
    """Delete the expired lines, and print the time that it takes."""

    async def run() -> None:
        database, began = Database(url), time.perf_counter()
        number = await delete_expired(database, datetime.now(UTC), SETTINGS)
        print(f"{number:,} lines were deleted in {time.perf_counter() - began:.1f} s", flush=True)
        await database.close()

    asyncio.run(run())


def main(database_url: Url, lines: int = 1_000_000, batch: int = 200, clients: int = 4, seconds: float = 6) -> None:
    """Print all figures."""
    uvloop.run(prepare(database_url, lines))
    with serving(database_url) as (url, process):
        deletion = multiprocessing.get_context("spawn").Process(target=delete, args=(database_url,))
        for name in ("alone", "while lines are deleted", "after the start of the deletion", "alone again"):
            if name.startswith("while"):
                deletion.start()
            elif name == "alone again":
                deletion.join()
            speed, _ = uvloop.run(throughput(url, process, batch, clients, seconds))
            print(f"{name}: {speed:,.0f} lines/s", flush=True)


if __name__ == "__main__":
    typer.run(main)
