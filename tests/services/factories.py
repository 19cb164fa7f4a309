"""Flows, runs and limits in any state, created by the commands and proposals that clients use."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Created, CreateRun, ProposeState
from runstate.core.commands.concurrency_limits import CreateConcurrencyLimit, create_limit
from runstate.core.commands.deployments import CreateDeployment, create_deployment
from runstate.core.commands.flows import CreateFlow, create_flow
from runstate.core.commands.runs import NEW
from runstate.core.states import State
from runstate.database import Database
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import RunKind
from runstate.rows import Base, FlowRun, FlowRunState, TaskRun, TaskRunState

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that moves only when a test calls for it."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def forward(self, **span: float) -> datetime:
        """Move the clock forward; return the time."""
        self.now += timedelta(**span)
        return self.now


def batcher_of(database: Database, clock: Clock) -> Batcher:
    """Return a batcher of a database."""
    return Batcher(database, clock=clock, draw=lambda: 0.5, new_id=uuid7)


@dataclass
class Making:
    """Creates rows in a database through one batcher."""

    database: Database
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Create the batcher."""
        self.batcher = batcher_of(self.database, self.clock)

    async def flow(self) -> UUID:
        """Create a flow; return its id."""
        written = await create_flow(self.batcher.context, CreateFlow(name=f"flow-{uuid4()}"))
        return UUID(str(written.row.id))

    async def deployment(self, **given: Any) -> UUID:
        """Create a deployment of a new flow; return its id."""
        document = CreateDeployment(flow_id=await self.flow(), name="deployment", **given)
        written = await create_deployment(self.batcher.context, document)
        return written.row.id

    async def limit(self, name: str, limit: int = 1, **given: Any) -> UUID:
        """Create a concurrency limit; return its id."""
        document = CreateConcurrencyLimit(name=name, limit=limit, **given)
        written = await create_limit(self.batcher.context, document)
        return written.row.id

    async def flow_run(self, state: State | None = None, **columns: Any) -> UUID:
        """Create a flow run in a state; return its id."""
        (made,) = await self.flow_runs([state or states.running()], **columns)
        return made

    async def flow_runs(self, into: Sequence[State], **columns: Any) -> list[UUID]:
        """Create flow runs of one flow in these states; return their ids in order."""
        own: dict[str, Any] = {"flow_id": await self.flow(), "parameters": {}, "context": {}, "policy": FlowRunPolicy()}
        own |= dict.fromkeys(("deployment_id", "parent_task_run_id", "idempotency_key", "infrastructure_pid"))
        own |= dict.fromkeys(("flow_version", "work_queue_name"))
        return await self._create(FlowRun, [({**own, **columns}, state) for state in into])

    async def task_run(self, flow_run_id: UUID | None, state: State | None = None, **columns: Any) -> UUID:
        """Create a task run in a state; return its id."""
        (made,) = await self.task_runs(flow_run_id, [state or states.running()], **columns)
        return made

    async def task_runs(self, flow_run_id: UUID | None, into: Sequence[State], **columns: Any) -> list[UUID]:
        """Create task runs of one flow run in these states; return their ids in order."""
        own: dict[str, Any] = {"flow_run_id": flow_run_id, "cache_key": None, "task_version": None, "task_inputs": {}}
        own |= {"policy": TaskRunPolicy(), "flow_run_run_count": 0, "task_key": "task"}
        return await self._create(TaskRun, [({**own, "dynamic_key": str(uuid4()), **columns}, state) for state in into])

    async def _create(self, row: type[FlowRun | TaskRun], runs: Sequence[tuple[dict[str, Any], State]]) -> list[UUID]:
        made = {
            "created": self.clock(),
            "updated": self.clock(),
            "name": "run",
            "tags": [],
            "labels": {},
            "heartbeat_seconds": None,
            **NEW,
        }
        asked = [CreateRun(run=row.of({"id": uuid7(), **made, **columns}), state=state) for columns, state in runs]
        outcomes = await self.batcher.submit(asked)
        assert all(isinstance(outcome, Created) and outcome.created for outcome in outcomes), outcomes
        return [each.run.id for each in asked]

    async def subflow_run(self, parent: UUID, state: State | None = None, **columns: Any) -> tuple[UUID, UUID]:
        """Create a subflow run of a flow run; return its id and that of its task run."""
        task_run_id = await self.task_run(parent, states.pending())
        return await self.flow_run(state, parent_task_run_id=task_run_id, **columns), task_run_id

    async def propose(self, kind: RunKind, run_id: UUID, state: State, **how: Any) -> Answer:
        """Propose a state; return the answer."""
        (answer,) = await self.batcher.submit([ProposeState(kind=kind, run_id=run_id, state=state, **how)])
        assert isinstance(answer, Answer), answer
        return answer

    async def flow_run_enters(self, run_id: UUID, state: State, **how: Any) -> None:
        """Propose a state to a flow run; check that it is accepted."""
        answer = await self.propose(RunKind.FLOW_RUN, run_id, state, **how)
        assert answer.written, answer

    async def task_run_enters(self, run_id: UUID, state: State, **how: Any) -> None:
        """Propose a state to a task run; check that it is accepted."""
        answer = await self.propose(RunKind.TASK_RUN, run_id, state, **how)
        assert answer.written, answer

    async def execute(self, statement: sa.Executable) -> None:
        """Execute a statement on the database directly."""
        async with self.database.write() as transaction:
            await transaction.connection.execute(statement)

    async def rows(self, row: type[Base], *where: Any) -> list[Any]:
        """Return the rows that meet conditions, ordered by their first columns."""
        table = row.__table__
        async with self.database.read() as connection:
            found = await connection.execute(sa.select(*table.columns).where(*where).order_by(*table.primary_key))
            return list(found)

    async def names(self, row: type[FlowRun | TaskRun], ids: Sequence[UUID]) -> list[str | None]:
        """Return the names of the states of runs."""
        found = {run.id: run.state_name for run in await self.rows(row)}
        return [found[each] for each in ids]

    async def flow_run_names(self, *ids: UUID) -> list[str | None]:
        """Return the names of the states of flow runs."""
        return await self.names(FlowRun, ids)

    async def task_run_names(self, *ids: UUID) -> list[str | None]:
        """Return the names of the states of task runs."""
        return await self.names(TaskRun, ids)

    async def history(self, run_id: UUID) -> list[Any]:
        """Return the states that a run has entered."""
        found = [state for row in (FlowRunState, TaskRunState) for state in await self.rows(row, row.run_id == run_id)]
        return sorted(found, key=lambda state: int(state.version))
