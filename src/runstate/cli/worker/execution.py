"""A claimed run as a process: its states, its output and its end."""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from runstate.cli.worker.api import Api, ProblemError
from runstate.cli.worker.commands import Command, CommandError, command_of
from runstate.client.errors import RefusedError

PROPOSE: Final = """mutation($input: ProposeStateInput!) { it: proposeState(input: $input) {
  ... on OrchestrationResult { status reason retryAfterSeconds state { type } } ... on Problem { code message } } }"""
RELEASE: Final = """mutation($input: ReleaseClaimsInput!) { it: releaseClaims(input: $input) {
  ... on ReleaseClaimsPayload { releasedIds } ... on Problem { code message } } }"""
BEAT: Final = "mutation($runs: [RunRef!]!) { it: heartbeat(runs: $runs) { __typename } }"
WRITE: Final = """mutation($input: WriteLogsInput!) { it: writeLogs(input: $input) {
  ... on WriteLogsPayload { written } ... on Problem { code message } } }"""
STATE: Final = "query($id: ID!) { it: flowRun(id: $id) { stateType } }"
HELD: Final = {"PENDING", "RUNNING", "CANCELLING"}
"""Types of states in which the end of the process ends the run."""
OVER: Final = {"COMPLETED", "FAILED", "PAUSED"}
"""Types of states in which a process may go on without a claim: it reported them itself."""
BATCH_LINES: Final = 200
PAUSE_SECONDS: Final = 0.1
"""Pause between two batches of lines."""
LONGEST_LINE: Final = 100_000
"""Bytes after which a line is divided."""
DRAIN_SECONDS: Final = 5
"""Time without output after which an ended process is taken to have no more."""
DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG."""

Tell = Callable[[str, str], None]
"""Reports a step: the label of the run, and a message."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Common values of all runs of a worker."""

    api: Api
    template: Mapping[str, Any]
    worker_id: str
    grace_seconds: float
    environment: Mapping[str, str]
    tell: Tell


