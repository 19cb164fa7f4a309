"""Logs: lines that clients write, and a socket with new ones."""

import csv
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from io import StringIO
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

import sqlalchemy as sa
from starlette.websockets import WebSocket

from runstate.core.access.credentials import Principal
from runstate.core.commands.logs import write_logs
from runstate.database.bulk import table_of
from runstate.documents.access import Scope
from runstate.documents.logs import MOST_LINES, LogLine, WriteLogs
from runstate.errors import Id
from runstate.feed import Feed, Wanted, follow_lines
from runstate.prefect import objects
from runstate.prefect.bodies import Body, Time
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.prefect.filters import OF_ROWS
from runstate.prefect.objects import line
from runstate.prefect.presentation import as_json
from runstate.prefect.sockets import socket
from runstate.prefect.streaming import stream
from runstate.rows import FlowRun, Log

CSV: Final = ("timestamp", "level", "flow_run_id", "task_run_id", "message")
"""The columns of downloaded lines."""
CSV_LINES: Final = 1_000
"""Number of lines that are read together."""
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


@endpoint("GET", "/flow_runs/{id}/logs/download", Scope.READ)
async def download(call: Call) -> Reply:
    """Return all lines of a flow run as CSV, oldest first."""
    run = await objects.only(call, FlowRun, "flow run", call.id(), FlowRun.id == call.id())
    name = quote(f"{run.name}-logs.csv", safe="")
    headers = {
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": f"attachment; filename=\"flow-run-logs.csv\"; filename*=UTF-8''{name}",
    }
    return Reply(_csv(call, run.id), 200, headers)


async def _csv(call: Call, run: UUID) -> AsyncIterator[str]:
    """Yield the lines of a flow run, a page at a time: a run can have more lines than there is memory."""
    yield _written([CSV])
    columns = table_of(Log).c
    asked = sa.select(*(columns[name] for name in CSV), columns.id).where(Log.flow_run_id == run)
    page = asked = asked.order_by(Log.timestamp, Log.id).limit(CSV_LINES)
    while found := await _read(call, page):
        yield _written(each[:-1] for each in found)
        last = found[-1]
        # Keyset, not offset: an offset reads all lines before it again for each page.
        page = asked.where(Log.timestamp >= last.timestamp, (Log.timestamp > last.timestamp) | (Log.id > last.id))


async def _read(call: Call, page: sa.Select[Any]) -> Sequence[Any]:
    async with call.database.read() as connection:
        found: Sequence[Any] = (await connection.execute(page)).all()
        return found


def _written(rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


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
