"""Flow runs: creation, states, changes and deletion."""

from typing import Any
from uuid import UUID

from runstate.core.commands import flow_runs as commands
from runstate.core.commands import run_inputs
from runstate.core.commands.proposals import current_state, input_of
from runstate.core.commands.runs import decided
from runstate.documents import requests
from runstate.documents.access import Scope
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput, Unavailable
from runstate.prefect import decisions, reading
from runstate.prefect.bodies import Body, Policy, SetState, StateBody
from runstate.prefect.endpoint import Call, Reply, endpoint

COPIED = (
    "name",
    "flow_id",
    "deployment_id",
    "parent_task_run_id",
    "flow_version",
    "parameters",
    "context",
    "tags",
    "labels",
    "idempotency_key",
    "infrastructure_pid",
    "work_queue_name",
    "job_variables",
)
"""Members that commands know by the same name."""


class FlowRunBody(Body):
    """Members of a flow run that a request sets on creation or later."""

    name: str | None = None
    flow_version: str | None = None
    parameters: dict[str, Any] | None = None
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None
    empirical_policy: Policy | None = None
    infrastructure_pid: str | None = None
    job_variables: dict[str, Any] | None = None

    def columns(self) -> dict[str, Any]:
        """Return the members that were sent, by the names that commands use."""
        return self.members(COPIED) | ({"policy": self.empirical_policy.of_flow_run()} if self.empirical_policy else {})


class NewFlowRun(FlowRunBody):
    """A flow run to create."""

    flow_id: UUID
    state: StateBody | None = None
    deployment_id: UUID | None = None
    context: dict[str, Any] | None = None
    parent_task_run_id: UUID | None = None
    idempotency_key: str | None = None
    work_queue_name: str | None = None


class Resumption(Body):
    """The input for a paused run."""

    run_input: dict[str, Any] | None = None


@endpoint("POST", "/flow_runs/", Scope.PROPOSE)
async def create(call: Call, body: NewFlowRun) -> Reply:
    """Create a flow run, or return the existing run with the idempotency key."""
    state = {"state": body.state.document()} if body.state else {}
    document = commands.CreateFlowRun(**body.columns(), **state)
    made = await commands.create_flow_run(call.batcher, document, call.now, **call.who)
    return Reply(await reading.flow_run(call, made.row.id), 201 if made.created else 200)


@endpoint("GET", "/flow_runs/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a flow run with its state."""
    return await reading.flow_run(call, call.id())


@endpoint("PATCH", "/flow_runs/{id}", Scope.PROPOSE, status=204)
async def update(call: Call, body: FlowRunBody) -> None:
    """Change a flow run."""
    await commands.update_flow_run(call.context, commands.UpdateFlowRun(id=call.id(), **body.columns()))


@endpoint("PATCH", "/flow_runs/{id}/labels", Scope.PROPOSE, status=204)
async def add_labels(call: Call, body: dict[str, Any]) -> None:
    """Add labels to those of a flow run."""
    await commands.add_labels(call.context, call.id(), body)


@endpoint("DELETE", "/flow_runs/{id}", Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a flow run with its task runs and their states."""
    await commands.delete_flow_run(call.context, call.id())


@endpoint("POST", "/flow_runs/{id}/set_state", Scope.PROPOSE)
async def set_state(call: Call, body: SetState) -> Reply:
    """Propose a state for a flow run."""
    request = body.proposal(RunKind.FLOW_RUN, call.id(), **call.who)
    await run_inputs.check_keyset(call.context, request)
    return await decisions.result(call, await decided(call.batcher, request))


@endpoint("POST", "/flow_runs/{id}/resume", Scope.PROPOSE)
async def resume(call: Call, body: Resumption) -> Reply:
    """Resume a paused flow run."""
    # Without an input, the client means an empty one: its schema then says what is missing.
    document = requests.ResumeFlowRun(id=call.id(), run_input=body.run_input or {})
    try:
        answer = await run_inputs.resume(call.batcher, document, **call.who)
    except InvalidInput as error:
        if await _lacks_schema(call):
            raise Unavailable(error.message) from error
        return decisions.rejected(error.message)
    return await decisions.result(call, answer)


async def _lacks_schema(call: Call) -> bool:
    """Return whether a run waits for an input whose schema the client has not stored yet: it does so after the pause.

    The client that resumes the run tries again.
    """
    paused = await current_state(call.context, call.id())
    keys = paused.details.run_input_keyset if paused else None
    return bool(keys) and await input_of(call.context, call.id(), (keys or {}).get("schema", "")) is None
