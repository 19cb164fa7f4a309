"""Time that an import from Prefect takes: once into an empty database, and once again.

    python -m benchmarks.prefect_import --runs 10000
    python -m benchmarks.prefect_import --source ~/.prefect/prefect.db --target postgresql://host/empty

Without a source, a database with these runs is written first. Each flow run has four states and three task runs, each
task run has three states and three lines of logs. The output has the seconds, and those of the processor of the import;
the processor of PostgreSQL is not in them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import typer

from tests.imports.reference import THEN, Reference

FLOW_RUN = ("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")
TASK_RUN = ("PENDING", "RUNNING", "COMPLETED")
TASKS, LINES = 3, 3
KEY = "A" * 43 + "="


def write(runs: int, file: Path) -> str:
    """Write a database of Prefect with a number of flow runs; return its path."""
    made = Reference()
    flow = made.add("flow", name="measured", tags=[], labels={})
    for _ in range(runs):
        run = made.run("flow_run", *FLOW_RUN, flow_id=flow)
        for task in range(TASKS):
            _write_task(made, run, made.run("task_run", *TASK_RUN, flow_run_id=run, dynamic_key=str(task)))
    return made.to_sqlite(file, indexed=True)


def _write_task(made: Reference, run: UUID, task: UUID) -> None:
    for line in range(LINES):
        at = THEN + timedelta(seconds=line)
        text = f"Step {line} of the task finished in the state Completed()"
        made.add("log", name="tasks", level=20, flow_run_id=run, task_run_id=task, message=text, timestamp=at)


def measure(source: str, target: str) -> None:
    """Import, and print the time that it took."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "runstate", "import", "prefect", source, "--database-url", target]
    environment = {"RUNSTATE_SECRET_KEYS": KEY} | os.environ
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = ended.ru_utime + ended.ru_stime - used.ru_utime - used.ru_stime
    print(f"{time.perf_counter() - began:6.1f} s {busy:6.1f} s of processor")


def main(runs: int = 10_000, source: str = "", target: str = "") -> None:
    """Measure an import and another one."""
    with tempfile.TemporaryDirectory() as directory:
        database = source or write(runs, Path(directory) / "prefect.db")
        for _ in range(2):
            measure(database, target or f"sqlite:///{Path(directory) / 'runstate.db'}")


if __name__ == "__main__":
    typer.run(main)
