"""The workspace: workspace, updateWorkspace."""

from typing import Annotated, Any, Self

import strawberry

from runstate.core.commands.workspaces import read_workspace, update_workspace
from runstate.documents.access import Scope
from runstate.documents.workspaces import UpdateWorkspace
from runstate.errors import InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.types.fields import object_type, query
from runstate.graphql.types.inputs import Input


@object_type
class Workspace:
    """The names of this server: one server is one workspace of one account."""

    account_handle: str = strawberry.field(description="Handle of the account: a-z, 0-9, `-`; `local` by default.")
    account_id: strawberry.ID = strawberry.field(description="Id of the account, created with the database.")
    account_name: str = strawberry.field(description="Name of the account, for people.")
    api_url: str = strawberry.field(
        description="URL of the API: RUNSTATE_PUBLIC_URL, or else the address that the client used."
    )
    description: str = strawberry.field(description="Description for people.")
    handle: str = strawberry.field(description="`accountHandle/workspaceHandle`.")
    ui_url: str = strawberry.field(description="URL of the live page.")
    workspace_handle: str = strawberry.field(
        description="Handle of the workspace: a-z, 0-9, `-`; `default` by default."
    )
    workspace_id: strawberry.ID = strawberry.field(description="Id of the workspace, created with the database.")
    workspace_name: str = strawberry.field(description="Name of the workspace, for people.")

    @classmethod
    def of(cls, names: Any, url: str) -> Self:
        """Return the workspace with these names and ids, at a URL."""
        handle = f"{names['account_handle']}/{names['workspace_handle']}"
        return cls(**names, handle=handle, api_url=f"{url}/graphql", ui_url=f"{url}/")


UpdateWorkspacePayload: Any = payload(
    "UpdateWorkspacePayload", "The updated workspace.", workspace=(Workspace, "The workspace as written.")
)
Changed = Annotated[Input[UpdateWorkspace], strawberry.argument(description="The names to change.")]


@strawberry.type
class Query:
    """The workspace."""

    @query
    async def workspace(self, info: Info) -> Workspace:
        """The names of this server."""
        async with info.context.database.read() as connection:
            return Workspace.of(await read_workspace(connection), info.context.find_url())


@strawberry.type
class Mutation:
    """The workspace."""

    @mutation(Scope.ADMIN, InvalidInput, returns=UpdateWorkspacePayload)
    async def update_workspace(self, info: Info, input: Changed) -> Any:
        """Update the names of this server. Omitted fields keep their value."""
        names = await update_workspace(info.context.commands, input.checked())
        return UpdateWorkspacePayload(workspace=Workspace.of(names, info.context.find_url()))
