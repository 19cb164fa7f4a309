"""Latency of `node(id:)`, compared with `flowRun(id:)`, with a given number of tables whose rows are nodes.

    python benchmarks/nodes.py --tables 27
    python benchmarks/nodes.py --tables 27 --url postgresql+asyncpg://user@host/database

The documents are executed alternately in this process. The database must be migrated and empty; it is a new SQLite file
by default.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Mapped, mapped_column

from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.graphql.types.derive import tables
from runstate.rows import Flow, FlowRun, Row

DOCUMENTS = {
    "flowRun(id)": "query($id: ID!) { flowRun(id: $id) { id name stateType tags } }",
    "node(id), with its type": "query($id: ID!) { node(id: $id) { id ... on FlowRun { name stateType tags } } }",
    "node(id), by interface": "query($id: ID!) { node(id: $id) { id ... on Run { name stateType tags } } }",
    "node(id), id alone": "query($id: ID!) { node(id: $id) { __typename id } }",
    "node(id), of another type": "query($id: ID!) { node(id: $id) { id ... on Flow { name } } }",
    "100 nodes": "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on FlowRun { name stateType tags } } }",
}
ROWS = 20_000


def clock() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def add_tables(count: int) -> list[type]:
    """Declare tables until a number of tables have nodes. Keep the result: unreferenced classes are collected."""
    nodes = [row for row in tables(Row) if row.__node__ and not row.__private__]
    return [_table(number) for number in range(count - len(nodes))]


def _table(number: int) -> type:
    name = mapped_column(sa.Text(), nullable=False, doc="Its name.")
    annotations = {"name": Mapped[str]}
    body = {"__tablename__": f"further_{number}", "__doc__": "A further table.", "__annotations__": annotations}
    return type(f"Further{number}", (Row,), {**body, "__module__": __name__, "name": name})


async def fill(database: Database) -> list[str]:
    """Insert a flow, flow runs, and rows into the further tables; return the ids of the flow runs."""
    async with database.write() as transaction:
        await transaction.connection.run_sync(Row.metadata.create_all)
        connection = transaction.connection
        flow = {"id": uuid4(), "name": "etl", "tags": [], "labels": {}, "created": clock(), "updated": clock()}
        await connection.execute(sa.insert(Flow), [flow])
        common = {"tags": [], "labels": {}, "version": 0, "run_count": 0, "total_run_time_seconds": 0.0}
        policy = FlowRun.__table__.c.policy.type.blank  # type: ignore[attr-defined]
        run = {**common, "name": "run", "flow_id": flow["id"], "parameters": {}, "context": {}, "policy": policy}
        ids = [uuid4() for _ in range(ROWS)]
        await connection.execute(
            sa.insert(FlowRun), [{**run, "id": each, "created": clock(), "updated": clock()} for each in ids]
        )
        for row in tables(Row):
            if row.__tablename__.startswith("further"):
                further = [{"id": uuid4(), "name": "x", "created": clock(), "updated": clock()} for _ in range(2_000)]
                await connection.execute(sa.insert(row), further)
        if not database.is_sqlite:
            await connection.execute(sa.text("ANALYZE"))
    return list(map(str, ids))


async def measured(run: Callable[[str], Awaitable[None]], ids: list[str]) -> float:
    """Return the mean latency per id in milliseconds."""
    began = time.perf_counter()
    for each in ids:
        await run(each)
    return (time.perf_counter() - began) / len(ids) * 1000


async def measure(url: str, rounds: int, further: list[type]) -> None:
    """Measure all documents alternately. Print the minimum and the median of the rounds."""
    graphql = import_module(
        "runstate.graphql.schema"
    )  # imported here because the schema contains the tables that are declared at its import
    contexts = import_module("runstate.graphql.context")
    schema, database = graphql.build_schema(), Database(url)
    await migrate(database)
    ids = await fill(database)

    async def run(document: str, key: str) -> None:
        variables: Any = {"id": key} if "$ids" not in document else {"ids": ids[:100]}
        result = await schema.execute(document, variables, contexts.Context(database, clock))
        if result.errors:
            raise RuntimeError(result.errors)

    taken: dict[str, list[float]] = {name: [] for name in DOCUMENTS}
    for number in range(rounds):
        some = ids[number * 100 : number * 100 + 100]
        for name, document in DOCUMENTS.items():
            taken[name].append(await measured(lambda key, document=document: run(document, key), some))  # type: ignore[misc]
    base = min(taken["flowRun(id)"][1:])
    for name, rounds_taken in taken.items():
        found = sorted(rounds_taken[1:])
        print(
            f"{name:28} {found[0]:7.2f} ms  middle {found[len(found) // 2]:7.2f} ms  {found[0] / base:5.2f} x",
            flush=True,
        )
    await database.close()


def main(tables: int = 27, url: str = "", rounds: int = 8) -> None:
    """Measure all documents and print a line for each."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "runstate.db"
        asyncio.run(measure(url or f"sqlite+aiosqlite:///{file}", rounds, add_tables(tables)))


if __name__ == "__main__":
    typer.run(main)
