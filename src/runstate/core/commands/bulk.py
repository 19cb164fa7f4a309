"""Commands for many runs: the runs that meet a condition are handled in batches, in the order of their ids.

Other clients get their turn between two batches. With a key, the progress is stored: a repeated command continues where
the first one stopped, or returns its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Created, Outcome, ProposeState
from runstate.core.context import CommandContext
from runstate.database import dialects
from runstate.database.dialects import among
from runstate.database.failures import as_answer
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.states import RunKind
from runstate.errors import IdempotencyConflict, Overloaded, Problem, Unavailable, VersionConflict
from runstate.rows import BulkOperation, FlowRun, TaskRun

PAGE: Final = 1_000
"""Number of runs that are looked up at once."""
MOST_SECONDS: Final = 10.0
"""Time after which a command stops and returns a cursor."""
SAVE_SECONDS: Final = 0.25
"""Time between two writes of the progress."""
MOST_OUTCOMES: Final = 50
"""Number of different outcomes that are told apart."""
MOST_EXAMPLES: Final = 10
TRIES: Final = 3
"""Number of proposals for a run that changes all the time."""


class Found(NamedTuple):
    """A run that met the condition in a version."""

    id: UUID
    version: int


Act = Callable[[Sequence[Found]], Awaitable[Sequence[Outcome | None]]]
"""Handles a batch, and returns the outcome for each run; None if the run no longer meets the condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCommand:
    """What to do with which runs."""

    mutation: str
    run: type[FlowRun | TaskRun]
    where: sa.ColumnElement[bool]
    act: Act
    batch: int
    limit: int
    after: UUID | None = None
    key: str | None = None
    fingerprint: str = ""


class Group(NamedTuple):
    """An outcome that several runs share."""

    changed: bool = False
    """Whether the runs entered a state or were deleted; of a dry run, whether they would."""
    status: str | None = None
    problem: str | None = None
    rule: str | None = None
    reason: str | None = None


DONE: Final = Group(changed=True, status=OrchestrationStatus.ACCEPT.value)
DELETED: Final = Created(kind=RunKind.FLOW_RUN, run_id=UUID(int=0), created=False)
"""The outcome of a deletion."""


@dataclass(slots=True)
class Progress:
    """The state of a command."""

    total: int
    """Number of runs that met the condition at the start."""
    done: int = 0
    """Number of runs that were handled."""
    cursor: UUID | None = None
    """Id of the last run that was handled."""
    has_more: bool = True
    finished: bool = False
    """Whether the command has reached its limit or the last run."""
    groups: dict[Group, tuple[int, list[UUID]]] = field(default_factory=dict)
    """Number of runs with each outcome, and the ids of the first ones."""

    def add(self, run: Found, outcome: Outcome | None) -> None:
        """Count a run that was handled."""
        self.cursor, self.done = run.id, self.done + 1
        group = _group(outcome)
        if group not in self.groups and len(self.groups) >= MOST_OUTCOMES:
            # Reasons can name runs, so their number has no bound of its own.
            group = Group(reason="Other outcomes.")
        number, examples = self.groups.get(group, (0, []))
        self.groups[group] = number + 1, [*examples, run.id] if len(examples) < MOST_EXAMPLES else examples

    def columns(self) -> dict[str, Any]:
        """Return the progress as it is stored."""
        outcomes = [[*group, number, [str(each) for each in ids]] for group, (number, ids) in self.groups.items()]
        own = {"total": self.total, "done": self.done, "cursor": self.cursor, "has_more": self.has_more}
        return {**own, "finished": self.finished, "outcomes": outcomes}

    @classmethod
    def of(cls, row: BulkOperation) -> Progress:
        """Return the progress that was stored."""
        groups = {Group(*group): (number, [UUID(text) for text in ids]) for *group, number, ids in row.outcomes}
        return cls(row.total, row.done, row.cursor, row.has_more, row.finished, groups)


def _group(outcome: Outcome | None) -> Group:
    if outcome is None:
        return Group(reason="The run no longer meets the condition.")
    if isinstance(outcome, Answer):
        changed = bool(outcome.written or outcome.proposed or outcome.replayed)
        return Group(changed, outcome.status.value, None, outcome.rule, outcome.reason)
    if isinstance(outcome, Problem):
        return Group(problem=outcome.code, reason=outcome.message)
    if isinstance(outcome, Exception):
        raise outcome
    return DONE


async def execute(context: CommandContext, command: BulkCommand) -> Progress:
    """Handle runs until the limit, the last run or the end of the time. Raise IdempotencyConflict for a reused key."""
    stored, progress = await _begin(context, command)
    if progress.finished:
        return progress
    clock = asyncio.get_running_loop().time
    deadline, saved = clock() + MOST_SECONDS, clock()
    try:
        async for batch in _batches(context, command, progress):
            for run, outcome in zip(batch, await command.act(batch), strict=True):
                progress.add(run, outcome)
            if clock() > saved + SAVE_SECONDS:
                stored, saved = await _save(context, command, progress, stored), clock()
            if clock() > deadline:
                break
        else:
            progress.finished = True
            progress.has_more = progress.done >= command.limit and await _exists(context, command, progress)
    except Exception as error:
        # The answer to these errors would be that nothing was written; the client goes on from the cursor.
        if not (progress.done and isinstance(as_answer(error), Overloaded | Unavailable)):
            raise
        progress.finished = False
    finally:
        await _save(context, command, progress, stored)
    return progress


