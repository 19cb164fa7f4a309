"""Runs: the fields that flow runs and task runs share."""

import asyncio
from typing import Annotated, Any, Final, cast

import strawberry
from strawberry import UNSET

from runstate.database.queries import estimates
from runstate.documents.decisions import LastAnswer, ProposedType, StateDecision
from runstate.graphql.context import Context, Info
from runstate.graphql.pagination.keyset import DEFAULT_SIZE, LARGEST_SIZE, PageArguments
from runstate.graphql.published import ConcurrencyLimit, FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.graphql.types.conditions import is_set
from runstate.graphql.types.derive import ReferenceLookup, computes, extends

Last = strawberry.argument(description=f"Number of states: {DEFAULT_SIZE} by default, from 1 to {LARGEST_SIZE}.")

STATES: Final[dict[type[Run], type[State]]] = {FlowRun: FlowRunState, TaskRun: TaskRunState}


@computes(State, needs={"type"})
def is_final(root: State, _: Context) -> bool:
    """True if the state ends the run: COMPLETED, FAILED, CANCELLED or CRASHED."""
    return root.is_final


@computes(State, needs={"decision_record", "type", "name"})
def decision(root: State, _: Context) -> StateDecision:
    """The decision that wrote the state."""
    # An acceptance without changes is not stored.
    return root.decision_record or StateDecision(proposed=ProposedType(type=root.type, name=root.name))


@extends(cast("Any", LastAnswer), name="limits")
async def limits_of_answer(root: strawberry.Parent[LastAnswer], info: Info) -> list[ConcurrencyLimit]:
    """The full limits that the run waits for; empty if it waits for something else."""
    # One statement loads all of them.
    found = await asyncio.gather(*(info.context.load(info, ConcurrencyLimit, each) for each in root.limit_ids))
    return [each for each in found if each]


@extends(Run, name="state", needs={"state_id"})
async def state_of_run(root: strawberry.Parent[Run], info: Info) -> State | None:
    """The current state of the run; null if it has none yet."""
    return await info.context.load(info, STATES[type(root)], root.state_id)


@extends(FlowRun, name="state", needs={"state_id"}, lookup=ReferenceLookup(FlowRunState, "state_id"))
async def state_of_flow_run(root: strawberry.Parent[FlowRun], info: Info) -> FlowRunState | None:
    """The current state of the run; null if it has none yet."""
    return await info.context.load(info, FlowRunState, root.state_id)


@extends(TaskRun, name="state", needs={"state_id"}, lookup=ReferenceLookup(TaskRunState, "state_id"))
async def state_of_task_run(root: strawberry.Parent[TaskRun], info: Info) -> TaskRunState | None:
    """The current state of the run; null if it has none yet."""
    return await info.context.load(info, TaskRunState, root.state_id)


@extends(Run, name="history", needs=())
async def history_of_run(
    root: strawberry.Parent[Run], info: Info, last: Annotated[int | None, Last] = UNSET
) -> list[State]:
    """The last states of the run, oldest first."""
    asked: PageArguments[State] = PageArguments(last=last if is_set(last) else DEFAULT_SIZE)
    return await info.context.children(info, STATES[type(root)], asked, "run_id", root.id)


@computes(Run, needs={"total_run_time_seconds", "state_type", "state_timestamp"})
def estimated_run_time_seconds(root: Run, context: Context) -> float:
    """Seconds spent in RUNNING until now."""
    return estimates.run_time(root, context.now)


@computes(Run, needs={"expected_start_time", "start_time", "state_type"})
def estimated_start_time_delta_seconds(root: Run, context: Context) -> float:
    """Seconds between the expected start and the start, or the present if the run can still start."""
    return estimates.start_time_delta(root, context.now)


@extends(TaskRun, needs=())
async def child_flow_run(root: strawberry.Parent[TaskRun], info: Info) -> FlowRun | None:
    """The subflow run that the task run represents; the newest one if there are several."""
    found = await info.context.children(info, FlowRun, PageArguments(first=1), "parent_task_run_id", root.id)
    return found[0] if found else None
