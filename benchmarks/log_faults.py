"""Delivery of lines of logs under faults: each subscriber must receive every line once, and those of a run in order.

    python -m benchmarks.log_faults --database postgresql --seconds 120
    python -m benchmarks.log_faults --database sqlite --seconds 120

Ten writers write batches of lines, each to a run of its own: half of them through the servers, half in transactions of
their own that last up to half a second and are sometimes rolled back. Twenty subscribers with different conditions
disconnect at random and resume after their cursor on any server. Meanwhile a server is killed with SIGKILL and
restarted, and so is PostgreSQL (`benchmarks.faults`). At the end the lines that each subscriber received are
compared with the table. A call whose answer is lost is not repeated, so that each line has a number of its own.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
import sqlalchemy as sa
import typer
from uuid_utils.compat import uuid7

from benchmarks.faults import Server, environment, execute, inject_faults, wait_until_available
from benchmarks.feed_faults import Entry, Filter, Subscriber, Told, Writer, report
from runstate.core.commands.logs import COLUMNS, CONSECUTIVE, ENTRY_COLUMNS
from runstate.database import Database
from runstate.database.bulk import append, table_of
from runstate.database.driver import fetch
from runstate.rows import Log, LogWrite

WRITERS: Final = 10
SUBSCRIBERS: Final = 20
LEVELS: Final = (10, 20, 30, 40)
DOCUMENT: Final = """subscription($where: LogWhere, $tree: ID, $after: String) {
  logs(where: $where, tree: $tree, after: $after) { cursor logs { flowRunId message } } }"""
WRITE: Final = "mutation($input: WriteLogsInput!) { writeLogs(input: $input) { __typename } }"
FLOW: Final = """mutation { it: createFlow(input: {name: "logs"}) { ... on CreateFlowPayload { flow { id } } } }"""
RUN: Final = """mutation($flow: ID!, $parent: ID) {
  it: createFlowRun(input: {flowId: $flow, parentTaskRunId: $parent}) {
    ... on CreateFlowRunPayload { flowRun { id } } } }"""
TASK: Final = """mutation($run: ID!) { it: createTaskRun(input: {flowRunId: $run, taskKey: "t", dynamicKey: "0"}) {
  ... on CreateTaskRunPayload { taskRun { id } } } }"""


class LogSubscriber(Subscriber):
    """A subscriber to lines. Its filter may name a tree."""

    field, document = "logs", DOCUMENT

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the subscription."""
        return {**self.filter.where, "after": self.cursor}

    @staticmethod
    def told(entry: dict[str, Any]) -> Told:
        """Return the run of a line, and its number in the run."""
        return entry["flowRunId"], int(entry["message"].split()[-1])


class LogWriter(Writer):
    """A writer of lines of one run, through a server or in transactions of its own."""

    def __init__(self, run: str, servers: list[Server], database: Database, chance: random.Random) -> None:
        super().__init__(None, servers, database, chance)
        self.run, self.numbers = run, itertools.count()

    def lines(self) -> list[tuple[int, str]]:
        """Return the levels and messages of a batch."""
        size = self.chance.choice([1, 1, 5, 20, 300])
        return [(self.chance.choice(LEVELS), f"line {next(self.numbers)}") for _ in range(size)]

    async def send(self) -> None:
        """Write lines through a server."""
        now = datetime.now(UTC).isoformat()
        common = {"flowRunId": self.run, "logger": "l", "timestamp": now}
        given = [{**common, "level": level, "message": message} for level, message in self.lines()]
        async with httpx.AsyncClient(base_url=f"http://{self.chance.choice(self.servers).address}") as client:
            await execute(client, WRITE, input={"logs": given})

    async def insert(self) -> None:
        """Write lines in a transaction that lasts for a while; sometimes roll it back."""
        now, lines, run = datetime.now(UTC), self.lines(), UUID(self.run)
        first = uuid7().int & ~(CONSECUTIVE - 1)
        rows = [
            (UUID(int=first + place), now, "l", level, message, now, run, None, None, False)
            for place, (level, message) in enumerate(lines)
        ]
        patience = 0.02 if self.database.is_sqlite else 0.5
        async with self.database.writer.connect() as connection, connection.begin() as transaction:
            await append(connection, Log, COLUMNS, rows)
            for start in range(0, len(rows), 200):
                part = rows[start : start + 200]
                entry = (now, part[0][0], len(part), 100 * len(part), run)
                await append(connection, LogWrite, ENTRY_COLUMNS, [entry])
            await asyncio.sleep(self.chance.choice([0, 0, 0.01, patience]))
            if self.chance.random() < 0.15:
                await transaction.rollback()


