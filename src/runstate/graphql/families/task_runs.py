"""Task runs: taskRun, taskRuns, createTaskRun, updateTaskRun, deleteTaskRun."""

from typing import Annotated, Any

import strawberry

from runstate.core.commands import task_runs
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, Family, by_id, change, deletion
from runstate.graphql.families.mutations import CREATED, actor, mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import TaskRun
from runstate.graphql.types.inputs import Input

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


@strawberry.type
class Mutation:
    """Creation of task runs."""

    @mutation(Scope.PROPOSE, NotFound, InvalidInput, returns=CreateTaskRunPayload)
    async def create_task_run(self, info: Info, input: Annotated[Input[task_runs.CreateTaskRun], NEW]) -> Any:
        """Create a task run.

        An existing run with the same flow run, task key and dynamic key is returned unchanged.
        """
        document, context = input.checked(), info.context
        written = await task_runs.create_task_run(context.batcher, document, context.now, **actor(info))
        return CreateTaskRunPayload(task_run=written.row, created=written.created)