class Execution:
    """A claimed run."""

    def __init__(self, claim: Mapping[str, Any], setting: Setting) -> None:
        self.run, self.setting = claim["flowRun"], setting
        self.claim_id: str = claim["id"]
        self.is_live = True
        """Whether the claim is not known to be lost."""
        self.ending: dict[str, Any] | None = None
        """The state to propose after the process was stopped; empty if the run has another holder."""
        self.stopping = asyncio.Event()

    def tell(self, message: str) -> None:
        """Report a step."""
        self.setting.tell(f"{self.run['flow']['name']} / {self.run['name']}", message)

    def cancel(self) -> None:
        """Stop the process, because the run is CANCELLING."""
        self._stop({"type": "CANCELLED", "message": "The worker stopped the process."})

    def crash(self, message: str) -> None:
        """Stop the process, and mark the run as CRASHED."""
        self._stop({"type": "CRASHED", "message": message})

    async def lose(self) -> None:
        """Stop the process, because its claim is lost, unless the process itself has ended or paused the run."""
        self.is_live = False
        state = await self._state()
        if state == "CANCELLING":
            self.cancel()
        elif state not in OVER:
            self._stop({})

    def _stop(self, ending: dict[str, Any]) -> None:
        if self.ending is None:
            self.ending = ending
            self.stopping.set()

    async def execute(self) -> None:
        """Start the process, wait for its end and report it."""
        try:
            await self._execute()
        except (ProblemError, RefusedError) as error:
            self.tell(f"The server refused: {error}")

    async def _execute(self) -> None:
        try:
            command = command_of(self.run, self.setting.template)
        except (CommandError, ValueError) as error:
            await self._release(failed=True, message=str(error))
            return
        if not await self._enter_running():
            await self._give_up()
            return
        try:
            process = await self._start(command)
        except OSError as error:
            await self._report({"type": "CRASHED", "message": f"The process could not be started: {error}."})
            return
        self.tell(f"started as process {process.pid}")
        code = await self._watch(process)
        await self._report(self.ending if self.ending is not None else _ending(code))

    async def _enter_running(self) -> bool:
        """Propose RUNNING until the answer is not WAIT; return whether it was accepted."""
        while not self.stopping.is_set():
            answer = await self._propose({"type": "RUNNING"})
            if answer["status"] != "WAIT":
                if answer["status"] != "ACCEPT":
                    self.tell(f"not started: {answer['reason']}")
                return str(answer["status"]) == "ACCEPT"
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), answer["retryAfterSeconds"])
        return False

    async def _propose(self, state: Mapping[str, Any]) -> Any:
        claim = {"claimId": self.claim_id} if self.is_live else {}
        # The same in a repetition after a lost answer, and another one for each claim of the run.
        key = f"worker {self.claim_id} {state['type']}"
        given = {"run": {"flowRunId": self.run["id"]}, "state": state, "idempotencyKey": key, **claim}
        return await self.setting.api.do(PROPOSE, input=given)

    async def _release(self, *, failed: bool, message: str | None = None) -> None:
        given = {"claimIds": [self.claim_id], "failed": failed, "message": message}
        await self.setting.api.do(RELEASE, input=given)
        self.tell(message or "released")

    async def _give_up(self) -> None:
        """Return a run that was not started, or end it if it is CANCELLING."""
        if await self._state() == "CANCELLING":
            await self._report({"type": "CANCELLED", "message": "The worker had not started the run."})
        else:
            await self._release(failed=False)

    async def _start(self, command: Command) -> Process:
        ids = {"RUNSTATE_FLOW_RUN_ID": self.run["id"], "RUNSTATE_CLAIM_ID": self.claim_id}
        return await asyncio.create_subprocess_exec(
            *command.arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=command.directory,
            env={"PYTHONUNBUFFERED": "1", **os.environ, **command.environment, **self.setting.environment, **ids},
            # A process group of its own: signals reach its children, and Ctrl-C in a terminal reaches the worker only.
            start_new_session=True,
            # A killed worker must not leave processes behind whose runs are given to others.
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )

    async def _watch(self, process: Process) -> int:
        """Return the exit code of the process, whose output is forwarded; stop it on `stop`."""
        ended = asyncio.create_task(process.wait())
        output = asyncio.create_task(self._forward(process, ended))
        others = [asyncio.create_task(each) for each in (_feed(process, self.run["parameters"]), self._beats())]
        try:
            if not await self._ends(ended):
                await self._terminate(process, ended)
            code = await ended
            # However long the server is away, no line is lost.
            await output
            return code
        finally:
            # The worker leaves without waiting for its processes.
            if not ended.done():
                send(process, signal.SIGKILL)
            for task in (*others, output, ended):
                task.cancel()

    async def _ends(self, ended: asyncio.Task[int]) -> bool:
        """Wait for the end of the process or a stop; return whether the process has ended."""
        stop = asyncio.create_task(self.stopping.wait())
        await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        return ended.done()

    async def _beats(self) -> None:
        """Send heartbeats of the run, if it is monitored."""
        while seconds := self.run["heartbeatSeconds"]:
            await asyncio.sleep(seconds)
            await self.setting.api.do(BEAT, runs=[{"flowRunId": self.run["id"]}])

    async def _terminate(self, process: Process, ended: asyncio.Task[int]) -> None:
        """Send SIGTERM to the process group, and SIGKILL after the grace."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            send(process, number)
            done, _ = await asyncio.wait({ended}, timeout=self.setting.grace_seconds)
            if done:
                return

    async def _forward(self, process: Process, ended: asyncio.Task[int]) -> None:
        """Write the output of the process to the logs of the run, in batches."""
        rest = b""
        while chunk := await _read(process, ended):
            *lines, rest = (rest + chunk).split(b"\n")
            # A program that never writes a line break must not fill the memory of the worker.
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            await self._write(lines)
            # Meanwhile a program that writes much fills the pipe, so batches are large.
            await asyncio.sleep(PAUSE_SECONDS)
        await self._write([rest] if rest else [])

    async def _write(self, lines: Sequence[bytes]) -> None:
        now = datetime.now(UTC).isoformat()
        common = {"flowRunId": self.run["id"], "workerId": self.setting.worker_id, "timestamp": now}
        for start in range(0, len(lines), BATCH_LINES):
            batch = [line.decode(errors="replace").rstrip("\r") for line in lines[start : start + BATCH_LINES]]
            logs = [{**common, "level": 20, "logger": "process", "message": each} for each in batch]
            try:
                await self.setting.api.do(WRITE, input={"logs": logs})
            except (ProblemError, RefusedError) as error:
                self.tell(f"{len(batch)} lines of output were refused: {error}")

    async def _state(self) -> str | None:
        run = await self.setting.api.do(STATE, id=self.run["id"])
        return str(run["stateType"]) if run else None

    async def _report(self, ending: Mapping[str, Any]) -> None:
        """Propose the end of the run, unless the process did, or another worker has the run."""
        state = await self._state() if ending else None
        if state not in HELD:
            self.tell(f"ended; the run is {state}" if ending else "stopped: the claim was lost")
            return
        # A program that ends with code 0 on SIGTERM was cancelled all the same.
        ending = {"type": "CANCELLED"} if state == "CANCELLING" and ending["type"] == "COMPLETED" else ending
        answer = await self._propose(ending)
        self.tell(f"{answer['state']['type']}: {ending.get('message') or 'ended with code 0'}")


def _ending(code: int) -> dict[str, Any]:
    """Return the state of a run whose process has ended by itself."""
    if code == 0:
        return {"type": "COMPLETED"}
    if code > 0:
        return {"type": "CRASHED", "message": f"The process ended with exit code {code}."}
    return {"type": "CRASHED", "message": f"The process was killed by {signal.Signals(-code).name}."}


async def _read(process: Process, ended: asyncio.Task[int]) -> bytes:
    """Return the next part of the output of a process; nothing at its end."""
    assert process.stdout  # noqa: S101 it is piped
    read = asyncio.create_task(process.stdout.read(2**16))
    await asyncio.wait({read, ended}, return_when=asyncio.FIRST_COMPLETED)
    # Children of an ended process can keep its output open.
    done, _ = await asyncio.wait({read}, timeout=DRAIN_SECONDS)
    return read.result() if done else b""


async def _feed(process: Process, parameters: Any) -> None:
    """Write the parameters to the standard input of the process, as JSON."""
    assert process.stdin  # noqa: S101 it is piped
    # Programs need not read them.
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(orjson.dumps(parameters))
        await process.stdin.drain()
        process.stdin.close()


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process and its children, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
