"""Task runs that requests create and change: those of subflows, and those of background tasks."""

from typing import Any
from uuid import UUID

from runstate.core.commands import task_runs as commands
from runstate.core.commands.runs import create_run, decided
from runstate.documents.access import Scope
from runstate.documents.states import RunKind
from runstate.prefect import decisions, reading
from runstate.prefect.bodies import Body, Policy, SetState, StateBody
from runstate.prefect.endpoint import Call, Reply, endpoint

COPIED = (
    "name",
    "flow_run_id",
    "task_key",
    "dynamic_key",
    "cache_key",
    "task_version",
    "tags",
    "labels",
    "task_inputs",
)
"""Members that commands know by the same name."""


class NewTaskRun(Body):
    """A task run to create."""

    id: UUID | None = None
    name: str | None = None
    flow_run_id: UUID | None = None
    task_key: str
    dynamic_key: str
    cache_key: str | None = None
    task_version: str | None = None
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None
    task_inputs: dict[str, Any] | None = None
    empirical_policy: Policy | None = None
    state: StateBody | None = None

    def document(self) -> Any:
        """Return the document of the command."""
        policy = {"policy": self.empirical_policy.of_task_run()} if self.empirical_policy else {}
        state = {"state": self.state.document()} if self.state else {}
        return commands.CreateTaskRun(**self.members(COPIED), **policy, **state)


class Named(Body):
    """The name of a task run."""

    name: str | None = None


@endpoint("POST", "/task_runs/", Scope.PROPOSE)
async def create(call: Call, body: NewTaskRun) -> Reply:
    """Create a task run, or return the existing one with its flow run, task key and dynamic key."""
    new_id = body.id or call.batcher.new_id()
    made = await create_run(call.batcher, commands.new_task_run(body.document(), new_id, call.now, **call.who))
    return Reply(await reading.task_run(call, made.row.id), 201 if made.created else 200)


@endpoint("GET", "/task_runs/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a task run with its state."""
    return await reading.task_run(call, call.id())


@endpoint("PATCH", "/task_runs/{id}", Scope.PROPOSE, status=204)
async def update(call: Call, body: Named) -> None:
    """Change the name of a task run."""
    await commands.update_task_run(call.context, commands.UpdateTaskRun(id=call.id(), **body.given))


@endpoint("DELETE", "/task_runs/{id}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a task run with its states."""
    await commands.delete_task_run(call.context, call.id())


@endpoint("POST", "/task_runs/{id}/set_state", Scope.PROPOSE)
async def set_state(call: Call, body: SetState) -> Reply:
    """Propose a state for a task run."""
    request = body.proposal(RunKind.TASK_RUN, call.id(), **call.who)
    return await decisions.result(call, await decided(call.batcher, request))
