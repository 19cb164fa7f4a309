"""Flows and their deployments."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.policies import ConcurrencyOptions
from runstate.rows.base import DocumentColumn, Row
from runstate.rows.limits import ConcurrencyLimit


class Flow(Row):
    """A named workflow; its runs are flow runs."""

    __tablename__ = "flow"

    name: Mapped[str] = mapped_column(unique=True, doc="Unique name.")
    tags: Mapped[list[str]] = mapped_column(default=list, doc="Labels to find the flow by.")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict, doc="Keys and values to find the flow by.")

    __table_args__ = (sa.Index(None, "created"),)


class Deployment(Row):
    """A flow made ready to be run from elsewhere: defaults for its runs and a limit on how many run at once."""

    __tablename__ = "deployment"

    name: Mapped[str] = mapped_column(doc="Name, unique for the flow.")
    flow_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Flow.id, ondelete="CASCADE"), doc="Id of the flow.")
    concurrency_limit_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(ConcurrencyLimit.id, ondelete="SET NULL"), index=True, doc="Id of the limit on its runs."
    )
    concurrency_options: Mapped[ConcurrencyOptions | None] = mapped_column(
        DocumentColumn(ConcurrencyOptions), doc="What happens to runs that find no slot; null: they are enqueued."
    )
    paused: Mapped[bool] = mapped_column(default=False, doc="No new runs are scheduled while it is paused.")
    parameters: Mapped[dict[str, Any]] = mapped_column(
        default=dict, doc="Parameters of its runs, unless they say other."
    )
    tags: Mapped[list[str]] = mapped_column(
        default=list, doc="Labels to find the deployment by; its runs get them too."
    )
    work_queue_name: Mapped[str | None] = mapped_column(doc="The work queue that its runs go to.")
    description: Mapped[str | None] = mapped_column(doc="What it is, for people.")

    flow: Mapped[Flow] = relationship(lazy="raise", doc="The flow that is deployed.")
    limit: Mapped[ConcurrencyLimit | None] = relationship(lazy="raise", doc="The limit on its runs.")

    __table_args__ = (sa.UniqueConstraint("flow_id", "name"), sa.Index(None, "name"), sa.Index(None, "created"))
