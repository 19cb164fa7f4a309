"""Creations of runs and proposals of states. Those that are made at the same time travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

import orjson

from runstate.client.connection import Connection
from runstate.client.errors import INTERNAL, ProblemError, RefusedError
from runstate.client.states import State

STATE: Final = "id type name message timestamp version details { scheduledTime cacheKey pauseTimeout pauseReschedule }"
RUN: Final = f"id name version state {{ {STATE} data }}"
PROBLEM: Final = "... on Problem { code message } ... on InvalidInput { path }"
CREATE_FLOW_RUN: Final = f"""mutation($input: RunFlowInput!) {{ it: runFlow(input: $input) {{
  ... on CreateFlowRunPayload {{ run: flowRun {{ {RUN} }} }} {PROBLEM} }} }}"""
RUN_DEPLOYMENT: Final = f"""mutation($input: RunDeploymentInput!) {{ it: runDeployment(input: $input) {{
  ... on CreateFlowRunPayload {{ run: flowRun {{ {RUN} }} }} {PROBLEM} }} }}"""
CREATE_TASK_RUNS: Final = f"""mutation($inputs: [CreateTaskRunInput!]!) {{ it: createTaskRuns(inputs: $inputs) {{
  ... on CreateTaskRunPayload {{ created run: taskRun {{ {RUN} }} }} {PROBLEM} }} }}"""
PROPOSE: Final = f"""mutation($inputs: [ProposeStateInput!]!) {{ it: proposeStates(inputs: $inputs) {{
  ... on OrchestrationResult {{ status reason rule retryAfterSeconds state {{ {STATE} }} }}
  {PROBLEM} ... on VersionConflict {{ currentVersion }} }} }}"""
READ: Final = f"query($id: ID!) {{ it: node(id: $id) {{ ... on Run {{ {RUN} }} }} }}"

MOST: Final = 100
"""Items of a batch; the server takes 200."""
LARGEST_BYTES: Final = 700_000
"""Bytes of the items of a batch; the server takes requests of 1 MiB by default."""
# With one, the server idles while an answer travels; more would make the batches smaller.
LANES: Final = 2
"""Batches of one kind that are under way at the same time."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision on a proposal, and the state of the run after it."""

    status: str
    state: State | None
    reason: str = ""
    retry_after_seconds: float = 0.0
    rule: str | None = None

    @classmethod
    def of(cls, given: Json) -> Answer:
        """Return the answer of the server."""
        state = given["state"] and State.model_validate(given["state"])
        return cls(given["status"], state, given["reason"] or "", given["retryAfterSeconds"] or 0.0, given["rule"])


class Batches:
    """Sends items of one kind. The first one goes at once; those that come meanwhile form the next batch."""

    def __init__(self, connection: Connection, document: str) -> None:
        self.connection, self.waiting, self.sending = connection, list[tuple[bytes, asyncio.Future[Json]]](), 0
        self.tasks = set[asyncio.Future[None]]()
        # Encoded once: the document is the same for each batch.
        self.head = b'{"query":%b,"variables":{"inputs":[' % orjson.dumps(document)

    async def submit(self, item: Json) -> Json:
        """Send an item and return its answer. Raise ProblemError if the server returns a problem."""
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        # As bytes at once: the size decides how many items a batch takes, and retries send them again as they are.
        self.waiting.append((orjson.dumps(item), answer))
        if self.sending < LANES:
            self.sending += 1
            task = asyncio.ensure_future(self._send_all())
            # The loop itself keeps only weak references to tasks.
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return checked(await answer)

    async def _send_all(self) -> None:
        # Items of the same moment form one batch.
        await asyncio.sleep(0)
        try:
            while batch := self._next():
                await self._send(batch)
        finally:
            self.sending -= 1

    def _next(self) -> list[tuple[bytes, asyncio.Future[Json]]]:
        size = number = 0
        for item, _ in self.waiting[:MOST]:
            size += len(item)
            # An item that is too large alone is sent nevertheless: the server says why it refuses it.
            if number and size > LARGEST_BYTES:
                break
            number += 1
        batch, self.waiting = self.waiting[:number], self.waiting[number:]
        return batch

    async def _send(self, batch: list[tuple[bytes, asyncio.Future[Json]]]) -> None:
        try:
            answers = await self.send([item for item, _ in batch])
        except RefusedError as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # One bad item must not fail the others.
            for each in batch:
                await self._send([each])
        except Exception as error:  # noqa: BLE001 - whoever waits for an item gets its error
            _fail(batch, error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def send(self, items: Sequence[bytes], *, patience: float | None = None) -> list[Json]:
        """Send a batch and return the answers. An answer is a problem if the server failed on its item only."""
        data = await self.connection.send(self.head + b",".join(items) + b"]}}", patience=patience)
        failed = {"code": INTERNAL, "message": "The server failed; its log has the reason."}
        return [each or failed for each in data["it"]]


def _fail(batch: list[tuple[bytes, asyncio.Future[Json]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def checked(answer: Json) -> Json:
    """Return a payload. Raise ProblemError if it is a problem."""
    if "code" in answer:
        raise ProblemError(answer)
    return answer


class Reports(Protocol):
    """Reports of runs."""

    async def create_flow_run(self, given: Json) -> Json:
        """Create a flow run, or find that with its idempotency key; return it."""

    async def create_task_run(self, given: Json) -> Json:
        """Create a task run, or find that with its keys; return it."""

    async def propose(self, given: Json) -> Answer:
        """Propose a state; return the answer. Raise ProblemError on a problem such as a conflict of versions."""

    async def read(self, run: str) -> Json | None:
        """Return a run; None if it does not exist."""

    def server_id(self, run: str) -> str | None:
        """Return the id that the server knows a run by; None if it was not told of the run yet."""

    async def flush(self) -> None:
        """Wait until everything is told."""

    async def close(self) -> None:
        """End the work."""


class OnlineReports:
    """Reports that wait for the server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.creations, self.proposals = Batches(connection, CREATE_TASK_RUNS), Batches(connection, PROPOSE)

    async def create_flow_run(self, given: Json) -> Json:
        """Create a flow run, or find that with its idempotency key; return it."""
        document = CREATE_FLOW_RUN
        if "deploymentId" in given:
            # The deployment has its flow; the input knows no other.
            document, given = RUN_DEPLOYMENT, {key: given[key] for key in given.keys() - {"flow", "createFlow"}}
        made: Json = checked((await self.connection.execute(document, {"input": given}))["it"])["run"]
        return made

    async def create_task_run(self, given: Json) -> Json:
        """Create a task run, or find that with its keys; return it."""
        made: Json = (await self.creations.submit(given))["run"]
        return made

    async def propose(self, given: Json) -> Answer:
        """Propose a state; return the answer. Raise ProblemError on a problem such as a conflict of versions."""
        # With a key, a retry after a lost answer returns the first decision: nothing is decided twice.
        return Answer.of(await self.proposals.submit({"idempotencyKey": uuid4().hex, **given}))

    async def read(self, run: str) -> Json | None:
        """Return a run; None if it does not exist."""
        found: Json | None = (await self.connection.execute(READ, {"id": run}))["it"]
        return found or None

    async def flush(self) -> None:
        """Wait until everything is told; each caller does already."""

    def server_id(self, run: str) -> str | None:
        """Return the id, which the server made."""
        return run

    async def close(self) -> None:
        """End the work; nothing is left."""
