"""Previews: what a trigger would have done, and what an action would do. Nothing is written or sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from runstate.core.actions import targets
from runstate.core.actions.rendering import TemplateFailed
from runstate.core.actions.subjects import names_for, templates_of
from runstate.core.automations.compiled import Compiled
from runstate.core.automations.events import Event
from runstate.core.automations.index import Index
from runstate.core.automations.state import State
from runstate.core.automations.steps import Result, TooManySteps, replay
from runstate.core.automations.stored import events_received, find_event, of_told
from runstate.core.commands.events import checked
from runstate.core.context import CommandContext
from runstate.documents.previews import MOST_STORED, TestAction, TestTrigger
from runstate.errors import InvalidInput, NotFound

MOST_STEPS: Final = 20_000
"""Maximum number of windows that end in a preview."""
TOO_MANY_STEPS: Final = f"The preview has more than {MOST_STEPS:,} ends of windows. Choose a shorter time."


class Previewed(NamedTuple):
    """The firings that a trigger would have had."""

    automation: Compiled
    result: Result


async def preview_trigger(context: CommandContext, document: TestTrigger) -> Previewed:
    """Return the firings that a trigger would have had. Raise InvalidInput if it takes too many steps."""
    if document.until < document.since:
        raise InvalidInput("`until` must not be before `since`.", ("until",))
    automation = Compiled(context.new_id(), document.trigger)
    events = await _events(context, document)
    given = [each for each in events if document.since <= each.received <= document.until]
    state = State(document.since)
    state.add(automation)
    index = Index([automation])
    try:
        # Patterns of clients against many events take a while; other requests go on.
        result = await asyncio.to_thread(replay, index, state, [*given, document.until], explain=True, most=MOST_STEPS)
    except TooManySteps:
        raise InvalidInput(TOO_MANY_STEPS, ("until",)) from None
    return Previewed(automation, result)


async def _events(context: CommandContext, document: TestTrigger) -> Sequence[Event]:
    if document.events is None:
        async with context.database.read() as connection:
            return await events_received(connection, document.since, document.until, MOST_STORED)
    told = list(checked([each.event for each in document.events], context, context.clock()))
    arrivals = [each.received or one.occurred for each, one in zip(document.events, told, strict=True)]
    return [of_told(each, received, place) for place, (each, received) in enumerate(zip(told, arrivals, strict=True))]


class ActionPreview(NamedTuple):
    """The target of an action, and its rendered templates."""

    target: str | None
    rendered: Any
    reason: str | None


async def preview_action(context: CommandContext, document: TestAction) -> ActionPreview:
    """Return the target of an action and its rendered templates. Raise NotFound if the event does not exist."""
    event = await _event(context, document)
    labels = {each.label: each.value for each in document.labels}
    target, reasons = _target(document, event, labels)
    rendered = None
    if (templates := templates_of(document.action)) is not None:
        names = await names_for(context, templates.values, event, document.automation_name, labels)
        try:
            rendered = await context.templates.render(templates.values, names, typed=templates.typed)
        except TemplateFailed as error:
            reasons.append(str(error))
    return ActionPreview(target, rendered, " ".join(reasons) or None)


def _target(document: TestAction, event: Event | None, labels: dict[str, str]) -> tuple[str | None, list[str]]:
    """Return the target of an action, and why it has none if it needs one."""
    try:
        found = targets.target(document.action, event, labels)
    except targets.NoTarget as error:
        return None, [str(error)]
    return None if found is None else targets.resource_id(str(targets.kind_of(document.action)), found), []


async def _event(context: CommandContext, document: TestAction) -> Event | None:
    if document.event is not None:
        if document.event_id is not None:
            raise InvalidInput("Give `event` or `eventId`, not both.", ("eventId",))
        (told,) = checked([document.event], context, context.clock())
        return of_told(told, context.clock(), 0)
    if document.event_id is None:
        return None
    async with context.database.read() as connection:
        event = await find_event(connection, document.event_id)
    if event is None:
        raise NotFound(document.event_id)
    return event
