"""Flow runs and their subflow runs: which tree a flow run belongs to."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.dialects import among, among_selected
from runstate.database.driver import fetch
from runstate.database.queries.trees import tree_of
from runstate.rows import FlowRun, LogWrite, TaskRun

MOST_KNOWN: Final = 10_000
"""Number of flow runs whose parents are remembered."""
UNKNOWN_SECONDS: Final = 1
"""Time after which an unknown flow run is looked up again."""


class Trees:
    """The parents of flow runs. They never change, so each is read once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.parents: dict[UUID, UUID | None] = {}
        """Parent of each known flow run; None: it is no subflow run."""
        self.unknown: dict[UUID, float] = {}
        """When flow runs that do not exist were looked up, by the loop's clock."""
        self.reading = asyncio.Lock()

    def contains(self, root: UUID, flow_run_id: UUID | None) -> bool | None:
        """Return whether a flow run belongs to the tree of another one; None if that has to be read."""
        seen = flow_run_id
        while seen is not None and seen != root:
            if seen not in self.parents:
                return False if self._is_unknown(seen) else None
            seen = self.parents[seen]
        return seen == root

    async def within(self, root: UUID, entries: Iterable[LogWrite]) -> list[LogWrite]:
        """Return the entries whose flow run belongs to a tree."""
        some = list(entries)
        if self._unread(root, some):
            # One after another, so that many subscribers to new runs share one statement.
            async with self.reading:
                if unread := self._unread(root, some):
                    await self._read(unread)
        return [entry for entry in some if self.contains(root, entry.flow_run_id)]

    def _unread(self, root: UUID, entries: list[LogWrite]) -> list[UUID]:
        ids = {entry.flow_run_id for entry in entries}
        return [each for each in ids if each and self.contains(root, each) is None]

    def _is_unknown(self, flow_run_id: UUID) -> bool:
        looked = self.unknown.get(flow_run_id)
        return looked is not None and asyncio.get_running_loop().time() - looked < UNKNOWN_SECONDS

    async def _read(self, ids: list[UUID]) -> None:
        """Read the parents of flow runs, and those of their parents."""
        runs = sa.select(FlowRun.id, TaskRun.flow_run_id).outerjoin(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        above = runs.where(among(FlowRun.id, ids)).cte(recursive=True)
        every = above.union(runs.join(above, above.c.flow_run_id == FlowRun.id))
        async with self.database.read() as connection:
            found: dict[UUID, UUID | None] = dict(await fetch(connection, sa.select(every)))
        if len(self.parents) + len(self.unknown) > MOST_KNOWN:
            self.parents.clear()
            self.unknown.clear()
        self.parents |= found
        now = asyncio.get_running_loop().time()
        self.unknown |= {each: now for each in ids if each not in found}


@dataclass(frozen=True, slots=True)
class TreeFilter:
    """Writes to the logs of a flow run and of its subflow runs. In memory, it also matches runs that must be read."""

    trees: Trees
    root: UUID
    keys: None = None

    def match(self, entry: LogWrite) -> bool:
        """Return whether an entry may match."""
        return self.trees.contains(self.root, entry.flow_run_id) is not False

    def clauses(self) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the condition in SQL."""
        yield among_selected(LogWrite.flow_run_id, tree_of(self.root))
