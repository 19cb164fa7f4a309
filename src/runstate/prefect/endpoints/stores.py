"""Logs, artifacts and variables."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from runstate.core.commands import artifacts as commands
from runstate.core.commands import crud
from runstate.documents.access import Scope
from runstate.prefect import objects
from runstate.prefect.bodies import Body, changes
from runstate.prefect.endpoint import Call, endpoint
from runstate.rows import Artifact, ArtifactCollection
from runstate.rows.documents import create_document, update_document
from runstate.rows.variables import Variable

CreateVariable = create_document(Variable)
UpdateVariable = update_document(Variable)
create_variable = crud.create(Variable)
update_variable = crud.update(Variable)
remove_variable = crud.delete(Variable)


class ArtifactChanges(Body):
    """Changes to an artifact."""

    data: Any = None
    description: str | None = None
    metadata_: dict[str, str] | None = None


class NewArtifact(ArtifactChanges):
    """An artifact to create."""

    key: str | None = None
    type: str | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None


class VariableChanges(Body):
    """Changes to a variable."""

    name: str | None = None
    value: Any = None
    tags: list[str] | None = None


class NewVariable(VariableChanges):
    """A variable to create."""

    name: str


@endpoint("POST", "/artifacts/", Scope.PROPOSE, status=201)
async def create_artifact(call: Call, body: NewArtifact) -> Any:
    """Create an artifact."""
    made = await commands.create_artifact(call.context, commands.CreateArtifact(**changes(body, Artifact, {})))
    return objects.plain(made.row)


@endpoint("GET", "/artifacts/{id}", Scope.READ)
async def read_artifact(call: Call) -> Any:
    """Return an artifact."""
    return objects.plain(await objects.only(call, Artifact, "artifact", call.id(), Artifact.id == call.id()))


@endpoint("GET", "/artifacts/{key}/latest", Scope.READ)
async def read_latest(call: Call) -> Any:
    """Return the latest artifact with a key."""
    key = call.text("key")
    found = await objects.only(call, ArtifactCollection, "artifact", key, ArtifactCollection.key == key)
    return objects.plain(await objects.only(call, Artifact, "artifact", key, Artifact.id == found.latest_id))


@endpoint("PATCH", "/artifacts/{id}", Scope.PROPOSE, status=204)
async def update_artifact(call: Call, body: ArtifactChanges) -> None:
    """Change an artifact."""
    document = commands.UpdateArtifact(id=call.id(), **changes(body, Artifact, {}))
    await commands.update_artifact(call.context, document)


@endpoint("DELETE", "/artifacts/{id}", Scope.ADMIN, status=204)
async def delete_artifact(call: Call) -> None:
    """Delete an artifact."""
    await commands.delete_artifact(call.context, call.id())


@endpoint("POST", "/variables/", Scope.PROPOSE, status=201)
async def create(call: Call, body: NewVariable) -> Any:
    """Create a variable."""
    document = CreateVariable(value=body.value, **{name: each for name, each in body.given.items() if name != "value"})
    return objects.plain((await create_variable(call.context, document)).row)


async def _variable(call: Call) -> Variable:
    if "name" in call.request.path_params:
        name = call.text("name")
        return await objects.only(call, Variable, "variable", name, Variable.name == name)
    return await objects.only(call, Variable, "variable", call.id(), Variable.id == call.id())


async def read(call: Call) -> Any:
    """Return a variable."""
    return objects.plain(await _variable(call))


async def update(call: Call, body: VariableChanges) -> None:
    """Change a variable."""
    found = await _variable(call)
    await update_variable(call.context, UpdateVariable(id=found.id, **changes(body, Variable, {})))


async def delete(call: Call) -> None:
    """Delete a variable."""
    await remove_variable(call.context, (await _variable(call)).id)


for _path in ("/variables/name/{name}", "/variables/{id}"):
    endpoint("GET", _path, Scope.READ)(read)
    endpoint("PATCH", _path, Scope.PROPOSE, status=204)(update)
    endpoint("DELETE", _path, Scope.PROPOSE, status=204)(delete)
