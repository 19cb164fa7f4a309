"""Clients: `Client` blocks, `AsyncClient` is awaited. Both do the same, in one thread of the client."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

from runstate.client import records
from runstate.client.bodies import CURRENT
from runstate.client.engine import Engine
from runstate.client.errors import ClientError
from runstate.client.logging import refs_of
from runstate.client.proposals import OnPause, ReportedRun
from runstate.client.records import Batch, Deployment, Flow, FlowRunRecord, Limit, RunState, TaskRunRecord
from runstate.client.reporter import Configuration, Reporter
from runstate.client.reports import Answer, checked
from runstate.client.runs import FlowRun, TaskRun, given
from runstate.client.states import State
from runstate.client.storage import Storage
from runstate.client.transitions import batches, ended

DEFAULT_URL: Final = "http://127.0.0.1:4200/graphql"
HEARTBEAT_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 600.0

ARTIFACT: Final = """mutation($input: CreateArtifactInput!) { it: createArtifact(input: $input) {
  ... on CreateArtifactPayload { artifact { id } } ... on Problem { code message } } }"""
VARIABLE: Final = "query($name: String!) { it: variable(by: { name: $name }) { value } }"
SET_VARIABLE: Final = """mutation($input: CreateVariableInput!) { it: createVariable(input: $input) {
  ... on CreateVariablePayload { variable { id } } ... on Problem { code message } } }"""

P = TypeVar("P", bound=records.Record)
Where = Mapping[str, Any]
Order = Sequence[Mapping[str, str]]


class BaseClient:
    """The settings of a client, and runs whose code executes here.

    The URL is RUNSTATE_URL by default, the key RUNSTATE_API_KEY. A server that is away is awaited for *patience*
    seconds; with a *journal*, the path of a file, work goes on after *journal_after* seconds and is told later. Results
    are kept as JSON in the state, larger ones in the *storage*; other values only with *allow_pickle*. *on_answer* is
    called with each run and each answer to its proposals, in the thread of the client.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        heartbeat_seconds: float | None = HEARTBEAT_SECONDS,
        storage: Storage | None = None,
        allow_pickle: bool = False,
        journal: str | os.PathLike[str] | None = None,
        journal_after: float = 5.0,
        on_answer: Callable[[ReportedRun, Answer], None] | None = None,
    ) -> None:
        self.settings = Configuration(
            url=url or os.environ.get("RUNSTATE_URL") or DEFAULT_URL,
            key=(key or os.environ.get("RUNSTATE_API_KEY") or "").strip() or None,
            patience=patience,
            heartbeat_seconds=heartbeat_seconds,
            storage=storage,
            allow_pickle=allow_pickle,
            journal=os.fspath(journal) if journal else None,
            journal_after=journal_after,
            on_answer=on_answer,
        )
        self.engine = Engine(Reporter.maker(self.settings))
        # Also called at exit, if the client was not closed.
        self._close = weakref.finalize(self, close, self.engine)

    def flow_run(
        self,
        name: str = "",
        *,
        parameters: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        retries: int = 0,
        retry_delay: float = 0,
        idempotency_key: str | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
        deployment: str | None = None,
        on_pause: OnPause = "wait",
    ) -> FlowRun:
        """Return a run of the flow with a name; it is created when it begins, with the flow if necessary.

        A second run with an idempotency key is the first one, and does not execute if that has ended. *run_id* is the
        id of an existing run, such as one that a worker got; *deployment* the id of the deployment to run. A run that
        is paused waits to be resumed, or leaves with PausedRun.
        """
        fields = FlowRun.fields_of_flow_run(name, parameters, tags, retries, retry_delay)
        if deployment:
            fields |= {"deploymentId": deployment}
        fields |= given(name=run_name, idempotencyKey=idempotency_key, heartbeatSeconds=self.settings.heartbeat_seconds)
        run = FlowRun(self.engine, fields, run_id=run_id, on_pause=on_pause)
        run.owner = self
        return run

    def task_run(self, name: str, **options: Any) -> TaskRun:
        """Return a task run without a flow run; the options are those of `FlowRun.task`."""
        # The key tells it from all others, which need not be found again.
        run = FlowRun(self.engine, {}).task(name, **{"key": uuid4().hex, **options})
        run.flow_run, run.owner = None, self
        return run


