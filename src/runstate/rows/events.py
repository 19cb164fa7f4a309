"""Events: those that are stored, and the view of all, which derives the events of transitions from their log."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.base import JsonObject
from runstate.documents.events import EventResource
from runstate.rows.base import JSON, NAMES, NOT_FILTERABLE, PRIVATE, Base, DocumentColumn, Row
from runstate.rows.log import LogEntry, ServerSays, Xid8


class StoredEvent(LogEntry):
    """An event that a client or the server told. Events of transitions are not stored: the log has all of them."""

    __tablename__ = "event"

    seq: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
        server_default=ServerSays("nextval('transition_seq_seq')"),
        sort_order=-3,
        doc="Order of insertion: transitions and events share one sequence.",
    )
    id: Mapped[UUID] = mapped_column(unique=True, doc="Id of the event.")
    name: Mapped[str] = mapped_column(doc="Name of the event.")
    occurred: Mapped[datetime] = mapped_column(index=True, doc="Time at which it happened.")
    received: Mapped[datetime] = mapped_column(doc="Time at which it was appended to the log.")
    follows: Mapped[UUID | None] = mapped_column(doc="Id of the event that it follows.")
    resource_id: Mapped[str] = mapped_column(doc="Id of its resource.")
    resource: Mapped[EventResource] = mapped_column(DocumentColumn(EventResource), doc="Its resource.")
    related: Mapped[list[EventResource]] = mapped_column(
        DocumentColumn(list[EventResource]), doc="Its related resources."
    )
    payload: Mapped[dict[str, Any]] = mapped_column(doc="Its further values.")
    cause: Mapped[UUID | None] = mapped_column(doc="Id of the firing of an automation that led to it; null for none.")

    __table_args__ = (sa.Index(None, "boot", "xid"), sa.Index(None, "resource_id", "occurred"))


class StoredEventResource(Base):
    """A related resource of a stored event, by which events are found. All of its labels are in the event itself."""

    __tablename__ = "event_resource"

    event_seq: Mapped[int] = mapped_column(
        sa.BigInteger(), primary_key=True, autoincrement=False, doc="`seq` of the event."
    )
    place: Mapped[int] = mapped_column(
        sa.SmallInteger(), primary_key=True, autoincrement=False, doc="Place among the related resources, from 0."
    )
    resource_id: Mapped[str] = mapped_column(doc="Id of the resource.")

    __table_args__ = (sa.Index(None, "resource_id", "event_seq"),)


class Event(Row):
    """Something that happened to a resource. Events never change."""

    __tablename__ = "any_event"
    __order__ = ("-occurred", "-id")
    __sorted__ = ("received", "name", "resource_id")
    __indexed__ = ()
    __shares_ids__ = True
    # A view is no table: migrations and checks do not compare it.
    metadata = sa.MetaData(naming_convention=NAMES)

    created = None  # type: ignore[assignment]  # `received`
    updated = None  # type: ignore[assignment]  # events never change

    seq: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), info=PRIVATE, doc="Order in the log."
    )
    xid: Mapped[str | None] = mapped_column(Xid8().with_variant(sa.Text(), "sqlite"), info=PRIVATE, doc="As in logs.")
    boot: Mapped[datetime | None] = mapped_column(info=PRIVATE, doc="As in logs.")
    name: Mapped[str] = mapped_column(
        doc="Name of what happened, in words with dots between: `order.placed`, `runstate.flow-run.Completed`."
    )
    occurred: Mapped[datetime] = mapped_column(index=True, doc="Time at which it happened, by the clock of its source.")
    received: Mapped[datetime] = mapped_column(doc="Time at which it was appended to the log.")
    follows: Mapped[UUID | None] = mapped_column(
        doc="Id of an event that happened before this one; triggers evaluate that one first."
    )
    resource: Mapped[EventResource] = mapped_column(
        DocumentColumn(EventResource), info=NOT_FILTERABLE, doc="The thing that it happened to."
    )
    related: Mapped[list[EventResource]] = mapped_column(
        DocumentColumn(list[EventResource]),
        info=NOT_FILTERABLE,
        doc="Other things that had to do with it, each in a role.",
    )
    payload: Mapped[JsonObject] = mapped_column(JSON, doc="Further values: an object.")
    resource_id: Mapped[str] = mapped_column(info=PRIVATE, doc="Id of the resource.")
    stored_resource_id: Mapped[str | None] = mapped_column(
        info=PRIVATE, doc="Id of the resource of a stored event, which has an index; null for transitions."
    )
    run_id: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the run of a transition, which has an index; null for stored events."
    )
    cause: Mapped[UUID | None] = mapped_column(info=PRIVATE, doc="As in stored events.")