def filters(chance: random.Random, runs: list[str]) -> list[Filter]:
    """Return a filter for each subscriber. The second run is a subflow run of the first."""
    several = chance.sample(runs, 3)
    some: list[Filter] = [
        Filter({}, lambda _: True),
        Filter({"tree": runs[0]}, lambda line: str(line.flow_run_id) in runs[:2]),
        Filter({"tree": runs[2]}, lambda line: str(line.flow_run_id) == runs[2]),
        Filter({"where": {"level": {"gte": 30}}}, lambda line: line.level >= 30),
        Filter({"where": {"flowRunId": {"in": several}}}, lambda line: str(line.flow_run_id) in several),
        Filter({"where": {"search": "7"}, "tree": runs[1]}, lambda line: _has_seven(line, runs[1])),
    ]
    return list(itertools.islice(itertools.cycle(some), SUBSCRIBERS))


def _has_seven(line: Entry, run: str) -> bool:
    return "7" in line.message and str(line.flow_run_id) == run


async def prepare(server: Server) -> tuple[list[str], str]:
    """Create flow runs; return their ids, and the cursor of the end of the logs."""
    async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as client:
        flow = (await execute(client, FLOW))["it"]["flow"]["id"]

        async def run(parent: str | None = None) -> str:
            return str((await execute(client, RUN, flow=flow, parent=parent))["it"]["flowRun"]["id"])

        root = await run()
        task = (await execute(client, TASK, run=root))["it"]["taskRun"]["id"]
        runs = [root, await run(task), *[await run() for _ in range(WRITERS - 2)]]
        return runs, (await execute(client, "{ logCursor }"))["logCursor"]


async def written(database: Database) -> list[Entry]:
    """Return all lines."""
    table = table_of(Log)
    columns = (table.c.flow_run_id, table.c.message, table.c.level)
    async with database.read() as connection:
        return [
            Log.of(dict(zip(("flow_run_id", "message", "level"), each, strict=True)))
            for each in await fetch(connection, sa.select(*columns))
        ]


async def run(kind: str, seconds: float, seed: int) -> bool:
    """Run the benchmark. Return whether no line was lost, repeated or disordered."""
    chance = random.Random(seed)
    async with environment(kind) as (url, servers, postgres):
        database = Database(url)
        runs, cursor = await prepare(servers[0])
        subscribers = [LogSubscriber(each, servers, cursor, chance) for each in filters(chance, runs)]
        listening = [asyncio.create_task(subscriber.listen()) for subscriber in subscribers]
        writers = [LogWriter(each, servers, database, chance) for each in runs]
        acts: list[Callable[[], Any]] = [each.send if place % 2 else each.insert for place, each in enumerate(writers)]
        until = time.monotonic() + seconds
        work = [writer.work(until, act) for writer, act in zip(writers, acts, strict=True)]
        await asyncio.gather(inject_faults(servers, postgres, seconds), *work)
        await wait_until_available(database)
        lines = await written(database)
        for subscriber in subscribers:
            matching = filter(subscriber.filter.matches, lines)
            subscriber.expected = {(str(each.flow_run_id), int(each.message.split()[-1])) for each in matching}
        await asyncio.wait(listening, timeout=60)
        for task in listening:
            task.cancel()
        await database.close()
    print(f"{len(lines)} lines in {seconds:.0f} s; {sum(writer.given_up for writer in writers)} attempts failed")
    return report(subscribers)


def main(database: str = "postgresql", seconds: float = 120, seed: int = 1) -> None:
    """Run the benchmark. Exit with 1 if a line was lost, repeated or disordered."""
    if not asyncio.run(run(database, seconds, seed)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
