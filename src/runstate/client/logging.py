"""A handler of the standard library's logging that sends records to the run they belong to."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from runstate.client.bodies import CURRENT
from runstate.client.engine import Engine
from runstate.client.proposals import ReportedRun
from runstate.client.reporter import Reporter
from runstate.client.runs import FlowRun, TaskRun

OWN = ("runstate.client", "httpx", "httpcore", "websockets")
"""Loggers of the client and of what it uses: sending their records would cause others."""


class RunHandler(logging.Handler):
    """Sends the records of runs in batches; records outside of runs are ignored."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record soon, if code of a run wrote it."""
        run = CURRENT.get()
        if run is None or record.name.startswith(OWN):
            return
        try:
            line = self._line(run, record)
            engine: Engine[Reporter] = run.engine
            engine.submit(lambda reporter: reporter.lines.add(line))
        # As the handlers of the standard library do.
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def _line(self, run: ReportedRun, record: logging.LogRecord) -> dict[str, Any]:
        return {
            **refs_of(run),
            "level": record.levelno,
            "logger": record.name,
            "message": self.format(record)[:20_000] or " ",
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }


def refs_of(run: ReportedRun) -> dict[str, str]:
    """Return the ids of a run and, for a task run, of its flow run."""
    if isinstance(run, TaskRun) and run.flow_run:
        return {"flowRunId": run.flow_run.id, "taskRunId": run.id}
    return {"flowRunId" if isinstance(run, FlowRun) else "taskRunId": run.id}
