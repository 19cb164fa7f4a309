"""Previews of triggers and actions: testTrigger, testAction."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry

from runstate.core.automations import events as core
from runstate.core.automations.state import windows_in_order
from runstate.core.commands import automation_previews as previews
from runstate.documents.access import Scope
from runstate.documents.labels import LabelValue
from runstate.documents.previews import TestAction, TestTrigger
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import query_with_problems
from runstate.graphql.types.derive import define_type
from runstate.graphql.types.fields import object_type
from runstate.graphql.types.inputs import Input

define_type(core.TriggerVerdict)
PATH = "Place of the event trigger among the triggers, from outside in; empty for a trigger of its own."
LABELS = "Values of forEach; empty for compound and sequence triggers."


@object_type
class TestFiring:
    """A firing in a preview."""

    event_id: strawberry.ID | None = strawberry.field(
        description="Id of the event that made it fire, or the last of the window; null for none."
    )
    event_ids: list[strawberry.ID] = strawberry.field(
        description="Ids of all events with a part in it, in the order of arrival."
    )
    fired: datetime = strawberry.field(description="Time of the firing.")
    labels: list[LabelValue] = strawberry.field(description=LABELS)


@object_type
class TestWindow:
    """An open window at the end of a preview."""

    count: int = strawberry.field(description="Number of events in it.")
    end: datetime = strawberry.field(description="End of the window, exclusive.")
    labels: list[LabelValue] = strawberry.field(description="Values of forEach.")
    path: list[int] = strawberry.field(description=PATH)
    start: datetime = strawberry.field(description="Start of the window.")


@object_type
class TestStep:
    """The effect of an event on an event trigger, or of the end of a window."""

    at: datetime = strawberry.field(description="Time of the arrival, or end of the window.")
    count: int | None = strawberry.field(
        description="Number of events that were counted in the window; null without one."
    )
    event_id: strawberry.ID | None = strawberry.field(description="Id of the event; null for the end of a window.")
    labels: list[LabelValue] = strawberry.field(description="Values of forEach.")
    path: list[int] = strawberry.field(description=PATH)
    verdict: core.TriggerVerdict = strawberry.field(description="The effect.")


@object_type
class TestTriggerPayload:
    """The firings that a trigger would have had, and the reasons."""

    firings: list[TestFiring] = strawberry.field(description="Firings in order.")
    open: list[TestWindow] = strawberry.field(description="Windows that are open at `until`.")
    steps: list[TestStep] = strawberry.field(
        description="The effect of each event on each event trigger inside, in order."
    )


@object_type
class TestActionPayload:
    """The target of an action, and its rendered templates."""

    reason: str | None = strawberry.field(description="Reason for which it would fail; null if none is known.")
    rendered: strawberry.scalars.JSON | None = strawberry.field(
        description="The rendered templates: `parameters`, `payload`, or `subject` and `body`; null without any, or if "
        "they fail."
    )
    target: str | None = strawberry.field(
        description="Id of the resource that it is about, as in events; null if it is about nothing."
    )


@strawberry.type
class Query:
    """Previews."""

    @query_with_problems(InvalidInput, scope=Scope.ADMIN)
    async def test_trigger(
        self,
        info: Info,
        input: Annotated[Input[TestTrigger], strawberry.argument(description="The trigger and its events.")],
    ) -> TestTriggerPayload:
        """The firings that a trigger would have had, and the effect of each event. Nothing is written."""
        document = input.checked()
        _, found = await previews.preview_trigger(info.context.commands, document)
        windows = [each for each in windows_in_order(found.state) if each[2].end > document.until]
        return TestTriggerPayload(
            firings=[_firing(each.firing) for each in found.firings],
            open=[
                TestWindow(
                    count=window.count,
                    end=window.end,
                    labels=_labels(leaf.labels(key)),
                    path=list(leaf.path),
                    start=window.start,
                )
                for leaf, key, window in windows
            ],
            steps=list(map(_step, found.explanation)),
        )

    @query_with_problems(InvalidInput, NotFound, scope=Scope.ADMIN)
    async def test_action(
        self,
        info: Info,
        input: Annotated[Input[TestAction], strawberry.argument(description="The action and its event.")],
    ) -> TestActionPayload:
        """The target of an action for an event, and its rendered templates. Nothing is written or sent."""
        found = await previews.preview_action(info.context.commands, input.checked())
        return TestActionPayload(reason=found.reason, rendered=found.rendered, target=found.target)


def _firing(firing: core.Firing) -> TestFiring:
    return TestFiring(
        event_id=_id(firing.event.event_id if firing.event else None),
        event_ids=[strawberry.ID(str(part.event_id)) for part in firing.parts],
        fired=firing.fired,
        labels=_labels(firing.labels),
    )


def _step(step: core.Step) -> TestStep:
    return TestStep(
        at=step.at,
        count=step.count,
        event_id=_id(step.event_id),
        labels=_labels(step.labels),
        path=list(step.path),
        verdict=step.verdict,
    )


def _id(id: UUID | None) -> Any:
    return None if id is None else strawberry.ID(str(id))


def _labels(values: Iterable[core.LabelValue]) -> list[LabelValue]:
    return [LabelValue.model_construct(label=each.label, role=each.role, value=each.value) for each in values]
