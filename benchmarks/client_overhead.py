"""Time and memory that a client takes for mapped tasks that do nothing.

    python -m benchmarks.client_overhead --tasks 1000 --rounds 5
    python -m benchmarks.client_overhead --tasks 1000 --rounds 100   # 100,000 tasks

Each round is a flow run with mapped tasks on a server with a SQLite database, on the same machine. The output has the
seconds of each round, those of the client's processor, and the megabytes of the client afterwards.
"""

import tempfile
import time
from pathlib import Path

import psutil
import typer

from benchmarks.http_client import serving
from runstate.client import Client, flow, task


@task
def nothing(number: int) -> int:
    """Return a number."""
    return number


@flow
def mapped(tasks: int) -> int:
    """Map a task over numbers."""
    return sum(each.result() for each in nothing.map(range(tasks)))


def main(tasks: int = 1_000, rounds: int = 5) -> None:
    """Measure rounds and print them."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as directory:
        database = f"sqlite+aiosqlite:///{Path(directory) / 'runstate.db'}"
        with serving(database) as (url, _), Client(url) as client:
            measured = mapped.with_options(client=client)
            measured(10)
            for number in range(1, rounds + 1):
                began, used = time.perf_counter(), sum(process.cpu_times()[:2])
                measured(tasks)
                taken, busy = time.perf_counter() - began, sum(process.cpu_times()[:2]) - used
                megabytes = process.memory_info().rss / 2**20
                print(f"{number * tasks:8,} tasks {taken:6.2f} s {busy:6.2f} s of processor {megabytes:7.1f} MB")


if __name__ == "__main__":
    typer.run(main)
