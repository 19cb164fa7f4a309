"""Speed of the evaluation of triggers, and the delay from an event to the firing that it causes.

    python -m benchmarks.automations --database-url postgresql+asyncpg://… --events 50000

Creates automations whose triggers expect names of their own, appends events, and evaluates all of them in this process:
events per second. Then starts a server with the service `automations`, appends events one by one at a fixed rate, and
prints the time between the arrival of an event and the writing of its firing.
"""

import asyncio
import statistics
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import uuid4

import sqlalchemy as sa
import typer
import uvloop
from uuid_utils.compat import uuid7

from benchmarks.http_client import Client, serving
from runstate.core.commands.automations import CreateAutomation, create_automation
from runstate.core.commands.events import emit_events
from runstate.core.context import CommandContext
from runstate.core.evaluation.evaluator import Evaluator
from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.documents.events import EmitEvents
from runstate.rows import AutomationFiring, Event

EMIT: Final = "mutation($input: EmitEventsInput!) { emitEvents(input: $input) { __typename } }"
BATCH: Final = 500
Url = Annotated[str, typer.Option(help="URL of an empty database.")]


def clock() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def trigger(place: int) -> dict[str, Any]:
    """Return a trigger that fires at every tenth event of its name."""
    its = {"kind": "event", "posture": "REACTIVE", "expect": [f"order.{place}.*"], "threshold": 10}
    return {**its, "within_seconds": 0, "for_each": [{"label": "resource.id"}]}


async def evaluated(url: str, automations: int, number: int) -> None:
    """Print how many events of a backlog are evaluated in a second."""
    database = Database(url)
    await migrate(database)
    context = CommandContext(database, clock, uuid7, lambda: 0.5)
    evaluator = Evaluator(database, clock)
    for place in range(automations):
        await create_automation(context, CreateAutomation(name=str(place), trigger=trigger(place), actions=[]))
    await evaluator.run_once()
    for since in range(0, number, BATCH):
        told = [
            {
                "name": f"order.{each % automations}.placed",
                "resource": {"resource_id": f"order.{each // automations % 5}"},
            }
            for each in range(since, since + BATCH)
        ]
        await emit_events(context, EmitEvents(events=told))  # type: ignore[arg-type]
    began = time.perf_counter()
    fired = await evaluator.run_once()
    elapsed = time.perf_counter() - began
    print(f"{automations} automations: {number / elapsed:,.0f} events/s, {fired:,} firings of {number:,} events")
    once = CreateAutomation(name="one", trigger={**trigger(0), "expect": ["delay"], "threshold": 1}, actions=[])
    await create_automation(context, once)
    # Its lease would keep the server waiting.
    await evaluator.release()
    await database.close()


async def delays(url: str, address: str, rate: float, seconds: float) -> None:
    """Print the delay of firings at a rate of events."""
    client = await Client.connect(address)
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        if sent <= (now - began) * rate:
            told = {"name": "delay", "resource": {"resourceId": str(uuid4())}}
            await client.execute(EMIT, input={"events": [told]})
            sent += 1
        else:
            await asyncio.sleep(0.001)
    await asyncio.sleep(2)
    client.close()
    await _print_delays(url, sent, sent / seconds)


async def _print_delays(url: str, sent: int, rate: float) -> None:
    database = Database(url)
    events, firings = Event.__table__, AutomationFiring.__table__
    joined = events.join(firings, firings.c.event_id == events.c.id)
    asked = sa.select(firings.c.created, events.c.received).select_from(joined).where(events.c.name == "delay")
    async with database.read() as connection:
        taken = sorted((wrote - came).total_seconds() * 1e3 for wrote, came in await connection.execute(asked))
    await database.close()
    late = taken[int(len(taken) * 0.99)]
    print(
        f"{rate:.0f} events/s: {len(taken)} of {sent} fired; p50 {statistics.median(taken):.0f} ms, p99 {late:.0f} ms"
    )


def main(
    database_url: Url, automations: int = 200, events: int = 50_000, rate: float = 200, seconds: float = 8
) -> None:
    """Measure, and print the figures."""
    uvloop.run(evaluated(database_url, automations, events))
    with serving(database_url, RUNSTATE_SERVICES="automations") as (address, _):
        uvloop.run(delays(database_url, address, rate, seconds))


if __name__ == "__main__":
    typer.run(main)
