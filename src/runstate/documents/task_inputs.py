"""Inputs of task runs: the sources of each argument."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from runstate.documents.base import storable_json


class Result(TypedDict):
    """The result of a task run or a flow run, which need not exist."""

    input_type: Literal["task_run", "flow_run"]
    id: UUID


class Named(TypedDict):
    """A parameter of the flow run."""

    input_type: Literal["parameter"]
    name: str


class Typed(TypedDict):
    """A value in the code, by the name of its type."""

    input_type: Literal["constant"]
    type: str


SHAPE: TypeAdapter[dict[str, list[Result | Named | Typed]]] = TypeAdapter(dict[str, list[Result | Named | Typed]])


def _checked(inputs: Any) -> Any:
    try:
        SHAPE.validate_python(inputs)
    except ValidationError:
        raise ValueError(
            "each argument needs a list of sources: `input_type` and `id`, `name` or `type`, such as "
            '{"input_type": "task_run", "id": "…"}'
        ) from None
    return inputs


TaskInputs = Annotated[dict[str, Any], AfterValidator(storable_json), AfterValidator(_checked)]
