"""Logs: lines that clients write, and a socket with new ones."""

from contextlib import aclosing
from typing import Any, Literal
from uuid import UUID

from starlette.websockets import WebSocket

from runstate.core.access.credentials import Principal
from runstate.core.commands.logs import write_logs
from runstate.database.bulk import table_of
from runstate.documents.access import Scope
from runstate.documents.logs import MOST_LINES, LogLine, WriteLogs
from runstate.errors import Id
from runstate.feed import Feed, Wanted, follow_lines
from runstate.prefect.bodies import Body, Time
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.objects import line
from runstate.prefect.pages import OF_ROWS
from runstate.prefect.presentation import as_json
from runstate.prefect.sockets import socket
from runstate.prefect.streaming import stream
from runstate.rows import Log

LogFilter: Any = OF_ROWS[Log]


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


class Subscription(Body):
    """The message with which a client subscribes."""

    type: Literal["filter"]
    filter: LogFilter


@socket("/logs/out", Scope.READ)
async def send(websocket: WebSocket, _: Principal) -> None:
    """Send new lines."""
    await stream(websocket, Subscription, _stream)


async def _stream(websocket: WebSocket, wanted: Subscription) -> None:
    feed: Feed = websocket.app.state.feed
    where = wanted.filter.clause(table_of(Log))
    async with aclosing(await follow_lines(feed, Wanted(where=where))) as parts:
        async for part in parts:
            for each in part.lines:
                await websocket.send_text(as_json({"type": "log", "log": line(each)}).decode())
