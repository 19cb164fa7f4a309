"""Fill a database with flow runs, task runs and states of the last 90 days.

    python -m benchmarks.populate --database-url postgresql+asyncpg://… --flow-runs 200000

The database is migrated first and must not have runs. Rows are loaded in bulk, with COPY on PostgreSQL and executemany
on SQLite, without indexes and foreign keys, which are restored afterwards. The tallies are counted at the end, so that
`runstate verify` finds no error. The log has the transitions of the last two days. One flow has a seventh of the runs.
"""

import asyncio
import json
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Annotated, Any

import asyncpg
import sqlalchemy as sa
import typer

from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.database.queries.tallies import recount
from runstate.rows import Base

DAYS = 90
BATCH = 2_000
SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENDS = (
    ("COMPLETED", "Completed", 86),
    ("FAILED", "Failed", 8),
    ("CRASHED", "Crashed", 3),
    ("CANCELLED", "Cancelled", 2),
)
TAGS = (("nightly", 0.3), ("prod", 0.25), ("etl", 0.0215), ("gpu", 0.01), ("backfill", 0.002))
KINDS = ("flow", "deployment", "flow_run", "task_run", "flow_run_state", "task_run_state", "transition")
SHARE = 10
"""Number of runs of the first flow for each run of another one."""
LOG_DAYS = 2
"""Days of transitions in the log."""
WIDE = 20
"""Number of flow runs with a hundred task runs."""
WAITING = 1_000
"""Number of task runs that wait for the one limit."""

Rows = dict[str, list[dict[str, Any]]]
Url = Annotated[str, typer.Option(help="The database: sqlite+aiosqlite:///file or postgresql+asyncpg://…")]
Number = Annotated[int, typer.Option(help="Number of flow runs.")]
Tasks = Annotated[int, typer.Option(help="Number of task runs of each flow run.")]


class Instant(int):
    """Microseconds since 1970, as SQLite stores a time."""

    def __str__(self) -> str:
        """Return the time as PostgreSQL reads it."""
        return (EPOCH + timedelta(microseconds=int(self))).isoformat()


