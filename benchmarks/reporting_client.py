"""A program whose flows `client_torture` checks: python -m benchmarks.reporting_client URL NAME FLOWS FILE.

It appends a line to the file for each execution that succeeded, and for each flow run that ended.
"""

import os
import random
import sys
import time
from pathlib import Path

from runstate.client import Client

HEARTBEAT_SECONDS = 3.0


def main(url: str, name: str, flows: int, file: str) -> None:
    """Run flows with tasks that fail, some of them for good."""
    with Path(file).open("a") as lines, Client(url, heartbeat_seconds=HEARTBEAT_SECONDS) as client:

        def note(*words: object) -> None:
            print(*words, file=lines, flush=True)
            os.fsync(lines.fileno())

        def work(flow: int, task: str, failures: list[int]) -> str:
            time.sleep(random.uniform(0, 0.02))
            if failures:
                failures.pop()
                raise ValueError(f"{task} fails")
            note("executed", flow, task)
            return task

        for flow in range(flows):
            run = client.flow_run(name, idempotency_key=f"{name} {flow}")
            note("began", flow)
            try:
                with run:
                    run.task("extract").run(work, flow, "extract", [])
                    run.task("load", retries=2).run(work, flow, "load", [1] * (flow % 3))
                    run.task("send", tags=["torture"]).run(work, flow, "send", [1] * (flow % 7 == 0))
            except ValueError:
                note("ended", flow, run.id, "FAILED")
            else:
                note("ended", flow, run.id, "COMPLETED")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