class Client(BaseClient):
    """A client whose methods block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell what is left, and end the thread. Raise UnreachableError if something could not be told."""
        self._close.detach()
        self.engine.stop()

    def flush(self) -> None:
        """Wait until everything is told. Raise UnreachableError if the server is away for too long."""
        self.engine.wait(lambda reporter: reporter.flush())

    def execute(
        self, document: str, variables: Mapping[str, Any] | None = None, *, repeat: bool = False
    ) -> dict[str, Any]:
        """Execute an operation and return its data. With *repeat*, it is also repeated if it may have been done."""
        return self.engine.wait(lambda reporter: reporter.execute(document, variables, repeat=repeat))

    def read(self, kind: type[P], where: Where | None = None, order: Order | None = None) -> Iterator[P]:
        """Yield the objects of a kind that meet a condition, such as `{"stateType": {"eq": "FAILED"}}`."""
        return self.engine.iterate(lambda reporter: records.found(reporter.connection, kind, where, order))

    def flow_runs(self, where: Where | None = None, order: Order | None = None) -> Iterator[FlowRunRecord]:
        """Yield flow runs, newest first by default."""
        return self.read(FlowRunRecord, where, order)

    def task_runs(self, where: Where | None = None, order: Order | None = None) -> Iterator[TaskRunRecord]:
        """Yield task runs, newest first by default."""
        return self.read(TaskRunRecord, where, order)

    def flows(self, where: Where | None = None, order: Order | None = None) -> Iterator[Flow]:
        """Yield flows."""
        return self.read(Flow, where, order)

    def deployments(self, where: Where | None = None, order: Order | None = None) -> Iterator[Deployment]:
        """Yield deployments."""
        return self.read(Deployment, where, order)

    def limits(self, where: Where | None = None, order: Order | None = None) -> Iterator[Limit]:
        """Yield concurrency limits."""
        return self.read(Limit, where, order)

    def get(self, kind: type[P], id: str) -> P | None:
        """Return the object of a kind with an id; None if the id is unknown."""
        return self.engine.wait(lambda reporter: records.one(reporter.connection, kind, id))

    def states(self, run: str) -> list[RunState]:
        """Return the states of a run."""
        return self.engine.wait(lambda reporter: records.states_of(reporter.connection, run))

    def transitions(self, where: Where | None = None, after: str | None = None) -> Iterator[Batch]:
        """Yield batches of transitions after a cursor, each transition once; reconnect if necessary."""
        return self.engine.iterate(lambda reporter: batches(reporter.connection, where, after))

    def wait_for(self, run: str | FlowRun | TaskRun) -> State:
        """Wait until a run ends; return its state, with its result."""
        return self.engine.wait(lambda reporter: _ended(reporter, run))

    def artifact(self, **fields: Any) -> str:
        """Create an artifact of the current run and return its id; the fields are those of CreateArtifactInput."""
        return self.engine.wait(partial(_artifact, fields=_of_current_run(fields)))

    def variable(self, name: str, default: Any = None) -> Any:
        """Return the value of a variable; the default if it does not exist."""
        return self.engine.wait(lambda reporter: _variable(reporter, name, default))

    def set_variable(self, name: str, value: Any, tags: Sequence[str] = ()) -> None:
        """Create a variable, or give it another value."""
        self.engine.wait(lambda reporter: _set_variable(reporter, name, value, tags))


