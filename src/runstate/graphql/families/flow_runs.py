"""Flow runs: flowRun, flowRuns, createFlowRun, runFlow, updateFlowRun, deleteFlowRun."""

from typing import Annotated, Any

import strawberry

from runstate.core.commands import flow_runs
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Info
from runstate.graphql.families.family import Command, Delete, Family, by_id, change, deletion
from runstate.graphql.families.mutations import CREATED, actor, mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import FlowRun
from runstate.graphql.types.inputs import Input

CreateFlowRunPayload: Any = payload(
    "CreateFlowRunPayload",
    "The flow run, new or existing.",
    flow_run=(FlowRun, "The flow run."),
    created=(bool, CREATED),
)
UPDATE = Command(flow_runs.update_flow_run, flow_runs.UpdateFlowRun, (InvalidInput, NotFound), scope=Scope.PROPOSE)
DELETE = Delete(
    flow_runs.delete_flow_run, "Delete a flow run with its states, task runs and inputs. Their slots are released."
)
FAMILY = Family(
    FlowRun,
    {
        "flow_run": by_id(FlowRun),
        "flow_runs": rows_of(FlowRun, "All flow runs that meet a condition; newest first by default."),
    },
    {
        "update_flow_run": change(FlowRun, UPDATE, Scope.PROPOSE),
        "delete_flow_run": deletion(FlowRun, DELETE, Scope.ADMIN),
    },
)
NEW = strawberry.argument(description="Fields of the new flow run.")


@strawberry.type
class Mutation:
    """Creation of flow runs."""

    @mutation(Scope.PROPOSE, NotFound, InvalidInput, returns=CreateFlowRunPayload)
    async def create_flow_run(self, info: Info, input: Annotated[Input[flow_runs.CreateFlowRun], NEW]) -> Any:
        """Create a flow run.

        An existing run of the flow with the same idempotency key is returned, and the rest of the input is ignored.
        """
        document, context = input.checked(), info.context
        written = await flow_runs.create_flow_run(context.batcher, document, context.now, **actor(info))
        return CreateFlowRunPayload(flow_run=written.row, created=written.created)

    @mutation(Scope.PROPOSE, NotFound, InvalidInput, returns=CreateFlowRunPayload, result="CreateFlowRunResult")
    async def run_flow(self, info: Info, input: Annotated[Input[flow_runs.RunFlow], NEW]) -> Any:
        """Create a flow run as createFlowRun does. The flow is named, and can be created with its first run."""
        document, context = input.checked(), info.context
        written = await flow_runs.run_flow(context.batcher, document, context.now, **actor(info))
        return CreateFlowRunPayload(flow_run=written.row, created=written.created)