class Data:
    """Rows by table: the same for the same seed and time."""

    def __init__(self, now: datetime, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.now = (now - EPOCH) // timedelta(microseconds=1)
        self.newest: deque[str] = deque(maxlen=WAITING)
        """Ids of the task runs that were made last."""
        self.flows = [self._named(number, "flow", labels="{}") for number in range(60)]
        self.weights = [SHARE, *([1] * (len(self.flows) - 1))]
        self.deployments = [
            self._named(number, "deployment", flow_id=flow["id"], parameters="{}", paused=0)
            for number in range(2)
            for flow in self.flows
        ]

    def flows_and_deployments(self) -> Rows:
        """Return flows and deployments."""
        return {"flow": self.flows, "deployment": self.deployments}

    def waiting(self) -> Rows:
        """Return a limit whose slots are held, and the newest task runs as those that wait for it."""
        at = Instant(self.now - 3_600 * SECOND)
        own: dict[str, Any] = {
            "id": self.id(at),
            "created": at,
            "updated": at,
            "name": "tag:busy",
            "limit": 1,
            "active": 1,
        }
        limit = {**own, "occupied": 1, "slot_decay_per_second": 0.0, "average_slot_occupancy_seconds": 2.0}
        waiters = [self._waiter(own["id"], run_id, place) for place, run_id in enumerate(self.newest)]
        return {"concurrency_limit": [limit], "concurrency_waiter": waiters}

    def _waiter(self, limit_id: str, run_id: str, place: int) -> dict[str, Any]:
        at = Instant(self.now - place * SECOND)
        its = {"limit_id": limit_id, "run_id": run_id, "run_kind": "TASK_RUN"}
        return {"id": self.id(at), "created": at, "updated": at, **its}

    def id(self, at: int) -> str:
        """Return a UUID of version 7."""
        rest = self.chance.getrandbits(74)
        return f"{at // 1000:012x}7{rest & 0xFFF:03x}{8 | (rest >> 12 & 3):x}{rest >> 14:015x}"

    def _named(self, number: int, kind: str, **more: Any) -> dict[str, Any]:
        at = Instant(self.now - (DAYS + 1) * 86_400 * SECOND + number)
        own = {"id": self.id(at), "created": at, "updated": at, "name": f"{kind}-{number}", "tags": "[]"}
        return {**own, **more}

    def runs(self, number: int, tasks: int) -> Iterator[Rows]:
        """Yield flow runs with their task runs and states, in batches."""
        for start in range(0, number, BATCH):
            rows: Rows = {kind: [] for kind in KINDS[2:]}
            for place in range(start, min(start + BATCH, number)):
                self._flow_run(rows, place, number, 100 if place >= number - WIDE else tasks)
            yield rows

    def _flow_run(self, rows: Rows, place: int, number: int, tasks: int) -> None:
        chance = self.chance
        at = self.now - int((number - place) * DAYS * 86_400 * SECOND / number) - chance.randrange(SECOND)
        (flow,) = chance.choices(self.flows, self.weights)
        deployment = chance.choice([None, *(each for each in self.deployments if each["flow_id"] == flow["id"])])
        own = {
            "flow_id": flow["id"],
            "deployment_id": deployment and deployment["id"],
            "parameters": f'{{"day": {place % 90}, "region": "{chance.choice(("eu", "us"))}"}}',
            "context": "{}",
            "work_queue_name": "default" if deployment else None,
        }
        run = self._run("flow_run", rows, at, f"{flow['name']}-{place}", own)
        for task in range(tasks):
            key = {"task_key": f"task-{task % 10}", "dynamic_key": str(task), "task_inputs": "{}"}
            its = {"flow_run_id": run["id"], **key, "flow_run_run_count": 1}
            self._run("task_run", rows, at + (task + 1) * 100_000, f"task-{task}", its)

    def _run(self, kind: str, rows: Rows, at: int, name: str, own: dict[str, Any]) -> dict[str, Any]:
        chance = self.chance
        waits, starts, lasts = chance.randrange(3 * SECOND), chance.randrange(SECOND), chance.randrange(60 * SECOND)
        path = [("SCHEDULED", "Scheduled", at), ("PENDING", "Pending", at + waits)]
        path += [("RUNNING", "Running", at + waits + starts)]
        final, called = self._end()
        path += [(final, called, at + waits + starts + lasts)]
        path = [each for each in path if each[2] <= self.now] or [("SCHEDULED", "Scheduled", self.now)]
        kind_now, name_now, since = path[-1]
        started = Instant(path[2][2]) if len(path) > 2 else None
        ended = Instant(path[3][2]) if len(path) > 3 else None
        run_id = self.id(at)
        if kind == "task_run":
            self.newest.append(run_id)
        ids = [self.id(time) for _, _, time in path]
        run = {
            "id": run_id,
            "created": Instant(at),
            "updated": Instant(since),
            "name": name,
            "tags": json.dumps([tag for tag, share in TAGS if chance.random() < share]),
            "labels": f'{{"team": "{chance.choice(("a", "b", "c"))}"}}',
            "policy": "{}",
            "state_id": ids[-1],
            "state_type": kind_now,
            "state_name": name_now,
            "state_timestamp": Instant(since),
            "version": len(path),
            "run_count": int(started is not None),
            "expected_start_time": Instant(at),
            "next_scheduled_start_time": Instant(at) if kind_now == "SCHEDULED" else None,
            "start_time": started,
            "end_time": ended,
            "total_run_time_seconds": (ended - started) / SECOND if ended and started else 0.0,
            **own,
        }
        rows[kind].append(run)
        details = f'{{"{kind}_id": "{run_id}"}}'
        for version, (state_id, (type_, state_name, time_)) in enumerate(zip(ids, path, strict=True), 1):
            when = Instant(time_)
            rows[f"{kind}_state"].append(
                {
                    "id": state_id,
                    "created": when,
                    "updated": when,
                    "run_id": run_id,
                    "type": type_,
                    "name": state_name,
                    "timestamp": when,
                    "version": version,
                    "details": details,
                    "persisted": 0,
                    "actor": "anonymous",
                }
            )
            if time_ > self.now - LOG_DAYS * 86_400 * SECOND:
                rows["transition"].append(self._transition(kind, run, version, path, state_id))
        return run

    def _transition(
        self, kind: str, run: dict[str, Any], version: int, path: list[tuple[str, str, int]], state_id: str
    ) -> dict[str, Any]:
        type_, name, time_ = path[version - 1]
        left = path[version - 2] if version > 1 else (None, None)
        return {
            "run_kind": kind.upper(),
            "run_id": run["id"],
            "state_id": state_id,
            "flow_run_id": run.get("flow_run_id", run["id"]),
            "flow_id": run.get("flow_id"),
            "deployment_id": run.get("deployment_id"),
            "version": version,
            "occurred": Instant(time_),
            "previous_state_type": left[0],
            "previous_state_name": left[1],
            "state_type": type_,
            "state_name": name,
            "tags": run["tags"],
        }

    def _end(self) -> tuple[str, str]:
        drawn = self.chance.randrange(99)
        for kind, name, share in ENDS:
            drawn -= share
            if drawn < 0:
                return kind, name
        return ENDS[0][:2]


def columns_of(table: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of the columns of a table that rows have values for, in order. Others get their defaults."""
    given = set[str]().union(*rows)
    return [column.name for column in Base.metadata.tables[table].columns if column.name in given]


async def to_postgresql(url: sa.URL, batches: Iterator[Rows], report: Callable[[int], None]) -> None:
    """Load rows with COPY, without indexes and triggers."""
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    await connection.execute("SET session_replication_role = replica; SET maintenance_work_mem = '512MB'")
    await connection.execute("SET statement_timeout = 0; SET synchronous_commit = off")
    query = """SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS made FROM pg_index
        WHERE indrelid::regclass::text = ANY($1) AND NOT indisunique"""
    indexes = await connection.fetch(query, list(KINDS))
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    for rows in batches:
        for table, some in rows.items():
            if some:
                await _copy(connection, table, some)
        report(len(rows.get("flow_run", ())))
    for index in indexes:
        await connection.execute(index["made"])
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def _copy(connection: asyncpg.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = columns_of(table, rows)
    lines = ["\t".join([r"\N" if (value := row.get(name)) is None else str(value) for name in names]) for row in rows]

    async def source() -> Any:
        yield ("\n".join(lines) + "\n").encode()

    await connection.copy_to_table(table, source=source(), columns=names, format="text")


def to_sqlite(file: str, batches: Iterator[Rows], report: Callable[[int], None]) -> None:
    """Load rows with executemany, without indexes and without syncing to disk."""
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("foreign_keys = OFF", "synchronous = OFF", "cache_size = -262144"):
        connection.execute(f"PRAGMA {pragma}")
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT LIKE 'CREATE UNIQUE%'"
    indexes = connection.execute(query).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    for rows in batches:
        connection.execute("BEGIN")
        for table, some in rows.items():
            if not some:
                continue
            names = columns_of(table, some)
            marks = ", ".join("?" * len(names))
            values = ([_plain(row.get(name)) for name in names] for row in some)
            insert = f"INSERT INTO {table} ({', '.join(map(quoted, names))}) VALUES ({marks})"  # noqa: S608 our own names
            connection.executemany(insert, values)
        connection.execute("COMMIT")
        report(len(rows.get("flow_run", ())))
    for _, made in indexes:
        connection.execute(made)
    connection.execute("ANALYZE")
    connection.close()


def quoted(name: str) -> str:
    """Return a column name in quotes."""
    return f'"{name}"'


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Instant) else value


async def fill(url: str, flow_runs: int, tasks: int) -> None:
    """Migrate a database and fill it."""
    database, began, done = Database(url, statement_timeout_seconds=86_400), time.monotonic(), 0
    await migrate(database)

    def report(number: int) -> None:
        nonlocal done
        done += number
        print(f"\r{done:,} of {flow_runs:,} flow runs in {time.monotonic() - began:.0f} s", end="", flush=True)

    data = Data(datetime.now(UTC))
    last = (data.waiting() for _ in range(1))
    rows = chain([data.flows_and_deployments()], data.runs(flow_runs, tasks), last)
    if database.is_sqlite:
        to_sqlite(str(database.file), rows, report)
    else:
        await to_postgresql(database.url, rows, report)
    print("\ncounting …")
    async with database.write() as transaction:
        await recount(transaction.connection)
    await database.close()
    print(f"done after {time.monotonic() - began:.0f} s")


def main(database_url: Url, flow_runs: Number = 200_000, task_runs: Tasks = 5) -> None:
    """Fill a database with runs."""
    asyncio.run(fill(database_url, flow_runs, task_runs))


if __name__ == "__main__":
    typer.run(main)
