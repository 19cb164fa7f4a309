"""Execution of actions: rows that are due are claimed, executed, and finished with the events that tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.actions.effects import ActionFailed, Effect, Work, act, change_tables, is_own
from runstate.core.actions.sending import SendAgain, SendingFailed
from runstate.core.actions.targets import NoTarget
from runstate.core.automations.stored import events_with
from runstate.core.batch.batcher import Batcher
from runstate.core.commands.command import command
from runstate.core.context import CommandContext
from runstate.core.telling import Labels, Told, caused_by, resource, tell
from runstate.database import Transaction
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.actions import ActionStatus
from runstate.documents.events import PREFIX
from runstate.errors import NotFound, Overloaded, Problem, Unavailable
from runstate.rows import Automation, AutomationActionRun, AutomationFiring, Row

BATCH: Final = 50
AT_ONCE: Final = 8
LEASE: Final = timedelta(seconds=60)
"""Time after which an action that a process claimed and did not finish is tried again."""
PAUSES: Final = (1.0, 10.0, 60.0, 600.0)
"""Seconds before the second, third, … attempt."""
LONGEST_PAUSE: Final = 3600.0
MOST_ATTEMPTS: Final = 10
RECENT: Final = timedelta(minutes=5)
"""An event of an action follows the event that made the automation fire if that is not older."""


async def execute_due(batcher: Batcher, now: datetime) -> int:
    """Execute the actions that are due, and return their number."""
    done = 0
    while claimed := await claim(batcher.context, now):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(work: Work, gate: asyncio.Semaphore = gate) -> None:
            async with gate:
                await execute(batcher, work, now)

        results = await asyncio.gather(*map(one, claimed), return_exceptions=True)
        done += len(claimed)
        if errors := [each for each in results if isinstance(each, BaseException)]:
            # The others are finished. These are tried again when their lease has expired.
            raise errors[0]
    return done


async def execute(batcher: Batcher, work: Work, now: datetime) -> None:
    """Execute an action and finish it, or have it tried again."""
    context = batcher.context
    try:
        _check_attempts(work)
        if is_own(work.action):
            await _execute_own(context, work, now)
            return
        effect = await act(batcher, work, now)
    except (SendAgain, Overloaded, Unavailable) as error:
        await _try_again(context, work, now, str(error), getattr(error, "after", 0.0))
    except (ActionFailed, SendingFailed, NoTarget, Problem) as error:
        await _finish(context, work, now, ActionStatus.FAILED, Effect(), str(error))
    else:
        await _finish(context, work, now, ActionStatus.EXECUTED, effect)


def _check_attempts(work: Work) -> None:
    # A process that is killed again and again does not count its failures itself.
    if work.run.attempts > MOST_ATTEMPTS:
        raise ActionFailed(f"It was tried {MOST_ATTEMPTS} times.")


async def _execute_own(context: CommandContext, work: Work, now: datetime) -> None:
    """Change our tables exactly once: in the transaction that marks the action as executed."""
    async with context.database.write() as transaction:
        if await _lock(transaction.connection, work):
            with caused_by(work.firing.id):
                effect = await change_tables(context, transaction, work)
            await _write(transaction, work, now, ActionStatus.EXECUTED, effect, None)


async def _lock(connection: AsyncConnection, work: Work) -> bool:
    """Lock a pending action. Return False if it is not pending any more."""
    table = table_of(AutomationActionRun)
    # When a lease expires, two processes can have the same action: only one of them finishes it.
    pending = (table.c.id == work.run.id) & (table.c.status == ActionStatus.PENDING)
    return (await connection.execute(sa.select(table.c.id).where(pending).with_for_update())).first() is not None


async def _finish(
    context: CommandContext, work: Work, now: datetime, status: ActionStatus, effect: Effect, reason: str | None = None
) -> None:
    async with context.database.write() as transaction:
        if await _lock(transaction.connection, work):
            await _write(transaction, work, now, status, effect, reason)


async def _write(
    transaction: Transaction, work: Work, now: datetime, status: ActionStatus, effect: Effect, reason: str | None
) -> None:
    columns = {
        "status": status,
        # Without a time it is not claimed again: claims look at the time only.
        "next_attempt": None,
        "finished": now,
        "reason": reason,
        "results": list(effect.results),
        "updated": now,
    }
    which = AutomationActionRun.id == work.run.id
    await transaction.connection.execute(sa.update(AutomationActionRun).where(which).values(**columns))
    await tell(transaction, now, list(told_of(work, now, status, effect, reason)))


async def _try_again(context: CommandContext, work: Work, now: datetime, reason: str, after: float) -> None:
    if work.run.attempts > len(PAUSES):
        await _finish(
            context, work, now, ActionStatus.FAILED, Effect(), f"{reason} (after {work.run.attempts} attempts)"
        )
        return
    # With some chance, so that the actions of one failure do not come back at the same moment.
    pause = min(max(PAUSES[work.run.attempts - 1] * (1 + context.draw() / 10), after), LONGEST_PAUSE)
    columns = {"next_attempt": now + timedelta(seconds=pause), "reason": reason, "updated": now}
    which = (AutomationActionRun.id == work.run.id) & (AutomationActionRun.status == ActionStatus.PENDING)
    async with context.database.write() as transaction:
        await transaction.connection.execute(sa.update(AutomationActionRun).where(which).values(**columns))


async def claim(context: CommandContext, now: datetime) -> list[Work]:
    """Take due actions that no other process has, for the time of the lease, in the order of their ids."""
    table = table_of(AutomationActionRun)
    due = (
        sa.select(table.c.id)
        .where(table.c.next_attempt <= now)
        .order_by(table.c.next_attempt, table.c.id)
        .limit(BATCH)
        # Other processes take the next ones and do not wait.
        .with_for_update(skip_locked=True)
    )
    async with context.database.read() as connection:
        # Most of the time nothing is due, and nothing needs to be written.
        if (
            await connection.execute(sa.select(sa.literal(1)).where(table.c.next_attempt <= now).limit(1))
        ).first() is None:
            return []
    # Counted before the attempt: a process that dies in it has counted it.
    claimed = {"next_attempt": now + LEASE, "attempts": table.c.attempts + 1}
    async with context.database.write() as transaction:
        connection = transaction.connection
        found = await connection.execute(
            sa.update(table).where(table.c.id.in_(due.scalar_subquery())).values(**claimed).returning(*table.c)
        )
        runs = [_row(AutomationActionRun, each) for each in found]
        # Sorted, because RETURNING has no order.
        return await _works(connection, sorted(runs, key=lambda each: each.id)) if runs else []


async def _works(connection: AsyncConnection, runs: Sequence[AutomationActionRun]) -> list[Work]:
    firings = await _by_id(connection, AutomationFiring, [each.firing_id for each in runs])
    automations = await _by_id(connection, Automation, [each.automation_id for each in firings.values()])
    events = await events_with(connection, [each.event_id for each in runs if each.event_id])
    return [
        Work(
            each,
            firing := firings[each.firing_id],
            automations.get(firing.automation_id),
            events.get(each.event_id) if each.event_id else None,
        )
        for each in runs
    ]


async def _by_id(connection: AsyncConnection, row: Any, ids: Sequence[UUID]) -> dict[UUID, Any]:
    table = table_of(row)
    found = await connection.execute(sa.select(*table.c).where(among(table.c.id, sorted(set(ids)))))
    return {each.id: _row(row, each) for each in found}


def _row(row: type[Row], found: Any) -> Any:
    return row.of(found._mapping)  # noqa: SLF001 the columns by name


def told_of(work: Work, now: datetime, status: ActionStatus, effect: Effect, reason: str | None) -> Sequence[Told]:
    """Return the events that an action was triggered, and that it was executed or failed."""
    # Derived ids: a repetition tells the same events, which are stored once.
    begun, ended = uuid5(work.run.id, f"triggered {work.run.retries}"), uuid5(work.run.id, f"ended {work.run.retries}")
    payload = {
        "action_index": work.run.index,
        "action_type": work.action.action,
        "action": work.action.model_dump(mode="json", exclude_none=True),
        "invocation": str(work.run.id),
    }
    outcome = {"reason": reason} if reason else dict(effect.details or {})
    cause = work.event
    follows = cause.id if cause and now - cause.occurred < RECENT else None
    of, related = _automation(work), _related(work)
    touched = [_thing("target", each) for each in effect.results]
    name = f"{PREFIX}automation.action"
    return (
        Told(begun, f"{name}.triggered", now, of, related, payload, follows, work.firing.id),
        Told(
            ended,
            f"{name}.{status.value.lower()}",
            now,
            of,
            [*related, *touched],
            payload | outcome,
            begun,
            work.firing.id,
        ),
    )


def _automation(work: Work) -> Labels:
    labels = {}
    if work.automation:
        trigger: Any = work.automation.trigger
        labels[f"{PREFIX}trigger-type"] = trigger.kind
        if posture := getattr(trigger, "posture", None):
            labels[f"{PREFIX}posture"] = posture.value
    return resource("automation", work.firing.automation_id, work.name if work.automation else None, **labels)


def _related(work: Work) -> list[Labels]:
    found = [resource("event", work.firing.state_event_id, role="automation-triggered-event")]
    if work.firing.event_id:
        found.append(resource("event", work.firing.event_id, role="triggering-event"))
    return found


def _thing(role: str, resource_id: str) -> Labels:
    return {"resource_id": resource_id, "role": role}


@command(AutomationActionRun, notify=None)
async def retry_action(context: CommandContext, id: UUID) -> AutomationActionRun:
    """Have an action that failed for good tried again; others are returned as they are."""
    table, now = table_of(AutomationActionRun), context.clock()
    columns = {
        "status": ActionStatus.PENDING,
        "attempts": 0,
        # The number is part of idempotency keys, so that the action is really executed again.
        "retries": table.c.retries + 1,
        "next_attempt": now,
        "finished": None,
        "updated": now,
    }
    async with context.database.write() as transaction:
        failed = (table.c.id == id) & (table.c.status == ActionStatus.FAILED)
        await transaction.connection.execute(sa.update(table).where(failed).values(**columns))
        found = (await transaction.connection.execute(sa.select(*table.c).where(table.c.id == id))).one_or_none()
    if found is None:
        raise NotFound(id)
    made: AutomationActionRun = _row(AutomationActionRun, found)
    return made
