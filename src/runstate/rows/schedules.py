"""Schedules and versions of deployments."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import JsonObject, Name
from runstate.documents.deployments import VersionInfo
from runstate.documents.schedules import Schedule
from runstate.rows.base import (
    CREATE_ONLY,
    JSON,
    NOT_FILTERABLE,
    PRIVATE,
    Base,
    DocumentColumn,
    Retention,
    Row,
    reverse,
)
from runstate.rows.flows import Deployment

MaxScheduledRuns = Annotated[int, Field(ge=1, le=50)]


class DeploymentSchedule(Row):
    """A schedule of a deployment."""

    __tablename__ = "deployment_schedule"
    __node__ = False  # `deployment` of other nodes is nullable
    __indexed__ = ("created", "updated", "slug")

    deployment_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Deployment.id, ondelete="CASCADE"), info=CREATE_ONLY, doc="Id of the deployment."
    )
    schedule: Mapped[Schedule] = mapped_column(
        DocumentColumn(Schedule), info=NOT_FILTERABLE, doc="Rule by which runs are created."
    )
    active: Mapped[bool] = mapped_column(default=True, doc="False if the scheduler creates no runs for it.")
    max_scheduled_runs: Mapped[MaxScheduledRuns | None] = mapped_column(
        doc="Maximum number of unstarted future runs, 1 to 50; null for the settings of the scheduler."
    )
    parameters: Mapped[JsonObject] = mapped_column(
        default=dict, doc="Parameters of its runs; each key replaces the deployment's value."
    )
    slug: Mapped[Name | None] = mapped_column(doc="Name, unique within the deployment.")
    revision: Mapped[int] = mapped_column(
        default=0, info=PRIVATE, doc="Number of changes. A run of an older revision is not created."
    )
    next_pass: Mapped[datetime | None] = mapped_column(
        info=PRIVATE,
        doc="Time from which further runs are created; null if it is inactive, its deployment is paused, or it ended.",
    )
    planned_until: Mapped[datetime | None] = mapped_column(
        info=PRIVATE, doc="Time of the last pass or change: earlier dates are not created any more."
    )
    fault: Mapped[str | None] = mapped_column(
        info=PRIVATE, doc="Error with which the last pass of the scheduler failed; null if it succeeded."
    )

    deployment: Mapped[Deployment] = relationship(
        lazy="raise", info=reverse("schedules", "Its schedules."), doc="The deployment."
    )

    __table_args__ = (
        sa.UniqueConstraint("deployment_id", "slug"),
        sa.Index(None, "next_pass"),
    )


class DeletedDate(Base):
    """A date of a schedule whose run a client deleted: the scheduler does not create it again."""

    __tablename__ = "deleted_date"
    __retention__ = Retention("date", setting="idempotency_retention_hours")

    schedule_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(DeploymentSchedule.id, ondelete="CASCADE"), primary_key=True, doc="Id of the schedule."
    )
    date: Mapped[datetime] = mapped_column(primary_key=True, index=True, doc="Scheduled start of the run.")


class DeploymentVersion(Row):
    """An earlier form of a deployment."""

    __tablename__ = "deployment_version"
    __node__ = False  # `deployment` of other nodes is nullable
    __indexed__ = ("created",)

    deployment_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Deployment.id, ondelete="CASCADE"), doc="Id of the deployment."
    )
    version: Mapped[Name | None] = mapped_column(doc="The version text.")
    version_info: Mapped[VersionInfo | None] = mapped_column(
        DocumentColumn(VersionInfo), info=NOT_FILTERABLE, doc="Source of the version."
    )
    snapshot: Mapped[dict[str, Any]] = mapped_column(
        JSON, info=NOT_FILTERABLE, doc="The columns of the deployment at that time, by their GraphQL names."
    )

    deployment: Mapped[Deployment] = relationship(
        lazy="raise",
        info=reverse("versions", "Earlier forms, newest first; one is added when version or versionInfo changes."),
        doc="The deployment.",
    )

    __table_args__ = (sa.Index(None, "deployment_id", "id"),)
