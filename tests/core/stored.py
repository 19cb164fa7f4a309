"""Rows in a database and everything that orchestration wrote for them, compared without ids."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from uuid_utils.compat import uuid7

from runstate.core.batch.requests import Outcome
from runstate.database import Database
from runstate.database.bulk import inserted, table_of, write
from runstate.database.dialects import among
from runstate.database.queries.orchestration import all_of
from runstate.rows import (
    Base,
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    ConcurrencyWaiter,
    Deployment,
    Flow,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    ProposalAnswer,
    TaskRun,
    TaskRunState,
    Transition,
)
from tests.core.factories import NOW

B = TypeVar("B", bound=Base)
IN_ORDER = (Flow, ConcurrencyLimit, ConcurrencyLease, Deployment, FlowRun, TaskRun)
"""Order of insertion: referenced tables come first."""
WITHOUT_MEANING = {"seq", "xid", "boot", "digest", "fingerprint"}
AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def flow(**columns: Any) -> Flow:
    """Return a flow with a unique name."""
    made = uuid7()
    return Flow.of(
        {"id": made, "created": NOW, "updated": NOW, "name": f"flow-{made}", "tags": [], "labels": {}, **columns}
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Yield an open database."""
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def put(database: Database, *rows: Base) -> None:
    """Insert rows unchanged."""
    async with database.write() as transaction:
        for kind in IN_ORDER:
            of_kind = [dict(vars(row)) for row in rows if isinstance(row, kind)]
            above = [columns for columns in of_kind if not columns.get("parent_task_run_id")]
            await write(transaction.connection, [inserted(kind, above)])
        subflows = [dict(vars(row)) for row in rows if isinstance(row, FlowRun) and row.parent_task_run_id]
        await write(transaction.connection, [inserted(FlowRun, subflows)])


async def rows_of(database: Database, row: type[B], column: Any, ids: Iterable[UUID], *order: Any) -> list[B]:
    """Return the rows with one of these values in a column, in order."""
    asked = sa.select(*table_of(row).columns).where(among(column, sorted(ids))).order_by(*order)
    async with database.read() as connection:
        return await all_of(connection, row, asked)


async def run_of(database: Database, run: FlowRun | TaskRun) -> Any:
    """Return the stored row of the run."""
    return (await rows_of(database, type(run), type(run).id, [run.id]))[0]


async def history_of(database: Database, run: FlowRun | TaskRun) -> list[Any]:
    """Return the stored states of a run."""
    row: Any = TaskRunState if isinstance(run, TaskRun) else FlowRunState
    return await rows_of(database, row, row.run_id, [run.id], row.version)


@dataclass
class Cast:
    """Rows of a scenario. Two casts with the same names differ only in ids."""

    rows: dict[str, Base] = field(default_factory=dict)
    own: str = field(default_factory=lambda: uuid7().hex)
    """Suffix that makes names unique in the database."""
    names: dict[UUID, str] = field(default_factory=dict)

    def add(self, name: str, row: B) -> B:
        """Register a row under a name."""
        self.rows[name] = row
        self.names[row.__dict__["id"]] = name
        return row

    def ids(self, kind: type[Base]) -> list[UUID]:
        """Return the ids of the rows of a class."""
        return [row.__dict__["id"] for row in self.rows.values() if isinstance(row, kind)]

    async def contents(self, database: Database, outcomes: Iterable[Outcome] = ()) -> dict[str, Any]:
        """Return the content of the database for the cast, and the outcomes."""
        flows, tasks = self.ids(FlowRun), self.ids(TaskRun)
        runs = [*await _all(database, FlowRun, flows), *await _all(database, TaskRun, tasks)]
        states = await self._states(database)
        limits = await _all(database, ConcurrencyLimit, self.ids(ConcurrencyLimit))
        leases = await rows_of(database, ConcurrencyLease, ConcurrencyLease.limit_id, self.ids(ConcurrencyLimit))
        self.names |= {each.id: f"{self.name_of(each.run_id)} on {self.name_of(each.limit_id)}" for each in leases}
        log = await rows_of(database, Transition, Transition.run_id, [*flows, *tasks], Transition.seq)
        cached = await rows_of(
            database, CacheEntry, CacheEntry.state_id, [each.id for each in states], CacheEntry.created, CacheEntry.id
        )
        answers = await rows_of(database, ProposalAnswer, ProposalAnswer.run_id, [*flows, *tasks])
        waiters = await rows_of(database, ConcurrencyWaiter, ConcurrencyWaiter.run_id, [*flows, *tasks])
        inputs = await rows_of(database, FlowRunInput, FlowRunInput.flow_run_id, flows)
        return {
            "outcomes": [self.without_ids(each) for each in outcomes],
            "runs": {self.name_of(each.id): self.without_ids(each) for each in runs},
            "states": {self.name_of(each.id): self.without_ids(each) for each in states},
            "limits": {self.name_of(each.id): self.without_ids(each) for each in limits},
            "leases": sorted((self.without_ids(each) for each in leases), key=repr),
            "log": [self.without_ids(each) for each in log],
            "cached": [self.without_ids(each) for each in cached],
            "answers": sorted((self.without_ids(each) for each in answers), key=repr),
            "waiters": sorted((self.without_ids(each) for each in waiters), key=repr),
            "inputs": sorted((self.without_ids(each) for each in inputs), key=repr),
        }

    async def _states(self, database: Database) -> list[Any]:
        found: list[Any] = []
        for row, runs in ((FlowRunState, self.ids(FlowRun)), (TaskRunState, self.ids(TaskRun))):
            found += await rows_of(database, row, row.run_id, runs, row.run_id, row.version)
        self.names |= {each.id: f"{self.name_of(each.run_id)} {each.version}" for each in found}
        return found

    def name_of(self, known: UUID | None) -> str:
        """Return the name of the row with an id."""
        return "nobody" if known is None else self.names.get(known, "an id")

    def without_ids(self, value: Any) -> Any:
        """Return a value with names in place of ids."""
        match value:
            case UUID():
                return self.name_of(value)
            case str():
                return AN_ID.sub(lambda found: self.name_of(UUID(found[0])), value.replace(self.own, ""))
            case Mapping():
                return {
                    self.without_ids(key): self.without_ids(each)
                    for key, each in value.items()
                    if key not in WITHOUT_MEANING
                }
            case list() | tuple():
                return [self.without_ids(each) for each in value]
        parts = _parts(value)
        return value if parts is value else self.without_ids(parts)


def _parts(value: Any) -> Any:
    """Return the members of a value."""
    match value:
        case Base():
            return vars(value)
        case BaseModel():
            return value.model_dump(exclude_defaults=True)
        case Exception():
            return [type(value).__name__, str(value), vars(value)]
        case Enum():
            return value.name
    return {each.name: getattr(value, each.name) for each in fields(value)} if is_dataclass(value) else value


async def _all(database: Database, row: type[B], ids: Iterable[UUID]) -> list[B]:
    return await rows_of(database, row, table_of(row).columns["id"], ids)
