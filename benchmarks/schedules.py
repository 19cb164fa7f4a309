"""Deployments with schedules, over HTTP, and the scheduler that creates their runs.

    python -m benchmarks.schedules --database-kind postgresql --deployments 2000 --schedules 10000

Starts a server on loopback with a new database. Clients create deployments with one schedule each. The scheduler of
this process then creates the runs of schedules with a date every minute. At the end a server runs the scheduler for
schedules with a date every ten minutes. The last line has its share of a processor, and the share of the wanted runs
that it created.
"""

import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import random
from typing import Annotated, Any

import psutil
import sqlalchemy as sa
import typer
import uvloop
from uuid_utils.compat import uuid7

from benchmarks.databases import database
from benchmarks.http_client import Client, serving
from runstate.core.batch.batcher import Batcher
from runstate.core.commands.crud import new_columns
from runstate.core.commands.deployments import CreateDeployment, create_deployment
from runstate.core.commands.flows import CreateFlow, create_flow
from runstate.core.commands.schedules import ScheduleFields
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.database.bulk import inserted, write
from runstate.documents.schedules import IntervalSchedule
from runstate.rows import Deployment, DeploymentSchedule, FlowRun
from runstate.services import scheduler

CLIENTS = 8
FLOW = 'mutation { createFlow(input: {name: "bench"}) { ... on CreateFlowPayload { flow { id } } } }'
DEPLOY = """mutation($flow: ID!, $name: String!) { it: createDeployment(input: {
  flowId: $flow, name: $name, schedules: [
  {schedule: {cron: {cron: "0 3 * * *", timeZone: "Europe/Berlin"}}}] }) {
  __typename ... on CreateDeploymentPayload { created deployment { id } } } }"""
FAST = 300
"""Schedules with a date every minute."""
STEADY_SECONDS = 60
EVERY = timedelta(minutes=10)
Kind = Annotated[str, typer.Option(help="`sqlite` or `postgresql`.")]
Deployments = Annotated[int, typer.Option(help="Number of deployments that clients create.")]
Schedules = Annotated[int, typer.Option(help="Number of active schedules.")]


async def deploy(url: str, flow: str, number: int, count: int) -> None:
    """Create deployments with a schedule over one connection."""
    client = await Client.connect(url)
    for place in range(count):
        made = await client.execute(DEPLOY, flow=flow, name=f"d-{number}-{place}")
        assert made["it"].get("created"), made  # noqa: S101 a refused request must not count
    client.close()


async def create(url: str, count: int) -> None:
    """Create deployments from several clients, and print a line."""
    client = await Client.connect(url)
    flow = (await client.execute(FLOW))["createFlow"]["flow"]["id"]
    client.close()
    began = time.perf_counter()
    await asyncio.gather(*(deploy(url, flow, number, count // CLIENTS) for number in range(CLIENTS)))
    print(f"deployments with a schedule: {count / (time.perf_counter() - began):.0f}/s")


async def fill(context: CommandContext, count: int, seconds: float) -> None:
    """Insert deployments with one schedule each, at evenly spread times."""
    now = context.clock()
    flow = (await create_flow(context, CreateFlow(name=f"flow-{seconds}"))).row.id
    fields = ScheduleFields(schedule=IntervalSchedule(interval_seconds=seconds))
    example = CreateDeployment(flow_id=flow, name="example", schedules=[fields])
    row = (await create_deployment(context, example)).row
    common = {**vars(row), "created": now, "updated": now}
    rows, plans = list[dict[str, Any]](), list[dict[str, Any]]()
    for place in range(count):
        rows.append({**common, "id": uuid7(), "name": f"d-{place}"})
        anchor = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds * place / count)
        plan = new_columns(DeploymentSchedule, ScheduleFields(schedule=IntervalSchedule(interval_seconds=seconds)))
        plan |= {
            "schedule": IntervalSchedule(interval_seconds=seconds, anchor=anchor),
            "parameters": {},
            "active": True,
        }
        plan |= {"id": uuid7(), "created": now, "updated": now, "deployment_id": rows[-1]["id"]}
        plans.append({**plan, "revision": 0, "next_pass": now, "fault": None})
    for start in range(0, count, 500):
        async with context.database.write() as transaction:
            await write(transaction.connection, [inserted(Deployment, rows[start : start + 500])])
            await write(transaction.connection, [inserted(DeploymentSchedule, plans[start : start + 500])])


async def runs_in(opened: Database) -> int:
    """Return the number of flow runs."""
    async with opened.read() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(FlowRun))).scalar_one())


async def insert(at: str, schedules: int) -> None:
    """Have the scheduler of this process create many runs, and print a line."""
    opened = Database(at)
    batcher = Batcher(opened, clock=lambda: datetime.now(UTC), draw=random, new_id=uuid7)
    await fill(batcher.context, FAST, 60)
    before, began = await runs_in(opened), time.perf_counter()
    await scheduler.run_once(batcher, batcher.clock())
    seconds = time.perf_counter() - began
    print(f"runs of the scheduler: {(await runs_in(opened) - before) / seconds:.0f}/s")
    await fill(batcher.context, schedules, EVERY.total_seconds())
    await scheduler.run_once(batcher, batcher.clock())
    await batcher.close()
    await opened.close()


async def keep_up(at: str, process: psutil.Process, schedules: int) -> None:
    """Measure a server that keeps up with the schedules, and print a line."""
    opened = Database(at)
    await asyncio.sleep(5)
    before, used, began = await runs_in(opened), _used(process), time.perf_counter()
    await asyncio.sleep(STEADY_SECONDS)
    made, seconds = await runs_in(opened) - before, time.perf_counter() - began
    share = 100 * (_used(process) - used) / seconds
    wanted = (schedules / EVERY.total_seconds() + FAST / 60) * seconds
    print(f"{schedules} schedules: {share:.1f} % of a processor, {100 * made / wanted:.0f} % of their runs created")
    await opened.close()


def _used(process: psutil.Process) -> float:
    """Return the seconds of processor time of a server with its children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def main(database_kind: Kind = "sqlite", deployments: Deployments = 2000, schedules: Schedules = 10_000) -> None:
    """Measure one kind of database."""
    with tempfile.TemporaryDirectory() as folder, database(database_kind, Path(folder)) as at:
        with serving(at) as (url, _):
            uvloop.run(create(url, deployments))
        uvloop.run(insert(at, schedules))
        with serving(at, RUNSTATE_SERVICES="scheduler") as (_, process):
            uvloop.run(keep_up(at, process, schedules))


if __name__ == "__main__":
    typer.run(main)
