"""A flow of many mapped tasks, run against Prefect's own server and against runstate in one run, one after the other.

Prints for each server: seconds until the flow has ended, until all its task runs are recorded, and the server's CPU.

    PREFECT_PYTHON=.venv/prefect/bin/python python -m benchmarks.prefect_flow --tasks 1000 --rounds 3
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import orjson
import psutil

PYTHON: Final = os.environ.get("PREFECT_PYTHON", ".venv/prefect/bin/python")
PATIENCE_SECONDS: Final = 180
PORTS: Final = {"prefect": 4591, "runstate": 4592}
PROGRAM: Final = """
import json, sys, time
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter

@task
def trivial(x):
    return x

@flow(log_prints=False)
def many(count: int):
    return sum(trivial.map(range(count)).result())

count = int(sys.argv[1])
began = time.monotonic()
state = many(count, return_state=True)
ended = time.monotonic()
assert state.is_completed(), state
wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
with get_client(sync_client=True) as client:
    done = 0
    while done < count:
        time.sleep(0.5)
        done, page = 0, None
        while page is None or len(page) == 200:
            page = client.read_task_runs(flow_run_filter=wanted, limit=200, offset=done)
            if any(not run.state or not run.state.is_completed() for run in page):
                break
            done += len(page)
print(json.dumps([ended - began, time.monotonic() - began]))
"""


class Figures(NamedTuple):
    """The result of one round, in seconds."""

    flow: float
    recorded: float
    server_cpu: float


def main() -> None:
    """Measure both servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PORTS))
    options = parser.parse_args()
    names = [options.only] if options.only else sorted(PORTS)
    figures = {name: measured(name, options.tasks, options.rounds) for name in names}
    for name, found in figures.items():
        middle = Figures(*(statistics.median(each) for each in zip(*found, strict=True)))
        print(
            f"{name:9} {options.tasks} tasks: flow {middle.flow:6.2f} s, recorded after {middle.recorded:6.2f} s,"
            f" server CPU {middle.server_cpu:6.2f} s"
        )
    if len(figures) > 1:
        ours, theirs = (
            statistics.median(each.server_cpu for each in figures[name]) for name in ("runstate", "prefect")
        )
        print(f"runstate uses {ours / theirs:.0%} of the server CPU")


def measured(name: str, tasks: int, rounds: int) -> list[Figures]:
    """Return the figures of some rounds on a new server, after one small round."""
    with tempfile.TemporaryDirectory() as folder, served(name, Path(folder)) as server:
        round_of(name, server, 20, Path(folder))
        return [round_of(name, server, tasks, Path(folder)) for _ in range(rounds)]


def round_of(name: str, server: psutil.Process, tasks: int, folder: Path) -> Figures:
    """Run the flow once."""
    before = used(server)
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{PORTS[name]}/api",
        "PREFECT_HOME": str(folder / "client"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(tasks)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    flow, recorded = orjson.loads(done.stdout.splitlines()[-1])
    return Figures(flow, recorded, used(server) - before)


def used(server: psutil.Process) -> float:
    """Return the seconds of CPU that a server and its children have used."""
    processes = [server, *server.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in processes)


@contextlib.contextmanager
def served(name: str, folder: Path) -> Iterator[psutil.Process]:
    """Yield the process of a new server with a SQLite file."""
    with (folder / "output").open("wb") as output:
        command, environment = COMMANDS[name](folder)
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            _wait(f"http://127.0.0.1:{PORTS[name]}/api/admin/version")
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _prefect(folder: Path) -> tuple[list[str], dict[str, str]]:
    port = str(PORTS["prefect"])
    settings = {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return [PYTHON, "-m", "prefect", "server", "start", "--port", port], settings


def _runstate(folder: Path) -> tuple[list[str], dict[str, str]]:
    settings = {"RUNSTATE_PORT": str(PORTS["runstate"]), "RUNSTATE_DATABASE_URL": f"sqlite:///{folder}/runstate.db"}
    return [sys.executable, "-m", "runstate", "serve"], settings


COMMANDS: Final = {"prefect": _prefect, "runstate": _runstate}


def _wait(url: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(URLError, ConnectionError), urlopen(url, timeout=5):  # noqa: S310 our own address
            return
        time.sleep(0.5)
    sys.exit(f"{url} did not answer")


if __name__ == "__main__":
    main()
