"""Schedules of deployments: deploymentSchedule, deploymentSchedules, and the mutations that change them."""

from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from runstate.core.commands import previews, schedules, scheduling
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Delete, Family, by_id, deletion
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.pagination.selection import every
from runstate.graphql.published import Deployment, DeploymentSchedule, FlowRun
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import object_type, query
from runstate.graphql.types.inputs import Input, register_input

Json: Any = strawberry.scalars.JSON
MOST_DATES: Final = 100
TAKEN_BACK: Final = "Number of runs that were deleted: created by the schedule and not started."

register_input(schedules.ScheduleFields, name="DeploymentScheduleInput")
FAMILY = Family(
    DeploymentSchedule,
    {
        "deployment_schedule": by_id(DeploymentSchedule),
        "deployment_schedules": rows_of(DeploymentSchedule, "Schedules of all deployments; newest first by default."),
    },
    {
        "delete_deployment_schedule": deletion(
            DeploymentSchedule,
            Delete(schedules.delete_schedule, "Delete a schedule and, in the same transaction, its unstarted runs."),
            Scope.ADMIN,
        )
    },
)
CreateDeploymentSchedulePayload: Any = payload(
    "CreateDeploymentSchedulePayload", "The new schedule.", deployment_schedule=(DeploymentSchedule, "The schedule.")
)
UpdateDeploymentSchedulePayload: Any = payload(
    "UpdateDeploymentSchedulePayload",
    "The updated schedule.",
    deployment_schedule=(DeploymentSchedule, "The schedule as written."),
    taken_back_runs=(int, TAKEN_BACK),
)
SetDeploymentSchedulesPayload: Any = payload(
    "SetDeploymentSchedulesPayload",
    "The changes.",
    deployment=(Deployment, "The deployment."),
    created=(int, "Number of schedules that were created."),
    deleted=(int, "Number of schedules that were deleted."),
    kept=(int, "Number of schedules that kept their id."),
    taken_back_runs=(int, TAKEN_BACK),
)
ScheduleDeploymentPayload: Any = payload(
    "ScheduleDeploymentPayload",
    "The runs that did not exist before.",
    flow_runs=(list[FlowRun], "The new runs, by date."),
)
WINDOW = strawberry.argument(description="The deployment and the window.")
NEW = strawberry.argument(description="The deployment and the schedule.")
CHANGES = strawberry.argument(description="The schedule, and the fields to change.")
OF = strawberry.argument(description="Id of the deployment.")
UNTIL = strawberry.argument(
    description="Last instant to consider; default: as far ahead as the scheduler's settings say."
)
ALL = strawberry.argument(description="The deployment and its schedules.")
First = strawberry.argument(description=f"Number of dates, 1 to {MOST_DATES}.")


@extends(DeploymentSchedule, needs={"schedule", "active"}, size=MOST_DATES)
async def next_dates(
    root: strawberry.Parent[DeploymentSchedule], info: Info, first: Annotated[int, First] = 5
) -> list[datetime]:
    """The next dates; empty if the schedule is inactive or has a `problem`."""
    if not 1 <= first <= MOST_DATES:
        raise InvalidInput(f"`first` must be from 1 to {MOST_DATES}.", ("first",))
    if not root.active:
        return []
    try:
        found = await info.context.commands.calendar.dates(
            root.schedule, (), info.context.now, first=first, patient=True
        )
    # `problem` tells the reason; the dates are part of a list that must not fail for one schedule.
    except InvalidInput:
        return []
    return [each.date for each in found.dates]


@extends(DeploymentSchedule, needs={"schedule", "fault"})
async def problem(root: strawberry.Parent[DeploymentSchedule], info: Info) -> str | None:
    """The reason for which the schedule yields no dates or no runs, for example its end has passed; null if it does."""
    if root.fault:
        return root.fault
    try:
        found = await info.context.commands.calendar.dates(root.schedule, (), info.context.now, first=1, patient=True)
    except InvalidInput as error:
        return error.message
    return None if found.dates else "The schedule has ended."


