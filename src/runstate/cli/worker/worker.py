"""The loop of a worker: claim due runs, renew the claims, and stop what was cancelled."""

import asyncio
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import runstate
from runstate.cli.worker.api import Api
from runstate.cli.worker.execution import RELEASE, Execution, Setting, Tell
from runstate.client.errors import RefusedError

RUN: Final = """id name parameters jobVariables heartbeatSeconds flow { name }
  deployment { entrypoint path jobVariables }"""
CLAIM: Final = f"""mutation($input: ClaimFlowRunsInput!) {{ it: claimFlowRuns(input: $input) {{
  ... on ClaimFlowRunsPayload {{ nextDue claims {{ id flowRun {{ {RUN} }} }} }}
  ... on Problem {{ code message }} }} }}"""
RENEW: Final = """mutation($input: RenewClaimsInput!) { it: renewClaims(input: $input) {
  ... on RenewClaimsPayload { lostIds cancelling { id } } ... on Problem { code message } } }"""
HEARTBEAT: Final = """mutation($input: WorkerHeartbeatInput!) { it: workerHeartbeat(input: $input) {
  ... on WorkerHeartbeatPayload { worker { id } workPool { type baseJobTemplate } }
  ... on Problem { code message } } }"""
WORK: Final = """subscription($pool: String!, $queues: [String!]) {
  it: workAvailable(workPool: $pool, workQueues: $queues) { due } }"""
CANCELLATIONS: Final = """subscription {
  it: transitions(where: {runKind: FLOW_RUN, stateTypes: [CANCELLING]}) { transitions { runId } } }"""
TYPE: Final = "process"
INSIST: Final = 2
"""Number of signals after which processes are stopped."""
MOST_CLAIMS: Final = 200
"""Claims of one call."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a worker."""

    pool: str
    name: str
    queues: tuple[str, ...] = ()
    limit: int = 4
    lease_seconds: float = 60
    poll_seconds: float = 15
    heartbeat_seconds: float = 30
    grace_seconds: float = 30


