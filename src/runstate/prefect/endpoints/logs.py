"""Logs."""

from typing import Any
from uuid import UUID

from runstate.core.commands.logs import write_logs
from runstate.documents.access import Scope
from runstate.documents.logs import MOST_LINES, LogLine, WriteLogs
from runstate.errors import Id
from runstate.prefect.bodies import Body, Time
from runstate.prefect.endpoint import Call, endpoint


class Line(Body):
    """A line of a log."""

    name: str
    level: int
    message: str
    timestamp: Time
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None
    worker_id: UUID | None = None

    def line(self) -> LogLine:
        """Return it as the document of the command."""
        return LogLine(
            logger=self.name,
            level=self.level,
            message=self.message,
            timestamp=self.timestamp,
            flow_run_id=_id(self.flow_run_id),
            task_run_id=_id(self.task_run_id),
            worker_id=_id(self.worker_id),
        )


def _id(given: UUID | None) -> Id | None:
    return None if given is None else Id(str(given))


@endpoint("POST", "/logs/", Scope.PROPOSE, status=201)
async def write(call: Call, body: list[Line] | Line) -> Any:
    """Write lines, at most 1,000 in one transaction."""
    lines = [each.line() for each in (body if isinstance(body, list) else [body])]
    for start in range(0, len(lines), MOST_LINES):
        await write_logs(call.context, WriteLogs(logs=lines[start : start + MOST_LINES]))
