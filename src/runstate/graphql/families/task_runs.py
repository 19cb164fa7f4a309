"""Task runs: taskRun, taskRuns, createTaskRun, createTaskRuns, updateTaskRun, deleteTaskRun."""

import asyncio
from functools import partial
from typing import Annotated, Any, Final

import strawberry

from runstate.core.commands import task_runs
from runstate.documents.access import Scope
from runstate.errors import BadUserInput, InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, Family, by_id, change, deletion
from runstate.graphql.families.mutations import CREATED, actor, mutation, payload, result_union
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import TaskRun
from runstate.graphql.types import fields
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import as_object

CreateTaskRunPayload: Any = payload(
    "CreateTaskRunPayload",
    "The task run, new or existing.",
    task_run=(TaskRun, "The task run."),
    created=(bool, CREATED),
)
UPDATE = Command(task_runs.update_task_run, task_runs.UpdateTaskRun, (InvalidInput, NotFound), scope=Scope.PROPOSE)
DELETE = Delete(task_runs.delete_task_run, "Delete a task run with its states. Its slots are released.")
FAMILY = Family(
    TaskRun,
    {
        "task_run": by_id(TaskRun),
        "task_runs": rows_of(TaskRun, "All task runs that meet a condition; newest first by default."),
    },
    {
        "update_task_run": change(TaskRun, UPDATE, Scope.PROPOSE),
        "delete_task_run": deletion(TaskRun, DELETE, Scope.ADMIN),
    },
)
NEW = strawberry.argument(description="Fields of the new task run.")
LARGEST_BATCH: Final = 200
PROBLEMS: Final = (NotFound, InvalidInput)
CreateTaskRunResult: Any = result_union("CreateTaskRunResult", CreateTaskRunPayload, *PROBLEMS)


async def _created(info: Info, given: Input[task_runs.CreateTaskRun]) -> Any:
    """Return the payload of a created or existing task run, or the problem."""
    context = info.context
    try:
        written = await task_runs.create_task_run(context.batcher, given.checked(), context.now, **actor(info))
    # Other task runs of the list are created all the same.
    except PROBLEMS as problem:
        return as_object(problem)
    return CreateTaskRunPayload(task_run=written.row, created=written.created)


@strawberry.type
class Mutation:
    """Creation of task runs."""

    @mutation(Scope.PROPOSE, *PROBLEMS, returns=CreateTaskRunPayload)
    async def create_task_run(self, info: Info, input: Annotated[Input[task_runs.CreateTaskRun], NEW]) -> Any:
        """Create a task run.

        An existing run with the same flow run, task key and dynamic key is returned unchanged.
        """
        document, context = input.checked(), info.context
        written = await task_runs.create_task_run(context.batcher, document, context.now, **actor(info))
        return CreateTaskRunPayload(task_run=written.row, created=written.created)

    # Not the decorator `mutation`: here, problems are members of the list.
    @partial(fields.mutation, scope=Scope.PROPOSE)
    async def create_task_runs(
        self, info: Info, inputs: Annotated[list[Input[task_runs.CreateTaskRun]], NEW]
    ) -> list[CreateTaskRunResult]:
        """Create 1 to 200 task runs, each as createTaskRun does. The answers have the order of the inputs.

        One that fails does not undo others.
        """
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise BadUserInput(f"From 1 to {LARGEST_BATCH} task runs can be created at once, not {len(inputs)}.")
        # Submitted together, they are written together.
        return list(await asyncio.gather(*(_created(info, each) for each in inputs)))
