"""Speed of events and automations with many stored events, compared with an empty table.

    python -m benchmarks.full_event_table --events 10000000

Starts PostgreSQL with two databases, fills the table of events of one of them, and measures both in turn: events that
are appended in a second, in batches of 100 from four tasks, and events that are evaluated in a second against 200
automations. Prints both and their ratio.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import typer
import uvloop
from uuid_utils.compat import uuid7

from benchmarks.automations import clock, trigger
from benchmarks.databases import postgresql
from runstate.core.commands.automations import CreateAutomation, create_automation
from runstate.core.commands.events import emit_events
from runstate.core.context import CommandContext
from runstate.core.evaluation.evaluator import Evaluator
from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.documents.events import EmitEvents

TASKS: Final = 4
BATCH: Final = 100
STEP: Final = 500_000
INDEXES: Final = """SELECT indexname, indexdef FROM pg_indexes
  WHERE tablename = 'event' AND indexname NOT LIKE 'pk%' AND indexname NOT LIKE 'uq%'"""
FILL: Final = """INSERT INTO event (id, name, occurred, received, resource_id, resource, related, payload)
  SELECT lpad(to_hex(n), 32, '0')::uuid, 'stored.' || n % 100, now() - n * interval '10 ms', now(),
    'thing.' || n % 100000, jsonb_build_object('resource_id', 'thing.' || n % 100000), '[]',
    jsonb_build_object('n', n)
  FROM generate_series({since}, {until}) AS n"""


async def fill(url: str, number: int) -> None:
    """Store events that are older than all others."""
    database = Database(url)
    await migrate(database)
    async with database.write() as transaction:
        connection = transaction.connection
        indexes = (await connection.execute(sa.text(INDEXES))).all()
        for name, _ in indexes:
            await connection.execute(sa.text(f"DROP INDEX {name}"))
    for since in range(1, number + 1, STEP):
        async with database.write() as transaction:
            await transaction.connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            await transaction.connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
            until = min(since + STEP - 1, number)
            await transaction.connection.execute(sa.text(FILL.format(since=since, until=until)))
        print(f"{until:,} events stored", flush=True)
    async with database.write() as transaction:
        await transaction.connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        await transaction.connection.execute(sa.text("SET LOCAL maintenance_work_mem = '256MB'"))
        for _, definition in indexes:
            await transaction.connection.execute(sa.text(definition))
        await transaction.connection.execute(sa.text("ANALYZE event"))
    await database.close()


class Side:
    """A database with automations."""

    def __init__(self, url: str, automations: int) -> None:
        self.database, self.automations = Database(url), automations
        self.context = CommandContext(self.database, clock, uuid7, lambda: 0.5)
        self.evaluator = Evaluator(self.database, clock)
        self.rates: dict[str, list[float]] = {"appended": [], "evaluated": []}

    async def prepare(self) -> None:
        """Create the automations, and evaluate up to there."""
        await migrate(self.database)
        # Without automations, the reader skips what is stored.
        await self.evaluator.run_once()
        for place in range(self.automations):
            document = CreateAutomation(name=str(place), trigger=trigger(place), actions=[])
            await create_automation(self.context, document)
        await self.evaluate()

    async def append(self, number: int) -> None:
        """Append events."""

        async def some(task: int) -> None:
            for since in range(task * BATCH, number, TASKS * BATCH):
                told = [
                    {
                        "name": f"order.{each % self.automations}.placed",
                        "resource": {"resource_id": f"order.{each // self.automations % 5}"},
                    }
                    for each in range(since, since + BATCH)
                ]
                await emit_events(self.context, EmitEvents(events=told))  # type: ignore[arg-type]

        await asyncio.gather(*map(some, range(TASKS)))

    async def evaluate(self) -> None:
        """Evaluate up to the end of the log."""
        await self.evaluator.run_once()
        while self.evaluator.is_behind:
            await self.evaluator.run_once()

    async def measure(self, what: str, number: int, work: Callable[[], Awaitable[None]]) -> None:
        """Measure one kind of work."""
        began = time.perf_counter()
        await work()
        self.rates[what].append(number / (time.perf_counter() - began))


async def compare(empty: Side, full: Side, number: int, rounds: int) -> None:
    """Measure both databases in turn, and print the rates and their ratio."""
    for each in (empty, full):
        await each.prepare()
    for turn in range(rounds + 1):
        for side in (empty, full) if turn % 2 else (full, empty):
            await side.measure("appended", number, lambda side=side: side.append(number))  # type: ignore[misc]
            await side.measure("evaluated", number, side.evaluate)
    for what in ("appended", "evaluated"):
        # The first turn warms up.
        before, after = (statistics.median(each.rates[what][1:]) for each in (empty, full))
        print(f"{what}: {before:,.0f} events/s with an empty table, {after:,.0f} with a full one: {after / before:.2f}")
    for each in (empty, full):
        await each.database.close()


def main(events: int = 10_000_000, automations: int = 200, number: int = 10_000, rounds: int = 5) -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, postgresql(Path(folder)) as (url, _):
        full = url.replace("/postgres?", "/template1?")
        uvloop.run(fill(full, events))
        uvloop.run(compare(Side(url, automations), Side(full, automations), number, rounds))


if __name__ == "__main__":
    typer.run(main)
