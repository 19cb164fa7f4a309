"""A run as the client's thread reports it: it proposes states and honours each verdict."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from runstate.client.bodies import Bodies
from runstate.client.engine import Engine
from runstate.client.errors import (
    INTERNAL,
    AbortedError,
    Cancelled,
    FinalRunError,
    PausedRun,
    ProblemError,
    RefusedError,
)
from runstate.client.reporter import Reporter
from runstate.client.reports import Answer
from runstate.client.results import data_of_exception, data_of_value, message_of, value_of
from runstate.client.states import Cancelled as CancelledState
from runstate.client.states import Completed, Crashed, Failed, Running, State, now

OnPause = Literal["wait", "leave"]

SHORTEST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 5.0
"""Bounds of the pause between two looks at a paused run."""
FAILURES: Final = 5
"""Failures of the server on one proposal after which the client gives up."""
CANCELLED: Final = "The run was cancelled."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the code of a run."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        """Return the value, or raise the exception."""
        if self.error:
            raise self.error
        return self.value


class ReportedRun:
    """A run whose states the client proposes. Its coroutines run in the thread of the client."""

    noun = "run"
    keeps_none = False

    def __init__(self, engine: Engine[Reporter], bodies: Bodies, *, on_pause: OnPause, beat_seconds: float) -> None:
        self.engine, self.bodies, self.on_pause, self.beat_seconds = engine, bodies, on_pause, beat_seconds
        self.id, self.name, self.version = "", "", 0
        self.state: State | None = None
        self.value: Any = None
        self.ended = False
        self.owner: object = None
        """The client, which lives as long as its runs."""
        self._block: Any = None
        self._creation: asyncio.Future[None] | None = None

    # What kinds of runs differ in.

    @property
    def title(self) -> str:
        """The name of what runs."""
        return self.name

    @property
    def ref(self) -> dict[str, str]:
        """The RunRef of the run."""
        raise NotImplementedError

    async def _create(self, reporter: Reporter) -> None:
        raise NotImplementedError

    def _details(self) -> dict[str, Any]:
        return {}

    async def _wait(self, reporter: Reporter, answer: Answer) -> None:
        await self._sleep(answer.retry_after_seconds)

    async def _ready(self, reporter: Reporter) -> None:
        """Return when nothing of the paused flow run is in the way. Raise PausedRun if the run leaves."""
        raise NotImplementedError

    async def _aborted(self, reporter: Reporter, answer: Answer) -> BaseException:
        return AbortedError(f"{self.name}: {answer.reason}")

    def settle(self) -> None:
        """Wait for what the code has started."""

    async def asettle(self) -> None:
        """Wait for what the code has started, without blocking the loop."""

    def _keeps_end(self, state: State) -> bool:
        """Whether a run in a final state is not proposed to run again."""
        return state.is_final()

    async def create(self, reporter: Reporter) -> None:
        """Create the run if it was not created yet."""
        if self.id:
            return
        if self._creation is None or self._creation.done():
            # A mapped task run may be asked for while it is created.
            self._creation = asyncio.ensure_future(self._create(reporter))
        # One caller that is cancelled must not cancel the creation for which others wait.
        await asyncio.shield(self._creation)

    def heard(self, state_type: str | None) -> None:
        """Take note of the type of the state that the run is in; None if it was deleted."""
        if state_type in {"CANCELLING", "CANCELLED", None}:
            self.bodies.interrupt()

    async def _enter(self, reporter: Reporter) -> None:
        await self.create(reporter)
        state = await self._begin(reporter)
        if state.is_final():
            self.ended = True
            raise FinalRunError(
                f"The {self.noun} {self.name} is {state.name} and is not run again: use run() to get its result."
            )

    async def _begin(self, reporter: Reporter) -> State:
        """Propose RUNNING until the run may execute or has ended; return its state."""
        if self.state and self._keeps_end(self.state):
            return self.state
        while True:
            self._check()
            answer = await self._propose(reporter, Running(state_details=self._details()))
            if answer.status == "WAIT":
                await self._wait(reporter, answer)
            elif answer.status == "ABORT" or answer.state is None:
                raise await self._aborted(reporter, answer)
            elif answer.status == "ACCEPT" or answer.state.is_running():
                # Heartbeats begin when the server knows that the run is RUNNING: before that, it expects none.
                reporter.beats.add(self)
                return answer.state
            elif (state := await self._rejected(reporter, answer.state)) is not None:
                return state

    async def _rejected(self, reporter: Reporter, state: State) -> State | None:
        """Return the final state that a rule gave to the run, if it did; wait until it may be proposed again."""
        if state.is_final():
            return state
        if state.is_cancelling():
            raise Cancelled(CANCELLED)
        if state.is_paused():
            await self._ready(reporter)
        elif state.state_details.scheduled_time:
            await self._sleep((state.state_details.scheduled_time - now()).total_seconds())
        return None

    async def _kept(self, reporter: Reporter, state: State) -> Any:
        """Return the value of a run that had ended before; raise its exception if it failed."""
        if state.data is None:
            state = await self.look(reporter)
        storage, allow_pickle = reporter.settings.storage, reporter.settings.allow_pickle
        if not state.is_completed():
            return state.with_storage(storage).result(allow_pickle=allow_pickle)
        value = await asyncio.to_thread(value_of, state.data, storage, allow_pickle=allow_pickle)
        # A value that was not kept, and one that is null, are both None.
        return value if not isinstance(value, type(value_of(None, None))) else None

    async def finish(self, reporter: Reporter, outcome: Outcome, *, repeatable: bool = True) -> None:
        """Propose the end of the run. Unless it has ended then, it waits for a retry."""
        if isinstance(outcome.error, PausedRun):
            reporter.beats.remove(self)
            self.ended = True
            return
        state = await self._state_of(reporter, outcome, repeatable=repeatable)
        answer = await self._propose(reporter, state)
        # The end is proposed again if a rule answered with another state, such as CANCELLING or AwaitingRetry.
        while answer.state and not answer.state.is_final() and (not repeatable or not answer.state.is_scheduled()):
            if answer.status == "ABORT":
                break
            # A run that is being cancelled can only become CANCELLED; a block that cannot be repeated fails.
            cancelling = answer.state.is_cancelling()
            answer = await self._propose(reporter, CancelledState(message=CANCELLED) if cancelling else state)
        reporter.beats.remove(self)
        if answer.status == "ABORT":
            log.warning("%s could not become %s: %s", self.name, state.name, answer.reason)
        self.ended = answer.state is None or answer.state.is_final() or answer.status == "ABORT"

    async def _state_of(self, reporter: Reporter, outcome: Outcome, *, repeatable: bool) -> State:
        error = outcome.error
        if error is None:
            data = await self._data_of(reporter, outcome.value)
            return Completed(data=data, state_details=self._details())
        if isinstance(error, Cancelled):
            return CancelledState(message=CANCELLED)
        if isinstance(error, Exception):
            # The code of a `with` block cannot run again, so the server must not schedule a retry.
            details = self._details() | ({} if repeatable else {"retriable": False})
            return Failed(message=message_of(error), data=data_of_exception(error), state_details=details)
        # Neither a failure of the code nor a cancellation: Ctrl-C and SystemExit mean that the process ends.
        return Crashed(message=message_of(error), data=data_of_exception(error))

    async def _data_of(self, reporter: Reporter, value: Any) -> Any:
        settings = reporter.settings
        make = partial(data_of_value, value, keeps_none=self.keeps_none, allow_pickle=settings.allow_pickle)
        # Only a storage can take long.
        return await asyncio.to_thread(make, settings.storage) if settings.storage else make(None)

    async def _propose(self, reporter: Reporter, state: State) -> Answer:
        """Propose a state; if the run has changed meanwhile, propose it for the present version.

        A run that another client ended keeps its end, unless the server only missed the heartbeats of this one.
        """
        failures = 0
        while True:
            try:
                # The version keeps a state of this process from overwriting one that another client wrote meanwhile.
                given = {"run": self.ref, "state": state.to_input(), "expectedVersion": self.version}
                answer = self._note(state, await reporter.reports.propose(given))
                if reporter.settings.on_answer:
                    reporter.settings.on_answer(self, answer)
            except ProblemError as problem:
                failures += 1
                if problem.code != "VERSION_CONFLICT" and (problem.code != INTERNAL or failures > FAILURES):
                    raise RefusedError(f"{self.name}: {problem}") from problem
                if problem.code == INTERNAL:
                    await asyncio.sleep(SHORTEST_SECONDS * 2**failures)
                present = await self.look(reporter)
                if present.is_final() and not present.is_crashed():
                    return Answer("ABORT", present, f"The run was ended by another client: it is {present.name}.")
            else:
                return answer

    def _note(self, proposed: State, answer: Answer) -> Answer:
        """Note the state and the version that the answer has."""
        state = answer.state
        if state is None:
            return answer
        if answer.status == "ACCEPT":
            state = state.model_copy(update={"data": proposed.data, "timestamp": state.timestamp})
        self.state, self.version = state, state.version or self.version
        return Answer(answer.status, state, answer.reason, answer.retry_after_seconds, answer.rule)

    async def look(self, reporter: Reporter) -> State:
        """Read the state of the run. Raise RefusedError if it was deleted."""
        found = await reporter.reports.read(self.id)
        if found is None:
            raise RefusedError(f"The {self.noun} {self.name} was deleted.")
        self._known(found)
        assert self.state is not None  # noqa: S101 - set by the line before
        return self.state

    def _known(self, found: dict[str, Any]) -> None:
        self.id, self.name, self.version = found["id"], found["name"], found["version"]
        self.state = State.model_validate(found["state"]) if found["state"] else None

    def _check(self) -> None:
        if self.bodies.interrupted:
            raise Cancelled(CANCELLED)

    async def _sleep(self, seconds: float) -> None:
        """Sleep; raise Cancelled if the run is cancelled meanwhile."""
        until = now().timestamp() + seconds
        while (left := until - now().timestamp()) > 0:
            self._check()
            # In short steps, so that a cancellation is noticed within a second.
            await asyncio.sleep(min(left, 1.0))
        self._check()