class AsyncClient(BaseClient):
    """A client whose methods are awaited, in any event loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Tell what is left, and end the thread. Raise UnreachableError if something could not be told."""
        self._close.detach()
        await asyncio.to_thread(self.engine.stop)

    async def flush(self) -> None:
        """Wait until everything is told. Raise UnreachableError if the server is away for too long."""
        await self.engine.join(lambda reporter: reporter.flush())

    async def execute(
        self, document: str, variables: Mapping[str, Any] | None = None, *, repeat: bool = False
    ) -> dict[str, Any]:
        """Execute an operation and return its data. With *repeat*, it is also repeated if it may have been done."""
        return await self.engine.join(lambda reporter: reporter.execute(document, variables, repeat=repeat))

    def read(self, kind: type[P], where: Where | None = None, order: Order | None = None) -> AsyncIterator[P]:
        """Yield the objects of a kind that meet a condition, such as `{"stateType": {"eq": "FAILED"}}`."""
        return self.engine.aiterate(lambda reporter: records.found(reporter.connection, kind, where, order))

    def flow_runs(self, where: Where | None = None, order: Order | None = None) -> AsyncIterator[FlowRunRecord]:
        """Yield flow runs, newest first by default."""
        return self.read(FlowRunRecord, where, order)

    def task_runs(self, where: Where | None = None, order: Order | None = None) -> AsyncIterator[TaskRunRecord]:
        """Yield task runs, newest first by default."""
        return self.read(TaskRunRecord, where, order)

    def flows(self, where: Where | None = None, order: Order | None = None) -> AsyncIterator[Flow]:
        """Yield flows."""
        return self.read(Flow, where, order)

    def deployments(self, where: Where | None = None, order: Order | None = None) -> AsyncIterator[Deployment]:
        """Yield deployments."""
        return self.read(Deployment, where, order)

    def limits(self, where: Where | None = None, order: Order | None = None) -> AsyncIterator[Limit]:
        """Yield concurrency limits."""
        return self.read(Limit, where, order)

    async def get(self, kind: type[P], id: str) -> P | None:
        """Return the object of a kind with an id; None if the id is unknown."""
        return await self.engine.join(lambda reporter: records.one(reporter.connection, kind, id))

    async def states(self, run: str) -> list[RunState]:
        """Return the states of a run."""
        return await self.engine.join(lambda reporter: records.states_of(reporter.connection, run))

    def transitions(self, where: Where | None = None, after: str | None = None) -> AsyncGenerator[Batch, None]:
        """Yield batches of transitions after a cursor, each transition once; reconnect if necessary."""
        return self.engine.aiterate(lambda reporter: batches(reporter.connection, where, after))

    async def wait_for(self, run: str | FlowRun | TaskRun) -> State:
        """Wait until a run ends; return its state, with its result."""
        return await self.engine.join(lambda reporter: _ended(reporter, run))

    async def artifact(self, **fields: Any) -> str:
        """Create an artifact of the current run and return its id; the fields are those of CreateArtifactInput."""
        return await self.engine.join(partial(_artifact, fields=_of_current_run(fields)))

    async def variable(self, name: str, default: Any = None) -> Any:
        """Return the value of a variable; the default if it does not exist."""
        return await self.engine.join(lambda reporter: _variable(reporter, name, default))

    async def set_variable(self, name: str, value: Any, tags: Sequence[str] = ()) -> None:
        """Create a variable, or give it another value."""
        await self.engine.join(lambda reporter: _set_variable(reporter, name, value, tags))


def close(engine: Engine[Reporter]) -> None:
    """Close a client at exit, and say what could not be told."""
    try:
        engine.stop()
    # At exit, Python starts no further threads, so a name may not be resolved any more.
    except (ClientError, RuntimeError) as error:
        sys.stderr.write(f"runstate: {error}\n")


async def _ended(reporter: Reporter, run: str | FlowRun | TaskRun) -> State:
    known = run if isinstance(run, str) else reporter.server_id(run.id)
    if known is None:
        await reporter.flush()
        return await _ended(reporter, run)
    return (await ended(reporter.connection, known)).with_storage(reporter.settings.storage)


def _of_current_run(fields: Mapping[str, Any]) -> dict[str, Any]:
    run = CURRENT.get()
    return {**refs_of(run), **fields} if run else dict(fields)


async def _artifact(reporter: Reporter, fields: dict[str, Any]) -> str:
    known = {key: reporter.server_id(value) for key, value in fields.items() if key in {"flowRunId", "taskRunId"}}
    answer = await reporter.execute(ARTIFACT, {"input": {**fields, **known}}, repeat=False)
    return str(checked(answer["it"])["artifact"]["id"])


async def _variable(reporter: Reporter, name: str, default: Any) -> Any:
    found = (await reporter.execute(VARIABLE, {"name": name}, repeat=True))["it"]
    return found["value"] if found else default


async def _set_variable(reporter: Reporter, name: str, value: Any, tags: Sequence[str]) -> None:
    fields = {"name": name, "value": value, "tags": list(tags), "overwrite": True}
    checked((await reporter.execute(SET_VARIABLE, {"input": fields}, repeat=True))["it"])
