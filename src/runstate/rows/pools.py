"""Work pools, their queues and workers."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import JsonObject, LongText, Name, NonNegativeInt, Text
from runstate.documents.pools import PoolName, QueueFilter, QueueName, WorkerMetadata, WorkPoolStorageConfiguration
from runstate.rows.base import CREATE_ONLY, NOT_FILTERABLE, PRIVATE, DocumentColumn, Row, reverse

PoolType = Annotated[Text, Field(max_length=255)]
LOWEST_PRIORITY = 2**31 - 1
Priority = Annotated[int, Field(ge=1, le=LOWEST_PRIORITY)]


class WorkPool(Row):
    """Queues and workers of one type, with a template for the infrastructure of runs."""

    __tablename__ = "work_pool"
    __announced__ = True
    __node__ = False  # `status` has another type than this field of other nodes
    __order__, __indexed__ = ("name",), ("type", "created")

    name: Mapped[PoolName] = mapped_column(
        unique=True, doc="Unique name, not blank, without / % & < >; names that begin with `prefect` are reserved."
    )
    type: Mapped[PoolType] = mapped_column(
        default="process",
        info=CREATE_ONLY,
        doc="Worker type: process, docker, kubernetes, …; `:push` and `:managed` suffixes mean that no worker polls.",
    )
    description: Mapped[LongText | None] = mapped_column(doc="Description for people, at most 100,000 characters.")
    base_job_template: Mapped[JsonObject] = mapped_column(
        default=dict,
        info=NOT_FILTERABLE,
        doc="Template with `job_configuration` (with {{ placeholders }}) and `variables` (JSON schema of the "
        "placeholders), or {}.",
    )
    concurrency_limit: Mapped[NonNegativeInt | None] = mapped_column(
        doc="Maximum number of its runs that are PENDING or RUNNING; null for no limit."
    )
    paused: Mapped[bool] = mapped_column(default=False, doc="True if none of its runs can be claimed.")
    storage_configuration: Mapped[WorkPoolStorageConfiguration] = mapped_column(
        DocumentColumn(WorkPoolStorageConfiguration),
        default=WorkPoolStorageConfiguration,
        info=NOT_FILTERABLE,
        doc="Storage for code and results.",
    )
    # Stored, so that the status of a pool needs no look at its workers.
    online_until: Mapped[datetime | None] = mapped_column(
        info=PRIVATE, doc="Time until which a worker is online unless another heartbeat arrives."
    )
    status_changed: Mapped[datetime | None] = mapped_column(
        info=PRIVATE, doc="Time at which a heartbeat, a pause or its end last changed the status."
    )
    told_status: Mapped[str | None] = mapped_column(
        info=PRIVATE, doc="Status of which an event told last; null for NOT_READY."
    )


class WorkQueue(Row):
    """Part of a work pool with its own limit and priority."""

    __tablename__ = "work_queue"
    __announced__ = True
    __node__ = False  # `status` and `workPool` have other types than these fields of other nodes
    __order__, __indexed__ = ("priority", "id"), ("priority", "name", "created")

    work_pool_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(WorkPool.id, ondelete="CASCADE"), info=CREATE_ONLY, doc="Id of the pool."
    )
    name: Mapped[QueueName] = mapped_column(doc="Name, unique within the pool, without / % & < >.")
    description: Mapped[LongText] = mapped_column(default="", doc="Free text.")
    priority: Mapped[Priority] = mapped_column(
        default=1, doc="1 is served first; unique within the pool. Other queues move if it is taken."
    )
    paused: Mapped[bool] = mapped_column(default=False, doc="True if none of its runs can be claimed.")
    concurrency_limit: Mapped[NonNegativeInt | None] = mapped_column(
        doc="Maximum number of its runs that are PENDING or RUNNING; null for no limit."
    )
    filter: Mapped[QueueFilter | None] = mapped_column(
        DocumentColumn(QueueFilter),
        info={**CREATE_ONLY, **NOT_FILTERABLE},
        doc="Filter of an imported legacy queue; null for others. Claims do not use it.",
    )
    last_polled: Mapped[datetime | None] = mapped_column(
        info={"written": "by the server"}, doc="Time at which a worker last asked for its runs."
    )
    shows_pause: Mapped[bool] = mapped_column(
        default=False, info=PRIVATE, doc="True if an update paused it; a queue that was created paused is NOT_READY."
    )
    told_status: Mapped[str | None] = mapped_column(
        info=PRIVATE, doc="READY or NOT_READY, of which an event told last; null for NOT_READY."
    )
    is_default: Mapped[bool] = mapped_column(default=False, info=PRIVATE, doc="True for the default queue of the pool.")

    work_pool: Mapped[WorkPool] = relationship(
        lazy="raise", info=reverse("work_queues", "Its queues; by priority by default."), doc="The pool."
    )

    __table_args__ = (sa.UniqueConstraint("work_pool_id", "name"),)


class Worker(Row):
    """A process that starts runs of a work pool."""

    __tablename__ = "worker"
    __node__ = False  # `status` and `workPool` have other types than these fields of other nodes
    __order__, __indexed__ = ("-last_heartbeat_time",), ("name", "last_heartbeat_time")

    work_pool_id: Mapped[UUID] = mapped_column(sa.ForeignKey(WorkPool.id, ondelete="CASCADE"), doc="Id of the pool.")
    name: Mapped[Name] = mapped_column(doc="Name, unique within the pool.")
    last_heartbeat_time: Mapped[datetime] = mapped_column(doc="Time of the last heartbeat.")
    heartbeat_interval_seconds: Mapped[float] = mapped_column(doc="Interval of its heartbeats in seconds.")
    reported: Mapped[WorkerMetadata | None] = mapped_column(
        DocumentColumn(WorkerMetadata), info=PRIVATE, doc="Properties that the worker reported."
    )

    work_pool: Mapped[WorkPool] = relationship(lazy="raise", info=reverse("workers", "Its workers."), doc="The pool.")

    __table_args__ = (sa.UniqueConstraint("work_pool_id", "name"),)
