"""The same work as the server does, with the database driver alone: the baseline of other benchmarks."""

import asyncio
import itertools
import json
import sqlite3
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import Dialect
from uuid_utils.compat import uuid7

from runstate.database import bulk
from runstate.database.queries import orchestration as sql
from runstate.rows import RunTally, TaskRun, TaskRunState, Transition

POSTGRESQL: Dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
VERSIONS = itertools.count(1_000_000)
TABLES = (TaskRunState, TaskRun, Transition, RunTally)


def text(statement: Any) -> str:
    """Return the SQL text that the driver receives."""
    return str(statement.compile(dialect=POSTGRESQL))


def entered(task: str, flow_run: str, version: int, now: str) -> tuple[dict[str, Any], ...]:
    """Return the rows for a new state of a task run: the state, the run, the transition, the tally."""
    state = str(uuid7())
    kind, name = "RUNNING", "Running"
    times = dict.fromkeys((*sql.TIMES, "start_time", "end_time"), None) | {"total_run_time_seconds": 0.0}
    return (
        {"id": state, "created": now, "updated": now, "run_id": task, "type": kind, "name": name, "message": None,
         "timestamp": now, "version": version, "data": None, "details": {}, "persisted": False, "actor": "baseline",
         "request_id": None},
        {"id": task, "updated": now, "state_id": state, "state_type": kind, "state_name": name, "state_timestamp": now,
         "version": version, "run_count": 1, **times, "flow_run_run_count": 0},
        {"run_kind": "TASK_RUN", "run_id": task, "state_id": state, "flow_run_id": flow_run, "flow_id": None,
         "deployment_id": None, "version": version, "occurred": now, "previous_state_type": kind,
         "previous_state_name": name, "state_type": kind, "state_name": name, "message": None, "tags": []},
        {"run_kind": "TASK_RUN", "flow_id": None, "deployment_id": None, "state_type": kind, "state_name": "Running",
         "number": 0},
    )  # fmt: skip


def changes(tasks: list[str], flow_run: str, version: int) -> list[list[dict[str, Any]]]:
    """Return rows by table; only one tally, as in a batch."""
    now = datetime.now(UTC).isoformat()
    states, runs, log, numbers = zip(*(entered(task, flow_run, version, now) for task in tasks), strict=True)
    return [list(states), list(runs), list(log), [numbers[0]]]


async def transitions(url: str, tasks: list[UUID], flow_run: UUID, seconds: float, loops: int) -> float:
    """Return transitions per second; each of the `loops` connections writes its share of the task runs in batches."""
    share = len(tasks) // loops
    parts = [tasks[place * share : (place + 1) * share] for place in range(loops)]
    started = time.monotonic()
    counts = await asyncio.gather(*(_move(url, part, flow_run, started + seconds) for part in parts))
    return sum(counts) / (time.monotonic() - started)


async def _move(url: str, tasks: list[UUID], flow_run: UUID, until: float) -> int:
    """Write states with the statements of a batch; return the number of transitions."""
    first = changes([str(tasks[0])], str(flow_run), 1)
    ways = [bulk.WriteMode.UPDATE if row is TaskRun else bulk.WriteMode.INSERT for row in TABLES]
    parts = [(bulk.table_of(row), way, tuple(rows[0]), ()) for row, way, rows in zip(TABLES, ways, first, strict=True)]
    write = text(bulk._combined(tuple(parts)))  # noqa: SLF001 the statements are what is measured
    locks = [
        text(sql._locking_flow_runs(by_id=False, of_tasks=True, shared=True)),  # noqa: SLF001
        text(sql._locking_task_runs(by_id=True, of_subflows=False)),  # noqa: SLF001
    ]
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://"))
    done = 0
    while time.monotonic() < until:
        version = next(VERSIONS)
        rows = changes([str(each) for each in tasks], str(flow_run), version)
        rows[2:] = [bulk._numbered(each) for each in rows[2:]]  # noqa: SLF001
        async with connection.transaction():
            for lock in locks:
                await connection.fetch(lock, tasks)
            await connection.fetch(write, *(orjson.dumps(each).decode() for each in rows))
        done += len(tasks)
    await connection.close()
    return done


def transitions_sqlite(file: str, tasks: list[UUID], flow_run: UUID, seconds: float) -> float:
    """Return transitions per second of one connection that reads and writes all task runs in each transaction."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=10)
    connection.execute("PRAGMA synchronous = FULL")
    ids = [each.hex for each in tasks]
    done = 0
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        version = next(VERSIONS)
        now = time.time_ns() // 1000
        rows = changes(ids, flow_run.hex, version)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "SELECT * FROM task_run WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(ids)]
        ).fetchall()
        for row, table_rows in zip(TABLES, rows, strict=True):
            connection.executemany(_sqlite(row, table_rows[0]), [_plain(each, now) for each in table_rows])
        connection.execute("COMMIT")
        done += len(tasks)
    connection.close()
    return done / (time.monotonic() - started)


def _sqlite(row: type, columns: dict[str, Any]) -> str:
    table = bulk.table_of(row).name
    if row is TaskRun:
        return f"UPDATE {table} SET {', '.join(f'{name} = :{name}' for name in columns)} WHERE id = :id"  # noqa: S608
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"  # noqa: S608


def _plain(row: dict[str, Any], now: int) -> dict[str, Any]:
    timed = {"created", "updated", "timestamp", "state_timestamp", "occurred"}
    plain = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}
    hexed = {name: value.replace("-", "") for name, value in plain.items() if name in {"id", "state_id"}}
    return plain | hexed | dict.fromkeys(plain.keys() & timed, now)


async def page(url: str, statement: str, arguments: list[Any], seconds: float, loops: int) -> list[float]:
    """Fetch rows and encode them as JSON repeatedly. Return the latencies in seconds, sorted."""
    until = time.monotonic() + seconds

    async def fetch() -> list[float]:
        took = []
        connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://"))
        while time.monotonic() < until:
            before = time.perf_counter()
            orjson.dumps([dict(row) for row in await connection.fetch(statement, *arguments)], default=str)
            took.append(time.perf_counter() - before)
        await connection.close()
        return took

    return sorted(each for one in await asyncio.gather(*(fetch() for _ in range(loops))) for each in one)
