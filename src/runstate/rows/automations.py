"""Automations, the state of their triggers, their firings and the actions of those."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.actions import ActionStatus, AutomationAction, AutomationActions, TriggerState
from runstate.documents.base import LongText, Text
from runstate.documents.labels import LabelValue
from runstate.documents.triggers import Trigger
from runstate.rows.base import JSON, NOT_FILTERABLE, PRIVATE, READ_ONLY, DocumentColumn, Retention, Row, Tagged

AutomationName = Annotated[Text, Field(min_length=1, max_length=1000)]
STATE = sa.Enum(TriggerState, native_enum=False, length=16, create_constraint=False)
STATUS = sa.Enum(ActionStatus, native_enum=False, length=16, create_constraint=False)


class Automation(Tagged, Row):
    """A trigger, and the actions that are done when it fires."""

    __tablename__ = "automation"
    __announced__ = True
    __order__, __indexed__ = ("name", "id"), ("name", "created", "updated")

    name: Mapped[AutomationName] = mapped_column(doc="Name for people; not unique.")
    description: Mapped[LongText] = mapped_column(default="", doc="Description for people.")
    enabled: Mapped[bool] = mapped_column(
        default=True, doc="False if it counts no events and does not fire. Its windows stay, and go on if still open."
    )
    trigger: Mapped[Trigger] = mapped_column(
        DocumentColumn(Trigger), info=NOT_FILTERABLE, doc="Condition under which it fires."
    )
    actions: Mapped[AutomationActions] = mapped_column(
        DocumentColumn(list[AutomationAction]), info=NOT_FILTERABLE, doc="Actions at each firing, in this order."
    )
    actions_on_trigger: Mapped[AutomationActions] = mapped_column(
        DocumentColumn(list[AutomationAction]),
        default=list,
        info=NOT_FILTERABLE,
        doc="Further actions at each firing; their event is `runstate.automation.triggered`.",
    )
    actions_on_resolve: Mapped[AutomationActions] = mapped_column(
        DocumentColumn(list[AutomationAction]),
        default=list,
        info=NOT_FILTERABLE,
        doc="Actions when a metric is over; their event is `runstate.automation.resolved`.",
    )


class AutomationRelatedResource(Row):
    """A resource that owns an automation, or that its actions name."""

    __tablename__ = "automation_related_resource"
    __node__ = False
    __indexed__ = ()

    automation_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Automation.id, ondelete="CASCADE"), info=READ_ONLY, doc="Id of the automation."
    )
    resource_id: Mapped[str] = mapped_column(info=READ_ONLY, doc="Id of the resource, as in events.")
    owned_by_resource: Mapped[bool] = mapped_column(
        info=READ_ONLY, doc="True if the resource owns the automation, false if an action names the resource."
    )

    automation: Mapped[Automation] = relationship(lazy="raise", doc="The automation.")

    __table_args__ = (
        sa.UniqueConstraint("automation_id", "resource_id"),
        sa.Index(None, "resource_id", "automation_id"),
    )


class AutomationBucket(Row):
    """A window in which events are counted: at most one for each trigger and key."""

    __tablename__ = "automation_bucket"
    __node__ = False
    __indexed__ = ()
    __numerous__ = True

    automation_id: Mapped[UUID] = mapped_column(index=True, info=READ_ONLY, doc="Id of the automation.")
    trigger_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the event trigger.")
    key: Mapped[list[LabelValue]] = mapped_column(
        DocumentColumn(list[LabelValue]), info=READ_ONLY | NOT_FILTERABLE, doc="Values of forEach, in its order."
    )
    # PostgreSQL refuses entries of an index above about 2,700 bytes.
    digest: Mapped[str] = mapped_column(info=PRIVATE, doc="Digest of the values, which can be long.")
    count: Mapped[int] = mapped_column(
        sa.BigInteger(),
        info=READ_ONLY,
        doc="Number of events; -1 before the event that opened the window and is expected, too.",
    )
    start: Mapped[datetime] = mapped_column(info=READ_ONLY, doc="Start of the window.")
    end: Mapped[datetime] = mapped_column(info=READ_ONLY, doc="End of the window, exclusive.")
    due: Mapped[datetime | None] = mapped_column(
        index=True, info=PRIVATE, doc="Time at which it needs attention without an event; null for never."
    )
    last_event_id: Mapped[UUID | None] = mapped_column(
        info=READ_ONLY, doc="Id of the last event that was counted in it, or that opened it."
    )
    last_position: Mapped[int | None] = mapped_column(sa.BigInteger(), info=PRIVATE, doc="Place of that event.")
    last_cause: Mapped[UUID | None] = mapped_column(info=PRIVATE, doc="Id of the firing that led to that event.")

    __table_args__ = (sa.UniqueConstraint("trigger_id", "digest"),)


class CompositeTriggerChildFiring(Row):
    """A firing of a trigger inside a compound or sequence trigger, kept until that one fires."""

    __tablename__ = "composite_trigger_child_firing"
    __node__ = False
    __indexed__ = ()

    automation_id: Mapped[UUID] = mapped_column(index=True, info=READ_ONLY, doc="Id of the automation.")
    parent_trigger_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the trigger that it is part of.")
    child_trigger_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the trigger inside that fired.")
    fired: Mapped[datetime] = mapped_column(info=READ_ONLY, doc="Time of the firing.")
    event_id: Mapped[UUID | None] = mapped_column(
        info=READ_ONLY, doc="Id of the event that made it fire; null for the absence of one."
    )
    place: Mapped[int] = mapped_column(sa.SmallInteger(), info=PRIVATE, doc="Place among the firings that are kept.")
    firing: Mapped[dict[str, Any]] = mapped_column(JSON, info=PRIVATE, doc="The event and all events with a part.")

    __table_args__ = (sa.UniqueConstraint("parent_trigger_id", "child_trigger_id"),)


class AutomationEventFollower(Row):
    """An event that waits for the event that it follows."""

    __tablename__ = "automation_event_follower"
    __node__ = False
    __indexed__ = ("until",)

    event_id: Mapped[UUID] = mapped_column(unique=True, info=READ_ONLY, doc="Id of the event that waits.")
    leader_id: Mapped[UUID] = mapped_column(index=True, info=READ_ONLY, doc="Id of the event that it follows.")
    until: Mapped[datetime] = mapped_column(
        info=READ_ONLY, doc="Time at which it is evaluated in any case: 15 minutes after its arrival."
    )


class AutomationFiring(Row):
    """A firing of an automation, written in the transaction of the windows and the position in the log."""

    __tablename__ = "automation_firing"
    __indexed__ = ("fired",)
    __order__ = ("-fired", "-id")
    __retention__ = Retention("created", setting="automation_firing_retention_days")
    __numerous__ = True

    automation_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the automation.")
    trigger_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the trigger: the outermost one.")
    fired: Mapped[datetime] = mapped_column(
        info=READ_ONLY, doc="Time of the firing: the arrival of the event, or the end of the window."
    )
    event_id: Mapped[UUID | None] = mapped_column(
        info=READ_ONLY, doc="Id of the event that made it fire, or the last of the window; null for none."
    )
    event_ids: Mapped[list[UUID]] = mapped_column(
        DocumentColumn(list[UUID]),
        info=READ_ONLY | NOT_FILTERABLE,
        doc="Ids of all events with a part in it, also in triggers inside.",
    )
    labels: Mapped[list[LabelValue]] = mapped_column(
        DocumentColumn(list[LabelValue]),
        info=READ_ONLY | NOT_FILTERABLE,
        doc="Values of forEach; empty for compound and sequence triggers.",
    )
    state: Mapped[TriggerState] = mapped_column(STATE, info=READ_ONLY, doc="TRIGGERED, or RESOLVED for a metric.")
    state_event_id: Mapped[UUID] = mapped_column(
        info=READ_ONLY, doc="Id of the event `runstate.automation.triggered` or `runstate.automation.resolved`."
    )
    root_id: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the event with which its chain of firings began; of the first firing if it had none."
    )
    cause: Mapped[UUID | None] = mapped_column(info=PRIVATE, doc="Id of the firing that led to it; null for none.")
    chain: Mapped[list[str]] = mapped_column(
        JSON, default=list, server_default="[]", info=PRIVATE, doc="Automations whose firings led to it, in order."
    )

    __table_args__ = (sa.Index(None, "automation_id", "fired"), sa.Index(None, "created"))


class AutomationActionRun(Row):
    """One action of one firing."""

    __tablename__ = "automation_action_run"
    __indexed__ = ()
    __order__ = ("id",)
    __numerous__ = True

    firing_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(AutomationFiring.id, ondelete="CASCADE"), info=READ_ONLY, doc="Id of the firing."
    )
    index: Mapped[int] = mapped_column(
        sa.SmallInteger(), info=READ_ONLY, doc="Place among the actions of the firing, from 0."
    )
    action: Mapped[AutomationAction] = mapped_column(
        DocumentColumn(AutomationAction), info=READ_ONLY | NOT_FILTERABLE, doc="The action at the time of the firing."
    )
    event_id: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the event of the action: that of the firing, or its state event."
    )
    status: Mapped[ActionStatus] = mapped_column(
        STATUS, default=ActionStatus.PENDING, info=READ_ONLY, doc="Whether it was executed."
    )
    attempts: Mapped[int] = mapped_column(default=0, info=READ_ONLY, doc="Number of attempts.")
    retries: Mapped[int] = mapped_column(
        default=0, server_default="0", info=PRIVATE, doc="Number of times that a client had it tried again."
    )
    next_attempt: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time of the next attempt; null for none."
    )
    finished: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time at which it was executed or failed for good; null before that."
    )
    reason: Mapped[str | None] = mapped_column(info=READ_ONLY, doc="Reason of the last failure, for people.")
    results: Mapped[list[str]] = mapped_column(
        JSON, default=list, info=READ_ONLY | NOT_FILTERABLE, doc="Ids of resources that it created or changed."
    )

    __table_args__ = (
        sa.UniqueConstraint("firing_id", "index"),
        sa.Index("ix_automation_action_run_next_attempt", "next_attempt"),
    )
