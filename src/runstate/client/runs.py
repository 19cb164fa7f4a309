"""Flow runs and task runs whose code executes in this process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import uuid4

from runstate.client.bodies import Bodies
from runstate.client.engine import Engine
from runstate.client.errors import Cancelled, PausedRun, RefusedError, ResultError
from runstate.client.executions import Execution
from runstate.client.proposals import CANCELLED, LONGEST_SECONDS, SHORTEST_SECONDS, OnPause, Outcome
from runstate.client.reporter import Reporter
from runstate.client.reports import Answer, checked
from runstate.client.states import State, now

T = TypeVar("T")

BEATS: Final = 6
"""Heartbeats in the interval in which the server expects one; they also bring the news of a cancellation."""
# As many as the standard library uses at most by default: tasks mostly wait for something else.
THREADS: Final = 32
"""Submitted tasks that a flow run executes at the same time."""
PAUSE: Final = """mutation($input: PauseFlowRunInput!) { it: pauseFlowRun(input: $input) {
  ... on OrchestrationResult { status reason } ... on Problem { code message } } }"""


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are set."""
    return {key: value for key, value in values.items() if value is not None}


class FlowRun(Execution):
    """A flow run."""

    noun = "flow run"

    def __init__(
        self,
        engine: Engine[Reporter],
        fields: dict[str, Any],
        *,
        run_id: str | None = None,
        parent: FlowRun | None = None,
        on_pause: OnPause = "wait",
    ) -> None:
        interval = fields.get("heartbeatSeconds") or 0
        bodies = Bodies(parent.bodies if parent else None)
        super().__init__(engine, bodies, on_pause=on_pause, beat_seconds=interval / BEATS)
        self.fields, self.run_id, self.parent = fields, run_id, parent
        # Tasks are submitted from several threads, and each needs a key of its own.
        self.lock = threading.Lock()
        self.counts = Counter[str]()
        self.stand_in: dict[str, Any] | None = None
        """The task run that represents a subflow run, as CreateTaskRunInput."""
        self.stand_in_id: str | None = None
        self.executor: Executor | None = None
        """Executes submitted tasks; by default threads that end with the run."""
        self.owns_executor = False
        self.futures = set[Future[Any]]()

    @property
    def ref(self) -> dict[str, str]:
        """The RunRef of the run."""
        return {"flowRunId": self.id}

    @property
    def title(self) -> str:
        """The name of the flow; the id of a run that was found."""
        return str(self.fields.get("flow", {}).get("name", self.id))

    def task(
        self,
        name: str,
        *,
        retries: int = 0,
        retry_delay: float | Sequence[float] = 0,
        tags: Sequence[str] = (),
        cache_key: str | None = None,
        cache_for: timedelta | None = None,
        refresh_cache: bool = False,
        key: str | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> TaskRun:
        """Return a task run of this flow run; it is created when it begins.

        Retry delays are in seconds. Runs with the same cache key, and `tag:` limits, are those of the server. A key
        tells the runs of a task apart, by default their number: a retry of the flow run finds the same runs again.
        """
        delays = [retry_delay] if isinstance(retry_delay, int | float) else list(retry_delay)
        fields = given(
            taskKey=name,
            dynamicKey=key or self.next_key(name),
            tags=list(tags) or None,
            policy={"retries": retries, "retryDelaysSeconds": delays} if retries or delays != [0] else None,
            cacheKey=cache_key,
            taskInputs=dict(inputs) if inputs else None,
        )
        return TaskRun(self.engine, fields, flow_run=self, cache_for=cache_for, refresh_cache=refresh_cache)

    def subflow(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        retries: int = 0,
        retry_delay: float = 0,
        inputs: Mapping[str, Any] | None = None,
    ) -> FlowRun:
        """Return a subflow run. A task run of this flow run represents it."""
        fields = self.fields_of_flow_run(name, parameters, tags, retries, retry_delay)
        fields |= given(heartbeatSeconds=self.fields.get("heartbeatSeconds"))
        run = FlowRun(self.engine, fields, parent=self, on_pause=self.on_pause)
        run.stand_in = given(taskKey=name, dynamicKey=self.next_key(name), taskInputs=dict(inputs) if inputs else None)
        return run

    @staticmethod
    def fields_of_flow_run(
        name: str,
        parameters: Mapping[str, Any] | None,
        tags: Sequence[str],
        retries: int,
        retry_delay: float,
    ) -> dict[str, Any]:
        """Return the RunFlowInput of a flow run."""
        return given(
            flow={"name": name},
            createFlow=True,
            parameters=dict(parameters) if parameters else None,
            tags=list(tags) or None,
            policy={"retries": retries, "retryDelaySeconds": retry_delay} if retries else None,
        )

    def pause(
        self, *, timeout_seconds: float | None = None, key: str | None = None, message: str | None = None
    ) -> None:
        """Pause the run and wait until it is resumed. Raise Cancelled if it is cancelled, ResultError if it ends."""
        self.engine.wait(lambda reporter: self._pause(reporter, timeout_seconds, key, message))

    async def apause(
        self, *, timeout_seconds: float | None = None, key: str | None = None, message: str | None = None
    ) -> None:
        """Pause the run and wait until it is resumed, as `pause` does."""
        await self.engine.join(lambda reporter: self._pause(reporter, timeout_seconds, key, message))

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Call a function in the executor of the run, in the context of the caller. The run ends after it."""
        with self.lock:
            if self.executor is None:
                self.executor, self.owns_executor = ThreadPoolExecutor(THREADS, self.name), True
        # The context tells the function which run it belongs to.
        return self.track(self.executor.submit(copy_context().run, function))

    def track(self, future: Future[T]) -> Future[T]:
        """Let the run end after a future."""
        self.futures.add(future)
        # A flow run with a million tasks must not keep all their futures.
        future.add_done_callback(self.futures.discard)
        return future

    def settle(self) -> None:
        """Wait for the submitted tasks."""
        wait(list(self.futures))

    async def asettle(self) -> None:
        """Wait for the submitted tasks, without blocking the loop."""
        await asyncio.gather(*map(asyncio.wrap_future, list(self.futures)), return_exceptions=True)

    async def finish(self, reporter: Reporter, outcome: Outcome, *, repeatable: bool = True) -> None:
        """Propose the end of the run, and let its threads end."""
        await super().finish(reporter, outcome, repeatable=repeatable)
        if self.ended and isinstance(self.executor, ThreadPoolExecutor) and self.owns_executor:
            # All its tasks have ended; the threads need not be waited for.
            self.executor.shutdown(wait=False)
            self.executor = None

    def next_key(self, name: str) -> str:
        """Return the key of the next run of a task."""
        with self.lock:
            self.counts[name] += 1
            return str(self.counts[name] - 1)

    async def _create(self, reporter: Reporter) -> None:
        if self.run_id:
            found = await reporter.reports.read(self.run_id)
            if found is None:
                raise RefusedError(f"No run has the id {self.run_id}.")
        else:
            # A creation that is repeated finds the run.
            fields = {"idempotencyKey": uuid4().hex, **self.fields}
            if self.parent and self.stand_in:
                stand_in = await reporter.reports.create_task_run({"flowRunId": self.parent.id, **self.stand_in})
                # The same task run stands for the same subflow run, also in a retry of the parent.
                self.stand_in_id = stand_in["id"]
                fields |= {"parentTaskRunId": stand_in["id"], "idempotencyKey": stand_in["id"]}
            found = await reporter.reports.create_flow_run(fields)
        self._known(found)

    async def _begin(self, reporter: Reporter) -> State:
        with self.lock:
            # A retry counts from 0 again, and so finds the task runs of the attempt before it by their keys.
            self.counts.clear()
        return await super()._begin(reporter)

    async def _ready(self, reporter: Reporter) -> None:
        await self.resumed(reporter)

    async def resumed(self, reporter: Reporter) -> State:
        """Return the state in which the run is when it is not paused any more."""
        pause = SHORTEST_SECONDS
        while (state := await self.look(reporter)).is_paused():
            if self.on_pause == "leave" or state.state_details.pause_reschedule:
                raise PausedRun(f"{self.name} is {state.name}: {PausedRun.__doc__}")
            await self._sleep(pause)
            # A pause can last for hours, and each look is a request.
            pause = min(2 * pause, LONGEST_SECONDS)
        return state

    async def _pause(self, reporter: Reporter, seconds: float | None, key: str | None, message: str | None) -> None:
        fields = given(
            id=reporter.server_id(self.id),
            timeoutSeconds=seconds,
            pauseKey=key,
            message=message,
            # The request is repeated if the connection is lost; the run pauses once all the same.
            idempotencyKey=uuid4().hex,
        )
        answer = checked((await reporter.execute(PAUSE, {"input": fields}, repeat=True))["it"])
        # The run pauses once for each key.
        if answer["status"] != "ACCEPT" and not key:
            raise RefusedError(f"{self.name} cannot be paused: {answer['reason']}")
        state = await self.resumed(reporter)
        if state.is_cancelling() or state.is_cancelled():
            raise Cancelled(CANCELLED)
        if state.is_final():
            raise ResultError(f"{self.name} was not resumed: it is {state.name} ({state.message}).")


class TaskRun(Execution):
    """A task run."""

    noun = "task run"
    # Without a value, the server would run it again in a retry of the flow run.
    keeps_none = True

    def __init__(
        self,
        engine: Engine[Reporter],
        fields: dict[str, Any],
        *,
        flow_run: FlowRun | None,
        cache_for: timedelta | None = None,
        refresh_cache: bool = False,
    ) -> None:
        bodies = flow_run.bodies if flow_run else Bodies()
        # Task runs send none: the heartbeats of their flow run tell that the process is alive.
        super().__init__(engine, bodies, on_pause=flow_run.on_pause if flow_run else "wait", beat_seconds=0)
        self.fields, self.flow_run = fields, flow_run
        self.cache_for, self.refresh_cache = cache_for, refresh_cache

    @property
    def ref(self) -> dict[str, str]:
        """The RunRef of the run."""
        return {"taskRunId": self.id}

    async def _create(self, reporter: Reporter) -> None:
        parent = given(flowRunId=self.flow_run.id if self.flow_run else None)
        self._known(await reporter.reports.create_task_run({**self.fields, **parent}))

    def _details(self) -> dict[str, Any]:
        key = self.fields.get("cacheKey")
        if key is None:
            return {}
        until = now() + self.cache_for if self.cache_for else None
        return given(cache_key=key, cache_expiration=until, refresh_cache=self.refresh_cache or None)

    def _keeps_end(self, state: State) -> bool:
        # One whose result was not kept is run again, like in the reference.
        return state.is_completed() and state.data is not None

    async def _wait(self, reporter: Reporter, answer: Answer) -> None:
        tags = self.fields.get("tags")
        if answer.rule != "take_tag_slots" or not tags:
            await super()._wait(reporter, answer)
            return
        # A notification of free slots ends the wait before the server's delay does, which grows with each attempt.
        await reporter.slots.wait(frozenset(f"tag:{tag}" for tag in tags), answer.retry_after_seconds)
        self._check()

    async def _ready(self, reporter: Reporter) -> None:
        if self.flow_run:
            await self.flow_run.resumed(reporter)

    async def _aborted(self, reporter: Reporter, answer: Answer) -> BaseException:
        if self.flow_run:
            state = await self.flow_run.look(reporter)
            if state.is_cancelling() or state.is_cancelled():
                # The abort can arrive before the heartbeat that brings the news of the cancellation.
                self.bodies.interrupt()
                return Cancelled(CANCELLED)
        return await super()._aborted(reporter, answer)