def default_name() -> str:
    """Return a name that no other process has."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Worker:
    """Executes runs of a pool of type `process`."""

    def __init__(self, api: Api, options: Options, environment: dict[str, str], tell: Tell) -> None:
        self.api, self.options, self.environment, self.tell = api, options, environment, tell
        self.executions: dict[str, Execution] = {}
        """Runs by the id of their claim."""
        self.woken = asyncio.Event()
        self.signals = 0
        """Number of signals to stop."""
        self.idle = asyncio.Event()
        """Set while no run is executed and none is due."""
        self.left = asyncio.Event()
        """Set if the worker leaves without telling the server."""
        self.worker_id = ""
        self.template: dict[str, Any] = {}

    def stop(self) -> None:
        """Claim no more runs and end with the last process; the second call stops the processes, the third one leaves.

        Without processes and without a connection there is nothing to wait for.
        """
        self.signals += 1
        self.woken.set()
        self.tell(self.options.name, f"Stopping; {len(self.executions)} runs are left.")
        if self.signals == INSIST:
            for each in self.executions.values():
                each.crash("The worker was stopped.")
        if self.signals > INSIST or not (self.executions or self.api.ready.is_set()):
            self.left.set()

    async def run(self) -> None:
        """Work until `stop`. Raise RefusedError or ProblemError if the server refuses the worker."""
        connection = asyncio.create_task(self.api.run())
        work = asyncio.create_task(self._work())
        left = asyncio.create_task(self.left.wait())
        try:
            done, _ = await asyncio.wait({connection, work, left}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (work, connection, left):
                task.cancel()
            await asyncio.gather(work, connection, left, return_exceptions=True)

    async def _work(self) -> None:
        await self._beat()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(each)
                for each in (self._beats(), self._renewals(), self._hints(), self._cancellations())
            ]
            await self._claims(group)
            for task in background:
                task.cancel()

    async def _beat(self) -> None:
        given = {
            "workPool": self.options.pool,
            "worker": self.options.name,
            "intervalSeconds": self.options.heartbeat_seconds,
            "metadata": {"host": socket.gethostname(), "pid": os.getpid(), "runstate": runstate.__version__},
        }
        answer = await self.api.do(HEARTBEAT, input=given)
        if (kind := answer["workPool"]["type"]) != TYPE:
            raise RefusedError(f"The pool {self.options.pool} has the type {kind}; this worker executes `{TYPE}` only.")
        self.worker_id, self.template = answer["worker"]["id"], answer["workPool"]["baseJobTemplate"]

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self.options.heartbeat_seconds)
            await self._beat()

    async def _hints(self) -> None:
        """Wake the loop whenever runs can be claimed."""
        queues = list(self.options.queues) or None
        async for hint in self.api.follow(WORK, pool=self.options.pool, queues=queues):
            if hint["due"]:
                self.woken.set()

    async def _cancellations(self) -> None:
        """Stop runs as soon as they are CANCELLING; renewals report those that were missed."""
        async for batch in self.api.follow(CANCELLATIONS):
            self._cancel({each["runId"] for each in batch["transitions"]})

    def _cancel(self, runs: set[str]) -> None:
        for each in self.executions.values():
            if each.run["id"] in runs:
                each.cancel()

    async def _renewals(self) -> None:
        while True:
            # Two renewals may be lost before a claim expires.
            await asyncio.sleep(self.options.lease_seconds / 3)
            live = [claim for claim, each in self.executions.items() if each.is_live]
            for start in range(0, len(live), MOST_CLAIMS):
                await self._renew(live[start : start + MOST_CLAIMS])

    async def _renew(self, claims: list[str]) -> None:
        given = {"claimIds": claims, "leaseSeconds": self.options.lease_seconds}
        answer = await self.api.do(RENEW, input=given)
        self._cancel({each["id"] for each in answer["cancelling"]})
        for claim in answer["lostIds"]:
            # It may have ended while the answer was on its way.
            if execution := self.executions.get(claim):
                await execution.lose()

    async def _claims(self, group: asyncio.TaskGroup) -> None:
        while not self.signals or self.executions:
            self.woken.clear()
            wait = self.options.poll_seconds
            free = self.options.limit - len(self.executions)
            if free > 0 and not self.signals:
                wait = min(wait, await self._claim(group, min(free, MOST_CLAIMS)))
            await self._rest(wait)

    async def _claim(self, group: asyncio.TaskGroup, first: int) -> float:
        """Claim runs and start them; return the seconds until further runs may be due."""
        options = self.options
        given = {
            "workPool": options.pool,
            "worker": options.name,
            "workQueues": list(options.queues) or None,
            "first": first,
            "leaseSeconds": options.lease_seconds,
            # A lost answer loses no run: the repetition returns the same claims.
            "idempotencyKey": str(uuid4()),
        }
        answer = await self.api.do(CLAIM, input=given)
        setting = Setting(self.api, self.template, self.worker_id, options.grace_seconds, self.environment, self.tell)
        if self.signals:
            return await self._give_back([claim["id"] for claim in answer["claims"]])
        for claim in answer["claims"]:
            self.executions[claim["id"]] = execution = Execution(claim, setting)
            group.create_task(self._execute(execution))
        if self.executions:
            self.idle.clear()
        else:
            self.idle.set()
        # There may be more than it asked for.
        if len(answer["claims"]) == first:
            return 0
        return _seconds_until(answer["nextDue"])

    async def _give_back(self, claims: list[str]) -> float:
        if claims:
            await self.api.do(RELEASE, input={"claimIds": claims})
        return 0

    async def _execute(self, execution: Execution) -> None:
        try:
            await execution.execute()
        finally:
            del self.executions[execution.claim_id]
            self.woken.set()

    async def _rest(self, seconds: float) -> None:
        """Wait until the loop is woken, at most for some seconds."""
        try:
            await asyncio.wait_for(self.woken.wait(), seconds)
        except TimeoutError:
            return


def _seconds_until(due: str | None) -> float:
    if due is None:
        return float("inf")
    return max(0, (datetime.fromisoformat(due) - datetime.now(UTC)).total_seconds())
