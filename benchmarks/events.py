"""Throughput of appending events, and whether all of them are there afterwards.

    python -m benchmarks.events --database-url postgresql+asyncpg://… --seconds 10

Starts one server process on loopback without services. Several clients append batches of events, each with an id of the
client, four labels, two related resources and a payload. Prints events per second, CPU time of server and database for
each event, and how many accepted events are missing in the table.
"""

import asyncio
import time
from typing import Annotated, Any, Final
from uuid import uuid4

import psutil
import typer
import uvloop

from benchmarks.http_client import Client, serving
from benchmarks.logs import cpu_seconds

EMIT: Final = """mutation($input: EmitEventsInput!) {
  emitEvents(input: $input) { __typename ... on EmitEventsPayload { duplicateIds } } }"""
COUNT: Final = "{ eventCounts(by: NAME) { value count } }"
NAME: Final = "order.placed"
Url = Annotated[str, typer.Option(help="URL of an empty database.")]


def events(number: int) -> list[dict[str, Any]]:
    """Return events with new ids."""
    return [
        {
            "id": str(uuid4()),
            "name": NAME,
            "resource": {
                "resourceId": f"order.{each % 977}",
                "name": f"Order {each % 977}",
                "labels": {"env": "prod", "region": "eu", "shop": "books"},
            },
            "related": [
                {"resourceId": f"customer.{each % 83}", "role": "customer"},
                {"resourceId": f"tag.{each % 7}", "role": "tag"},
            ],
            "payload": {"amount": each, "currency": "EUR"},
        }
        for each in range(number)
    ]


async def emit(client: Client, batch: int, until: float) -> int:
    """Append batches until a time; return the number of accepted events."""
    accepted = 0
    while time.perf_counter() < until:
        answer = await client.execute(EMIT, input={"events": events(batch)})
        if answer["emitEvents"] != {"__typename": "EmitEventsPayload", "duplicateIds": []}:
            raise RuntimeError(answer)
        accepted += batch
    return accepted


async def measure(url: str, process: psutil.Process, batch: int, clients: int, seconds: float) -> None:
    """Print all figures."""
    connected = [await Client.connect(url) for _ in range(clients)]
    warm = sum(await asyncio.gather(*(emit(each, batch, time.perf_counter() + 1) for each in connected)))
    began, used = time.perf_counter(), cpu_seconds(process)
    accepted = sum(await asyncio.gather(*(emit(each, batch, began + seconds) for each in connected)))
    elapsed, cpu = time.perf_counter() - began, cpu_seconds(process) - used
    print(
        f"{clients} clients, batches of {batch}: {accepted / elapsed:,.0f} events/s, {cpu / accepted * 1e6:.1f} us CPU"
    )
    counted = {each["value"]: each["count"] for each in (await connected[0].execute(COUNT))["eventCounts"]}
    print(f"accepted {warm + accepted:,}, missing {warm + accepted - counted[NAME]:,}")
    for each in connected:
        each.close()


def main(database_url: Url, batch: int = 100, clients: int = 4, seconds: float = 8) -> None:
    """Start a server and print the figures."""
    with serving(database_url) as (url, process):
        uvloop.run(measure(url, process, batch, clients, seconds))


if __name__ == "__main__":
    typer.run(main)
