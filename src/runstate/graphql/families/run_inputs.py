"""Run inputs: createFlowRunInput, deleteFlowRunInput, and the inputs of a flow run."""

from runstate.core.commands import run_inputs
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.families.family import Command, Delete, Family, creation, deletion
from runstate.graphql.published import FlowRunInput

CREATE = Command(
    run_inputs.create_input,
    run_inputs.CreateFlowRunInput,
    (InvalidInput, NotFound),
    "Create an input of a flow run, or return the existing input with this key unchanged.",
)
FAMILY = Family(
    FlowRunInput,
    {},
    {
        "create_flow_run_input": creation(FlowRunInput, CREATE, Scope.PROPOSE),
        "delete_flow_run_input": deletion(FlowRunInput, Delete(run_inputs.delete_input), Scope.PROPOSE),
    },
)
