"""Flows: flow, flows, createFlow, updateFlow, deleteFlow."""

from runstate.core.commands import flows
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.published import Flow

FAMILY = family(
    Flow,
    scope=Scope.ADMIN,
    lookup="name",
    create=Command(
        flows.create_flow,
        flows.CreateFlow,
        description="Create a flow, or return the existing flow with this name unchanged.",
        scope=Scope.PROPOSE,
    ),
    update=Command(flows.update_flow, flows.UpdateFlow, (InvalidInput, NameTaken, NotFound)),
    delete=Delete(flows.delete_flow, "Delete a flow with its runs, and its deployments with their limits."),
)
