"""Arguments of task runs: `taskInputs`, read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Final

import strawberry

from runstate.graphql.context import Info
from runstate.graphql.published import FlowRun, TaskRun
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.fields import field, object_type


class RunInputType(Enum):
    """Kind of a source; in `taskInputs` it is `input_type`, in lower case."""

    CONSTANT = "CONSTANT"
    """A value in the code."""
    FLOW_RUN = "FLOW_RUN"
    """The result of a flow run."""
    PARAMETER = "PARAMETER"
    """A parameter of the flow run."""
    TASK_RUN = "TASK_RUN"
    """The result of a task run."""


register_type(RunInputType)


@strawberry.interface(description="The source of an argument of a task run.")
class RunInput:
    """The source of an argument of a task run."""

    input_type: RunInputType = strawberry.field(description="Kind of the source.")


@object_type
class TaskRunResult(RunInput):
    """The result of a task run; in `taskInputs` `{"input_type": "task_run", "id": …}`."""

    id: strawberry.ID = strawberry.field(description="Id of the task run.")

    @field
    async def task_run(self, info: Info) -> TaskRun | None:
        """The task run; null if it is unknown."""
        return await info.context.load(info, TaskRun, self.id)


@object_type
class FlowRunResult(RunInput):
    """The result of a flow run; in `taskInputs` `{"input_type": "flow_run", "id": …}`."""

    id: strawberry.ID = strawberry.field(description="Id of the flow run.")

    @field
    async def flow_run(self, info: Info) -> FlowRun | None:
        """The flow run; null if it is unknown."""
        return await info.context.load(info, FlowRun, self.id)


@object_type
class Parameter(RunInput):
    """A parameter of the flow run; in `taskInputs` `{"input_type": "parameter", "name": …}`."""

    name: str = strawberry.field(description="Name of the parameter.")


@object_type
class Constant(RunInput):
    """A value in the code; in `taskInputs` `{"input_type": "constant", "type": …}`."""

    type: str = strawberry.field(description="Name of the value's type.")


@object_type
class TaskRunArgument:
    """An argument of a task run."""

    inputs: list[RunInput] = strawberry.field(description="Its sources.")
    name: str = strawberry.field(description="Name of the argument.")


IMPLEMENTATIONS: Final = (TaskRunResult, FlowRunResult, Parameter, Constant)
"""Types that only their interface refers to."""
MAKERS: Final[Mapping[Any, Callable[[Mapping[str, Any]], RunInput]]] = {
    "task_run": lambda source: TaskRunResult(input_type=RunInputType.TASK_RUN, id=source["id"]),
    "flow_run": lambda source: FlowRunResult(input_type=RunInputType.FLOW_RUN, id=source["id"]),
    "parameter": lambda source: Parameter(input_type=RunInputType.PARAMETER, name=source["name"]),
    "constant": lambda source: Constant(input_type=RunInputType.CONSTANT, type=source["type"]),
}


@extends(TaskRun, needs={"task_inputs"})
async def arguments(root: strawberry.Parent[TaskRun]) -> list[TaskRunArgument]:
    """The arguments, by name, with the sources of their values."""
    return [
        TaskRunArgument(name=name, inputs=list(_sources(root.task_inputs[name]))) for name in sorted(root.task_inputs)
    ]


def _sources(given: Any) -> Iterator[RunInput]:
    # Inputs that were stored before their form was checked can be anything.
    for each in given if isinstance(given, list) else ():
        make = MAKERS.get(each.get("input_type")) if isinstance(each, dict) else None
        if make:
            with suppress(KeyError):
                yield make(each)
