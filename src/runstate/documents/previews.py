"""Previews of triggers and actions."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from runstate.documents.actions import AutomationAction
from runstate.documents.base import Document, ShortText
from runstate.documents.events import NewEvent
from runstate.documents.labels import LabelValue
from runstate.documents.schedules import Instant
from runstate.documents.triggers import Trigger, bounded

MOST_STORED: int = 10_000


class TestEvent(Document):
    """An event that arrives in a preview."""

    event: NewEvent = Field(description="The event.")
    received: Instant | None = Field(default=None, description="Time of arrival; the time of occurrence by default.")


class TestTrigger(Document):
    """A trigger and the events of a preview. Work that is due at the arrival of an event precedes the event."""

    events: Annotated[list[TestEvent], Field(max_length=1000)] | None = Field(
        default=None,
        description="Events in the order of arrival, at most 1,000. Default: the stored events that arrived from "
        f"`since` to `until`, at most {MOST_STORED:,}.",
    )
    since: Instant = Field(
        description="Start of the trigger, at which windows of PROACTIVE triggers without `after` and `forEach` begin."
    )
    trigger: Annotated[Trigger, AfterValidator(bounded)] = Field(description="The trigger.")
    until: Instant = Field(description="Time up to which windows end.")


class TestAction(Document):
    """An action and the event of a preview."""

    action: AutomationAction = Field(description="The action.")
    automation_name: ShortText = Field(default="test", description="Name of the automation, for templates.")
    event: NewEvent | None = Field(default=None, description="The event; null for the absence of one.")
    event_id: UUID | None = Field(default=None, description="Id of a stored event, instead of `event`.")
    labels: Annotated[list[LabelValue], Field(max_length=20)] = Field(default=[], description="Values of forEach.")
