"""Flows and their deployments."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import JsonObject, LongText, Name, Tags
from runstate.documents.policies import ConcurrencyOptions
from runstate.rows.base import CREATE_ONLY, JSON, NOT_FILTERABLE, READ_ONLY, DocumentColumn, Row, Tagged, reverse
from runstate.rows.limits import ConcurrencyLimit


class Flow(Tagged, Row):
    """A named workflow; its runs are flow runs."""

    __tablename__ = "flow"

    name: Mapped[Name] = mapped_column(unique=True, doc="Unique name.")
    labels: Mapped[JsonObject] = mapped_column(default=dict, doc="Keys and values to filter by.")

    __table_args__ = (sa.Index(None, "created"),)


class Deployment(Tagged, Row):
    """A flow that can be run remotely: defaults for its runs, and a limit on the number of concurrent runs."""

    __tablename__ = "deployment"

    name: Mapped[Name] = mapped_column(doc="Name, unique for the flow.")
    flow_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Flow.id, ondelete="CASCADE"), info=CREATE_ONLY, doc="Id of the flow."
    )
    concurrency_limit_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(ConcurrencyLimit.id, ondelete="SET NULL"),
        index=True,
        info=READ_ONLY,
        doc="Id of the limit on its runs.",
    )
    concurrency_options: Mapped[ConcurrencyOptions | None] = mapped_column(
        DocumentColumn(ConcurrencyOptions),
        info=NOT_FILTERABLE,
        doc="Handling of runs for which no slot is free; null means that they are enqueued.",
    )
    paused: Mapped[bool] = mapped_column(default=False, doc="True if no new runs are scheduled.")
    parameters: Mapped[JsonObject] = mapped_column(default=dict, doc="Default parameters of its runs; at most 512 KiB.")
    tags: Mapped[Tags] = mapped_column(JSON, default=list, doc="Labels to filter by; its runs get them too.")
    work_queue_name: Mapped[Name | None] = mapped_column(doc="Name of the work queue of its runs.")
    description: Mapped[LongText | None] = mapped_column(doc="Description for people, at most 100,000 characters.")

    flow: Mapped[Flow] = relationship(
        lazy="raise", info=reverse("deployments", "The deployments of the flow."), doc="The flow that is deployed."
    )
    concurrency: Mapped[ConcurrencyLimit | None] = relationship(
        lazy="raise", foreign_keys=[concurrency_limit_id], doc="The limit on its runs."
    )

    __table_args__ = (sa.UniqueConstraint("flow_id", "name"), sa.Index(None, "name"), sa.Index(None, "created"))
