"""Pages and counts of rows, with the filters of the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import sqlalchemy as sa

from runstate.database.driver import fetch
from runstate.documents.access import Scope
from runstate.prefect import pages, reading
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.objects import PRESENTED, rows
from runstate.prefect.pages import BODIES, BY_ROW, Page
from runstate.rows import (
    ArtifactCollection,
    BlockDocument,
    BlockSchema,
    BlockType,
    FlowRun,
    Log,
    Row,
    TaskRun,
    Worker,
    WorkQueue,
)

Clause = sa.ColumnElement[bool]

READ: Final[dict[type[Row], Callable[..., Awaitable[list[Any]]]]] = {
    FlowRun: reading.flow_runs,
    TaskRun: reading.task_runs,
}
"""Rows that are read together with their states."""
ELSEWHERE: Final = frozenset({ArtifactCollection, BlockDocument, BlockSchema, Worker})
"""Rows with lists that have another path, or other rules."""
PATHS: Final[dict[str, type[Row]]] = {family.own: row for row, family in BY_ROW.items() if row not in ELSEWHERE} | {
    "artifacts/latest": ArtifactCollection
}
UNCOUNTED: Final = frozenset({BlockType, Log, WorkQueue})
"""Rows that the client lists and does not count."""


async def listed(call: Call, row: type[Row], body: Page, *further: Clause) -> list[Any]:
    """Return a page of rows as objects of the client."""
    if row in READ:
        limit = pages.LARGEST if body.limit is None else body.limit
        clause = sa.and_(sa.true(), *pages.conditions(row, body), *further)
        return await READ[row](call, clause, pages.order(row, body.sort), limit, body.offset or 0)
    return await PRESENTED[row](call, await rows(call, row, pages.page(row, body, *further)))


async def counted(call: Call, row: type[Row], body: Page) -> int:
    """Return the number of rows."""
    asked = pages.count(row, body)
    async with call.database.query(asked) as connection:
        ((number,),) = await fetch(connection, asked)
    return int(number)


def _declare(path: str, row: type[Row], answer: Callable[..., Awaitable[Any]]) -> None:
    async def handler(call: Call, body: Any) -> Any:
        return await answer(call, row, body)

    # The type of the body is known only here.
    handler.__annotations__["body"] = BODIES[row]
    endpoint("POST", path, Scope.READ)(handler)


for _path, _row in PATHS.items():
    _declare(f"/{_path}/filter", _row, listed)
    if _row not in UNCOUNTED:
        _declare(f"/{_path}/count", _row, counted)
_declare("/block_documents/count", BlockDocument, counted)