async def _batches(context: CommandContext, command: BulkCommand, progress: Progress) -> AsyncIterator[Sequence[Found]]:
    while (left := command.limit - progress.done) > 0:
        size = min(PAGE, left)
        page = await _page(context, command, progress, size)
        for start in range(0, len(page), command.batch):
            yield page[start : start + command.batch]
        if len(page) < size:
            return


def _matching(command: BulkCommand, progress: Progress) -> sa.ColumnElement[bool]:
    after = progress.cursor or command.after
    return command.where if after is None else sa.and_(command.where, command.run.id > after)


async def _page(context: CommandContext, command: BulkCommand, progress: Progress, size: int) -> list[Found]:
    run = command.run
    # By id, which never changes: runs that change state meanwhile are neither skipped nor found twice.
    query = sa.select(run.id, run.version).where(_matching(command, progress)).order_by(run.id).limit(size)
    async with context.database.query(query) as connection:
        return [Found(*each) for each in await connection.execute(query)]


async def _exists(context: CommandContext, command: BulkCommand, progress: Progress) -> bool:
    return bool(await _page(context, command, progress, 1))


async def _begin(context: CommandContext, command: BulkCommand) -> tuple[int, Progress]:
    """Return the number of runs that were handled as it is stored, and the progress."""
    if command.key is not None and (known := await stored_operation(context, command.key)):
        if known.fingerprint != command.fingerprint:
            raise IdempotencyConflict
        return known.done, Progress.of(known)
    query = sa.select(sa.func.count()).select_from(command.run).where(_matching(command, Progress(0)))
    # Like a query of a client, since its cost is unbounded: commands and services have few connections.
    async with context.database.query(query) as connection:
        total: int = (await connection.execute(query)).scalar_one()
    progress = Progress(total)
    if command.key is None:
        return 0, progress
    now = context.clock()
    own = {"key": command.key, "fingerprint": command.fingerprint, "mutation": command.mutation}
    table: Any = BulkOperation.__table__
    async with context.database.write() as transaction:
        connection = transaction.connection
        insert = dialects.insert_or_skip(connection.dialect.name, table)
        await connection.execute(insert, {**own, "created": now, "updated": now, **progress.columns()})
    known = await stored_operation(context, command.key)
    if known is None or known.fingerprint != command.fingerprint:
        raise IdempotencyConflict
    return known.done, Progress.of(known)


async def stored_operation(context: CommandContext, key: str) -> BulkOperation | None:
    """Return the stored progress of the command with a key."""
    query = sa.select(*BulkOperation.__table__.c).where(BulkOperation.key == key)
    async with context.database.read() as connection:
        found = (await connection.execute(query)).mappings().one_or_none()
    return None if found is None else BulkOperation.of(dict(found))


async def _save(context: CommandContext, command: BulkCommand, progress: Progress, stored: int) -> int:
    """Store the progress, unless a repetition of the command has stored more; return the stored number of runs."""
    if command.key is None:
        return 0
    is_newest = (BulkOperation.key == command.key) & (BulkOperation.done == stored)
    columns = {**progress.columns(), "updated": context.clock()}
    async with context.database.write() as transaction:
        changed = await transaction.connection.execute(sa.update(BulkOperation).where(is_newest).values(**columns))
    return progress.done if changed.rowcount else stored


Make = Callable[[UUID, int], ProposeState]
"""Returns the proposal for a run in a version."""


def proposing(batcher: Batcher, run: type[FlowRun | TaskRun], where: sa.ColumnElement[bool], make: Make) -> Act:
    """Return the function that proposes a state for each run of a batch.

    A run that has changed since it was found is looked up again: it can still meet the condition.
    """

    async def act(batch: Sequence[Found]) -> list[Outcome | None]:
        outcomes: dict[UUID, Outcome | None] = {}
        waiting: Sequence[Found] = batch
        for _ in range(TRIES):
            answers = await batcher.submit([make(*each) for each in waiting])
            outcomes |= {each.id: answer for each, answer in zip(waiting, answers, strict=True)}
            changed = [each.id for each in waiting if isinstance(outcomes[each.id], VersionConflict)]
            if not changed:
                break
            waiting = await _matching_among(batcher.context, run, where, changed)
            outcomes |= dict.fromkeys(set(changed).difference(each.id for each in waiting))
            if not waiting:
                break
        return [outcomes[each.id] for each in batch]

    return act


async def _matching_among(
    context: CommandContext, run: type[FlowRun | TaskRun], where: sa.ColumnElement[bool], ids: Sequence[UUID]
) -> list[Found]:
    async with context.database.read() as connection:
        found = await connection.execute(sa.select(run.id, run.version).where(where, among(run.id, ids)))
        return [Found(*each) for each in found]


Delete = Callable[[CommandContext, sa.ColumnElement[bool]], Awaitable[Sequence[UUID]]]
"""Deletes the runs that meet a condition, and returns their ids."""


def deleting(
    context: CommandContext,
    run: type[FlowRun | TaskRun],
    where: sa.ColumnElement[bool],
    delete: Delete,
    *,
    dry_run: bool,
) -> Act:
    """Return the function that deletes the runs of a batch that still meet the condition."""

    async def act(batch: Sequence[Found]) -> list[Outcome | None]:
        ids = [each.id for each in batch]
        # The condition again: a run that changed since must not be deleted.
        gone = set(ids if dry_run else await delete(context, sa.and_(among(run.id, ids), where)))
        return [DELETED if each in gone else None for each in ids]

    return act
