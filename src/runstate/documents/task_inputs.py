"""Inputs of task runs, and the sources that they come from."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from runstate.documents.base import Document, Name

LONGEST_NAME: Final = 255
CALLED_IN: Final = "__parents__"
"""Name of the input whose sources are the task runs that a task run was called in."""


class TaskRunSource(Document):
    """The result of a task run."""

    kind: Literal["task_run"] = "task_run"
    id: UUID = Field(description="Id of the task run.")


class FlowRunSource(Document):
    """The result of a flow run."""

    kind: Literal["flow_run"] = "flow_run"
    id: UUID = Field(description="Id of the flow run.")


class ParameterSource(Document):
    """A parameter of the flow run."""

    kind: Literal["parameter"] = "parameter"
    name: Name = Field(description="Name of the parameter.")


class ConstantSource(Document):
    """A constant in the code."""

    kind: Literal["constant"] = "constant"
    type: Name | None = Field(default=None, description="Name of its type; null if unknown.")


TaskInputSource = Annotated[
    TaskRunSource | FlowRunSource | ParameterSource | ConstantSource,
    Field(discriminator="kind", title="TaskInputSource", description="The source of a value that a task run is given."),
]


class TaskInput(Document):
    """An argument of a task run, and the sources of its value."""

    name: Name = Field(description="Name of the argument; `__parents__` for the task runs that it was called in.")
    sources: list[TaskInputSource] = Field(max_length=1_000, description="Sources of the value, at most 1,000.")


def _from_object(value: Any) -> Any:
    """Return the inputs of a JSON object of lists, as earlier versions stored them. Other values stay as they are."""
    if not isinstance(value, dict):
        return value
    named = {name: list(_sources(each)) for name, each in value.items() if name and len(name) <= LONGEST_NAME}
    return [{"name": name, "sources": sources[:1_000]} for name, sources in named.items() if sources][:1_000]


def _sources(found: Any) -> Iterator[dict[str, Any]]:
    """Yield the sources in a JSON value; anything else in it is left out, as it was then."""
    for each in found if isinstance(found, list) else ():
        match each:
            case {"input_type": "task_run" | "flow_run" as kind, "id": str(text)} if _is_uuid(text):
                yield {"kind": kind, "id": text}
            case {"input_type": "parameter", "name": str(name)} if 0 < len(name) <= LONGEST_NAME:
                yield {"kind": "parameter", "name": name}
            case {"input_type": "constant"}:
                yield {"kind": "constant"}


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


TaskInputs = Annotated[list[TaskInput], BeforeValidator(_from_object), Field(max_length=1_000)]
