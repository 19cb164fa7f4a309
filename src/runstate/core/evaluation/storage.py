"""The state of triggers as rows: loaded when a process takes over, written as differences after each round."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.automations.chains import Chain, Reactions
from runstate.core.automations.events import Event, Firing, Key, Part
from runstate.core.automations.state import State, WindowId
from runstate.core.automations.stored import COLUMNS, chains_of, of_row, reactions_at
from runstate.core.automations.windows import LATENESS, Window, due
from runstate.core.evaluation.definitions import Evaluated
from runstate.core.evaluation.touched import Touched
from runstate.database import bulk
from runstate.database.bulk import deleted_by_key, inserted, replaced, table_of
from runstate.database.dialects import among
from runstate.documents.labels import LabelValue
from runstate.rows import (
    AutomationBucket,
    AutomationEventFollower,
    CompositeTriggerChildFiring,
    EvaluatedAutomation,
)
from runstate.rows import Event as AnyEvent

BUCKET: Final = ("trigger_id", "digest")
Automations = dict[UUID, Evaluated]


def new_state(now: datetime) -> State:
    """Return an empty state that remembers its changes."""
    return State(now, windows=Touched(), kept=Touched(), waiting=Touched())


async def load(connection: AsyncConnection, now: datetime) -> tuple[State, Automations]:
    """Return the stored state, and the automations at its place in the log."""
    # Not the present definitions: those of the place in the log up to which events were evaluated.
    found = await connection.execute(sa.select(*table_of(EvaluatedAutomation).c))
    automations = {row.id: Evaluated.of(row.id, row.definition) for row in found}
    state = new_state(now)
    state.reactions = Reactions(await reactions_at(connection, now))
    await _load_windows(connection, state)
    await _load_kept(connection, state)
    await _load_waiting(connection, state)
    state.load(each.compiled for each in automations.values() if each.enabled)
    forget_changes(state)
    return state, automations


def forget_changes(state: State) -> None:
    """Take the present state for what is stored."""
    for name in ("windows", "kept", "waiting"):
        held = getattr(state, name)
        # The removal of an automation makes plain dictionaries.
        setattr(state, name, held if isinstance(held, Touched) else Touched(held))
        getattr(state, name).touched.clear()


def has_changes(state: State) -> bool:
    """Return whether anything has changed since it was stored."""
    return any(_changes(held) for held in (state.windows, state.kept, state.waiting))


async def _load_windows(connection: AsyncConnection, state: State) -> None:
    rows = (await connection.execute(sa.select(*table_of(AutomationBucket).c))).all()
    chains = await chains_of(connection, [row.last_cause for row in rows])
    for row in rows:
        key = tuple(each.value for each in row.key)
        last = None
        if row.last_event_id is not None:
            last = Part(row.last_position, row.last_event_id, chains.get(row.last_cause))
        state.windows[row.trigger_id, key] = Window(row.start, row.end, row._mapping["count"], last)  # noqa: SLF001


async def _load_kept(connection: AsyncConnection, state: State) -> None:
    table = table_of(CompositeTriggerChildFiring)
    asked = sa.select(*table.c).order_by(table.c.parent_trigger_id, table.c.place)
    rows = (await connection.execute(asked)).all()
    causes = [_cause(part) for row in rows for part in row.firing["parts"]]
    chains = await chains_of(connection, causes)
    for row in rows:
        state.kept.setdefault(row.parent_trigger_id, {})[row.child_trigger_id] = _firing(row, chains)


def _firing(row: Any, chains: Mapping[UUID, Chain]) -> Firing:
    parts = tuple(_part(each, chains) for each in row.firing["parts"])
    event = row.firing["event"]
    trigger_id, last = UUID(row.firing["trigger_id"]), _part(event, chains) if event else None
    return Firing(trigger_id, row.fired, last, parts)


def _part(written: Sequence[Any], chains: Mapping[UUID, Chain]) -> Part:
    position, event_id, _ = written
    cause = _cause(written)
    return Part(position, UUID(event_id), chains.get(cause) if cause else None)


def _cause(written: Sequence[Any]) -> UUID | None:
    # Earlier versions wrote a number.
    return UUID(written[2]) if isinstance(written[2], str) else None


async def _load_waiting(connection: AsyncConnection, state: State) -> None:
    table, follower = AnyEvent.__table__, table_of(AutomationEventFollower)
    ids = (await connection.execute(sa.select(follower.c.event_id))).scalars().all()
    if ids:
        asked = sa.select(*(table.c[name] for name in COLUMNS)).where(among(table.c.id, ids)).order_by(table.c.seq)
        rows = (await connection.execute(asked)).all()
        chains = await chains_of(connection, [row.cause for row in rows])
        for row in rows:
            state.wait(of_row(row, chains))


async def save(connection: AsyncConnection, state: State, automations: Automations, changed: set[UUID]) -> None:
    """Write what has changed since the last call. `changed` are automations whose definitions have changed."""
    await _save_automations(connection, automations, changed)
    nodes = {node.id: (each, node) for each in automations.values() for node in each.compiled.nodes}
    windows, kept, waiting = (_changes(each) for each in (state.windows, state.kept, state.waiting))
    # Deleted and inserted again: their order matters, and places of others change with each.
    await _delete_kept(connection, kept)
    rows = [_bucket(nodes, each, window, state.now) for each in windows if (window := state.windows.get(each))]
    gone = [(trigger, digest(key)) for trigger, key in windows if (trigger, key) not in state.windows]
    changes = [
        replaced(AutomationBucket, BUCKET, [row for row in rows if row]),
        deleted_by_key(AutomationBucket, BUCKET, gone),
        inserted(CompositeTriggerChildFiring, list(_kept_rows(nodes, state, kept))),
        replaced(
            AutomationEventFollower,
            ("event_id",),
            [_follower(state.waiting[each]) for each in waiting if each in state.waiting],
        ),
        deleted_by_key(
            AutomationEventFollower, ("event_id",), [(each,) for each in waiting if each not in state.waiting]
        ),
    ]
    await bulk.write(connection, changes)


def _changes(held: Any) -> list[Any]:
    # Sorted, so that rows are written in one order.
    return sorted(held.touched) if isinstance(held, Touched) else []


async def _save_automations(connection: AsyncConnection, automations: Automations, changed: set[UUID]) -> None:
    if not changed:
        return
    rows = [{"id": each, "definition": automations[each].definition} for each in sorted(changed) if each in automations]
    gone = [(each,) for each in sorted(changed) if each not in automations]
    await bulk.write(
        connection, [replaced(EvaluatedAutomation, ("id",), rows), deleted_by_key(EvaluatedAutomation, ("id",), gone)]
    )
    # Windows and kept firings of triggers that are gone.
    for each in sorted(changed):
        left = [node.id for node in automations[each].compiled.nodes] if each in automations else []
        for row, key in ((AutomationBucket, "trigger_id"), (CompositeTriggerChildFiring, "parent_trigger_id")):
            table = table_of(row)
            old = sa.delete(table).where(table.c.automation_id == each, sa.not_(among(table.c[key], left)))
            await connection.execute(old)


def digest(key: Key) -> str:
    """Return the digest of the values of a window."""
    # Values of labels can be long, and an index over them has a largest size.
    return hashlib.sha256(orjson.dumps(key)).hexdigest()


def _bucket(leaves: Mapping[UUID, Any], at: WindowId, window: Window, now: datetime) -> dict[str, Any] | None:
    trigger_id, key = at
    if trigger_id not in leaves:
        return None
    automation, leaf = leaves[trigger_id]
    last, hashed = window.last, digest(key)
    labels = leaf.labels(key) if key else ()
    return {
        # The same on all servers, and in a repetition.
        "id": uuid5(trigger_id, hashed),
        "created": now,
        "updated": now,
        "automation_id": automation.compiled.id,
        "trigger_id": trigger_id,
        "key": [LabelValue(label=each.label, role=each.role, value=each.value) for each in labels],
        "digest": hashed,
        "count": window.count,
        "start": window.start,
        "end": window.end,
        "due": due(leaf, window) if hasattr(leaf, "proactive") else None,
        "last_event_id": last.event_id if last else None,
        "last_position": last.position if last else None,
        "last_cause": last.chain.cause if last and last.chain else None,
    }


async def _delete_kept(connection: AsyncConnection, parents: Sequence[UUID]) -> None:
    if parents:
        table = table_of(CompositeTriggerChildFiring)
        await connection.execute(sa.delete(table).where(among(table.c.parent_trigger_id, parents)))


def _kept_rows(leaves: Mapping[UUID, Any], state: State, parents: Iterable[UUID]) -> Iterable[dict[str, Any]]:
    for parent in parents:
        for place, (child, firing) in enumerate(state.kept.get(parent, {}).items()):
            if parent in leaves:
                yield _kept_row(leaves[parent][0].compiled.id, parent, child, place, firing, state.now)


def _kept_row(
    automation_id: UUID, parent: UUID, child: UUID, place: int, firing: Firing, now: datetime
) -> dict[str, Any]:
    event = firing.event
    written = {
        "trigger_id": str(firing.trigger_id),
        "event": _written(event) if event else None,
        "parts": [_written(each) for each in firing.parts],
    }
    return {
        "id": uuid5(parent, str(child)),
        "created": now,
        "updated": now,
        "automation_id": automation_id,
        "parent_trigger_id": parent,
        "child_trigger_id": child,
        "fired": firing.fired,
        "event_id": event.event_id if event else None,
        "place": place,
        "firing": written,
    }


def _written(part: Part) -> list[Any]:
    return [part.position, str(part.event_id), str(part.chain.cause) if part.chain else None]


def _follower(event: Event) -> dict[str, Any]:
    its = {"event_id": event.id, "leader_id": event.follows, "until": event.received + LATENESS}
    return {"id": uuid5(event.id, "follower"), "created": event.received, "updated": event.received, **its}
