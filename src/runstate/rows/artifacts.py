"""Artifacts, and their collections."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship

from runstate.documents.base import DashSlug, JsonValue, LongText, ShortText, ShortTexts
from runstate.rows.base import CREATE_ONLY, JSON, READ_ONLY, Row, reverse, unconstrained
from runstate.rows.runs import FlowRun, FlowRunState, TaskRun, TaskRunState, known

OF_STATE = (
    "The artifact that `data` made: an object with `artifact_key`, `artifact_type` or `artifact_description` makes one "
    "with this key, type and description. The other members are the data of both. Null without one."
)
KEY = "Names it over all its versions: a-z, 0-9, `-`; 1 to 255 characters."
TYPE = "Kind of the data: `markdown`, `table`, `link`, `progress`, `image`, `result`, or a word of the client."


class ArtifactCollection(Row):
    """All artifacts with one key, with a copy of the latest."""

    __tablename__ = "artifact_collection"
    __indexed__ = ("created", "updated")

    key: Mapped[DashSlug] = mapped_column(unique=True, info=READ_ONLY, doc="The key.")
    latest_id: Mapped[UUID] = mapped_column(info=READ_ONLY, doc="Id of the latest artifact.")
    type: Mapped[str | None] = mapped_column(info=READ_ONLY, doc="Type of the latest artifact.")
    data: Mapped[Any | None] = mapped_column(JSON, info=READ_ONLY, doc="Data of the latest artifact.")
    description: Mapped[str | None] = mapped_column(info=READ_ONLY, doc="Description of the latest artifact.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, info=READ_ONLY, doc="Metadata of the latest artifact."
    )
    flow_run_id: Mapped[UUID | None] = mapped_column(
        index=True, info=READ_ONLY, doc="Id of the flow run of the latest artifact."
    )
    task_run_id: Mapped[UUID | None] = mapped_column(
        index=True, info=READ_ONLY, doc="Id of the task run of the latest artifact."
    )

    flow_run: Mapped[FlowRun | None] = unconstrained(
        lambda: FlowRun.id == foreign(ArtifactCollection.flow_run_id),
        doc="The flow run of the latest artifact; null if it is unknown.",
    )
    task_run: Mapped[TaskRun | None] = unconstrained(
        lambda: TaskRun.id == foreign(ArtifactCollection.task_run_id),
        doc="The task run of the latest artifact; null if it is unknown.",
    )
    latest: Mapped["Artifact"] = unconstrained(
        lambda: Artifact.id == foreign(ArtifactCollection.latest_id),
        doc="The artifact that was created last.",
    )

    __table_args__ = (known("artifact_collection", "type"),)


class Artifact(Row):
    """Something that a run made for people or programs: a report, a table, a link, an image, its progress, a result."""

    __tablename__ = "artifact"
    __indexed__ = ("created", "updated")

    key: Mapped[DashSlug | None] = mapped_column(info=CREATE_ONLY, doc=KEY)
    type: Mapped[ShortText | None] = mapped_column(info=CREATE_ONLY, doc=TYPE)
    data: Mapped[JsonValue | None] = mapped_column(JSON, doc="Any JSON value, at most 512 KiB.")
    description: Mapped[LongText | None] = mapped_column(doc="Description for people, in Markdown.")
    metadata_: Mapped[ShortTexts | None] = mapped_column(
        JSON, doc="Texts by key. The first 500 characters of a longer text are kept, followed by `...`."
    )
    flow_run_id: Mapped[UUID | None] = mapped_column(index=True, info=CREATE_ONLY, doc="Id of the flow run.")
    task_run_id: Mapped[UUID | None] = mapped_column(index=True, info=CREATE_ONLY, doc="Id of the task run.")
    collection_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(ArtifactCollection.id), info=READ_ONLY, doc="Id of the collection of its key."
    )

    flow_run: Mapped[FlowRun | None] = unconstrained(
        lambda: FlowRun.id == foreign(Artifact.flow_run_id),
        info=reverse("artifacts", "Artifacts of the run and of its task runs."),
        doc="The flow run; null if it is unknown.",
    )
    task_run: Mapped[TaskRun | None] = unconstrained(
        lambda: TaskRun.id == foreign(Artifact.task_run_id),
        info=reverse("artifacts", "Artifacts of the run."),
        doc="The task run; null if it is unknown.",
    )
    collection: Mapped[ArtifactCollection | None] = relationship(
        lazy="raise",
        info=reverse("versions", "All artifacts with the key."),
        doc="The collection of its key; null without a key.",
    )

    __table_args__ = (
        sa.Index(None, "collection_id", "created", "id"),
        known("artifact", "key"),
        known("artifact", "type"),
    )


# Rows of states are declared before artifacts, which refer to runs.
for _state in (FlowRunState, TaskRunState):
    _state.artifact = relationship(
        Artifact,
        lazy="raise",
        viewonly=True,
        uselist=False,
        primaryjoin=Artifact.id == foreign(_state.artifact_id),
        doc=OF_STATE,
    )
