"""Flows and their deployments."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import JsonObject, LongText, Name, RepeatedTags
from runstate.documents.deployments import Actor, PullSteps, VersionInfo
from runstate.documents.policies import ConcurrencyOptions
from runstate.rows.base import (
    CREATE_ONLY,
    JSON,
    NOT_FILTERABLE,
    PRIVATE,
    READ_ONLY,
    DocumentColumn,
    Row,
    Tagged,
    reverse,
)
from runstate.rows.limits import ConcurrencyLimit
from runstate.rows.pools import WorkQueue


class Flow(Tagged, Row):
    """A named workflow; its runs are flow runs."""

    __tablename__ = "flow"
    __announced__ = True

    name: Mapped[Name] = mapped_column(unique=True, doc="Unique name.")
    labels: Mapped[JsonObject] = mapped_column(default=dict, doc="Keys and values to filter by.")

    __table_args__ = (sa.Index(None, "created"),)


class Deployment(Tagged, Row):
    """A flow that can be run remotely: defaults for its runs, and a limit on the number of concurrent runs."""

    __tablename__ = "deployment"
    __announced__ = True

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
    tags: Mapped[RepeatedTags] = mapped_column(JSON, default=list, doc="Labels to filter by; its runs get them too.")
    work_queue_name: Mapped[Name | None] = mapped_column(doc="Name of the work queue of its runs.")
    work_queue_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(WorkQueue.id, ondelete="SET NULL"),
        index=True,
        info=READ_ONLY,
        doc="Id of the queue of its runs; null: workers do not start them.",
    )
    description: Mapped[LongText | None] = mapped_column(doc="Description for people, at most 100,000 characters.")
    labels: Mapped[JsonObject] = mapped_column(
        default=dict,
        server_default="{}",
        doc="Keys and values to filter by, in addition to those of the flow; its runs get them too.",
    )
    entrypoint: Mapped[Name | None] = mapped_column(
        doc="Import path of the flow relative to `path`, for example flows/etl.py:etl."
    )
    path: Mapped[LongText | None] = mapped_column(doc="Working directory of its runs.")
    pull_steps: Mapped[PullSteps | None] = mapped_column(
        JSON,
        default=list,
        server_default="[]",
        info=NOT_FILTERABLE,
        doc="Steps that fetch the code, in order: objects with one key, the step, whose value holds its inputs.",
    )
    parameter_schema: Mapped[JsonObject] = mapped_column(
        default=dict, server_default="{}", info=NOT_FILTERABLE, doc="JSON schema of the parameters."
    )
    enforce_parameter_schema: Mapped[bool] = mapped_column(
        default=True, server_default=sa.true(), doc="True if parameters must conform to parameterSchema."
    )
    job_variables: Mapped[JsonObject] = mapped_column(
        default=dict,
        server_default="{}",
        doc="Values for the variables of the work pool's base job template.",
    )
    version: Mapped[Name | None] = mapped_column(doc="Version; runs keep the version that they were created with.")
    version_info: Mapped[VersionInfo | None] = mapped_column(
        DocumentColumn(VersionInfo), info=NOT_FILTERABLE, doc="Source of the version."
    )
    last_polled: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time at which a worker or runner last asked for its runs."
    )
    told_status: Mapped[str | None] = mapped_column(
        info=PRIVATE, doc="Status of which an event told last; null for NOT_READY."
    )
    created_by: Mapped[Actor | None] = mapped_column(
        DocumentColumn(Actor),
        info={**READ_ONLY, **NOT_FILTERABLE},
        doc="Client that created it; null without authentication.",
    )
    updated_by: Mapped[Actor | None] = mapped_column(
        DocumentColumn(Actor),
        info={**READ_ONLY, **NOT_FILTERABLE},
        doc="Client that last changed it; null without authentication.",
    )

    flow: Mapped[Flow] = relationship(
        lazy="raise", info=reverse("deployments", "The deployments of the flow."), doc="The flow that is deployed."
    )
    work_queue: Mapped[WorkQueue | None] = relationship(lazy="raise", doc="The queue of its runs.")
    concurrency: Mapped[ConcurrencyLimit | None] = relationship(
        lazy="raise", foreign_keys=[concurrency_limit_id], doc="The limit on its runs."
    )

    __table_args__ = (sa.UniqueConstraint("flow_id", "name"), sa.Index(None, "name"), sa.Index(None, "created"))
