"""Inputs of flow runs. The client writes and reads their values as JSON texts."""

from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands.proposals import input_of
from runstate.core.commands.run_inputs import CreateFlowRunInput, create_input, delete_input
from runstate.database.bulk import table_of
from runstate.database.queries.orchestration import all_of
from runstate.documents import exact_json
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.rows import FlowRunInput


class NewInput(Body):
    """An input to write."""

    key: str
    value: str
    sender: str | None = None


class Wanted(Body):
    """The inputs that are wanted."""

    prefix: str
    limit: Annotated[int, Field(ge=0, le=200)] = 1
    exclude_keys: list[str] = []


@endpoint("POST", "/flow_runs/{id}/input", Scope.PROPOSE, status=201)
async def create(call: Call, body: NewInput) -> Any:
    """Write an input of a flow run."""
    try:
        value = exact_json.loads(body.value)
    except orjson.JSONDecodeError:
        raise InvalidInput("The value must be a JSON text.", ("value",)) from None
    members = {"flow_run_id": call.id(), "key": body.key, "value": value, "sender": body.sender}
    made = await create_input(call.context, CreateFlowRunInput(**members))
    return None if made.created else Reply({"detail": f"The run has an input with the key `{body.key}`."}, 409)


@endpoint("POST", "/flow_runs/{id}/input/filter", Scope.READ)
async def read_many(call: Call, body: Wanted) -> Any:
    """Return the inputs of a flow run whose keys begin with a text, oldest first."""
    where = (
        FlowRunInput.flow_run_id == call.id(),
        FlowRunInput.key.startswith(body.prefix, autoescape=True),
        FlowRunInput.key.not_in(body.exclude_keys),
    )
    asked = sa.select(*table_of(FlowRunInput).columns).where(*where).order_by(FlowRunInput.created, FlowRunInput.id)
    async with call.database.read() as connection:
        found = await all_of(connection, FlowRunInput, asked.limit(body.limit))
    return [_shown(each) for each in found]


@endpoint("GET", "/flow_runs/{id}/input/{key}", Scope.READ)
async def read(call: Call) -> Any:
    """Return the value of an input, which the client reads as the whole answer."""
    return (await _input(call)).value


@endpoint("DELETE", "/flow_runs/{id}/input/{key}", Scope.PROPOSE, status=204)
async def delete(call: Call) -> None:
    """Delete an input."""
    await delete_input(call.context, (await _input(call)).id)


async def _input(call: Call) -> FlowRunInput:
    found = await input_of(call.context, call.id(), call.text("key"))
    if found is None:
        raise NotFound(message=f"The flow run has no input with the key `{call.text('key')}`.")
    return found


def _shown(row: FlowRunInput) -> dict[str, Any]:
    names = ("id", "created", "updated", "flow_run_id", "key", "sender")
    return {**{name: getattr(row, name) for name in names}, "value": exact_json.dumps(row.value).decode()}