@object_type
class PlannedRun:
    """A run that the scheduler would create."""

    date: datetime = strawberry.field(description="Scheduled start.")
    deployment_schedule: DeploymentSchedule = strawberry.field(description="The schedule.")
    parameters: Json = strawberry.field(description="Its parameters.")


@object_type
class ScheduledRunsPreview:
    """Dry run of the scheduler for a deployment."""

    idle: str | None = strawberry.field(
        description="Reason for which it would create no runs (paused, no active schedule, enough runs); null if it "
        "would create some."
    )
    missing: list[PlannedRun] = strawberry.field(description="Runs that it would create, by date.")
    surplus: list[FlowRun] = strawberry.field(
        description=f"Unstarted scheduled runs that no active schedule accounts for; at most {previews.MOST_SURPLUS}."
    )


@strawberry.type
class Query:
    """Dry runs of the scheduler."""

    @query
    async def scheduled_runs_preview(
        self, info: Info, deployment_id: Annotated[strawberry.ID, OF], until: Annotated[datetime | None, UNTIL] = None
    ) -> ScheduledRunsPreview | None:
        """Dry run of the scheduler for one deployment; null if the deployment is unknown. Writes nothing."""
        known = as_uuid(deployment_id)
        found = known and await previews.preview(info.context.commands, known, until)
        if not found:
            return None
        surplus: Any = await info.context.rows(FlowRun, found.surplus, every(FlowRun))
        return ScheduledRunsPreview(
            idle=found.idle,
            missing=[
                PlannedRun(date=each.date, deployment_schedule=each.schedule, parameters=each.parameters)
                for each in found.missing
            ],
            surplus=list(surplus),
        )


@strawberry.type
class Mutation:
    """Changes of schedules."""

    @mutation(Scope.ADMIN, InvalidInput, NameTaken, NotFound, returns=CreateDeploymentSchedulePayload)
    async def create_deployment_schedule(
        self, info: Info, input: Annotated[Input[schedules.CreateDeploymentSchedule], NEW]
    ) -> Any:
        """Add a schedule to a deployment. The scheduler creates its runs within seconds."""
        made = await schedules.create_checked(info.context.commands, input.checked())
        return CreateDeploymentSchedulePayload(deployment_schedule=made)

    @mutation(Scope.ADMIN, InvalidInput, NameTaken, NotFound, returns=UpdateDeploymentSchedulePayload)
    async def update_deployment_schedule(
        self, info: Info, input: Annotated[Input[schedules.UpdateDeploymentSchedule], CHANGES]
    ) -> Any:
        """Update a schedule; in the same transaction, its future runs that no longer match are deleted."""
        done = await schedules.update_schedule(info.context.commands, input.checked())
        return UpdateDeploymentSchedulePayload(deployment_schedule=done.row, taken_back_runs=done.taken_back)

    @mutation(Scope.ADMIN, InvalidInput, NotFound, returns=SetDeploymentSchedulesPayload)
    async def set_deployment_schedules(
        self, info: Info, input: Annotated[Input[schedules.SetDeploymentSchedules], ALL]
    ) -> Any:
        """Replace all schedules of a deployment.

        A schedule with the slug of an existing one, or without slug and equal to an existing one, keeps its id, its
        runs and, if omitted, `active`.
        """
        document = input.checked()
        done = await schedules.set_schedules(info.context.commands, document)
        return SetDeploymentSchedulesPayload(
            deployment=await info.context.row(Deployment, document.deployment_id),
            created=done.created,
            deleted=done.deleted,
            kept=done.kept,
            taken_back_runs=done.taken_back,
        )

    @mutation(Scope.ADMIN, InvalidInput, NotFound, returns=ScheduleDeploymentPayload)
    async def schedule_deployment(
        self, info: Info, input: Annotated[Input[scheduling.ScheduleDeployment], WINDOW]
    ) -> Any:
        """Create the scheduled runs of a deployment in a window now.

        The window can be in the past, and the deployment can be paused. Runs that exist are not created again.
        """
        made = await scheduling.schedule_deployment(info.context.batcher, input.checked())
        return ScheduleDeploymentPayload(flow_runs=list(await info.context.rows(FlowRun, made, every(FlowRun))))
