"""Flows."""

from typing import Any

from runstate.core.commands.flows import CreateFlow, UpdateFlow, create_flow, delete_flow, update_flow
from runstate.documents.access import Scope
from runstate.prefect import presentation, reading
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.rows import Flow


class NewFlow(Body):
    """A flow to create."""

    name: str
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None


class Changes(Body):
    """Changes to a flow."""

    tags: list[str] | None = None
    labels: dict[str, Any] | None = None


@endpoint("POST", "/flows/", Scope.PROPOSE)
async def create(call: Call, body: NewFlow) -> Reply:
    """Create a flow, or return the existing flow with the name."""
    made = await create_flow(call.context, CreateFlow(**body.given))
    return Reply(presentation.flow(made.row), 201 if made.created else 200)


@endpoint("GET", "/flows/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a flow."""
    return reading.only(await reading.flows(call, Flow.id == call.id()), "flow", call.id())


@endpoint("GET", "/flows/name/{name}", Scope.READ)
async def read_by_name(call: Call) -> Any:
    """Return the flow with a name."""
    name = call.text("name")
    return reading.only(await reading.flows(call, Flow.name == name), "flow", name)


@endpoint("PATCH", "/flows/{id}", Scope.ADMIN, status=204)
async def update(call: Call, body: Changes) -> None:
    """Change a flow."""
    await update_flow(call.context, UpdateFlow(id=call.id(), **body.given))


@endpoint("DELETE", "/flows/{id}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a flow with its runs and deployments."""
    await delete_flow(call.context, call.id())
