"""The workspace: the names of a server."""

from pydantic import Field

from runstate.documents.base import Changes, DashSlug, LongText, ShortText


class UpdateWorkspace(Changes):
    """Changes to the workspace. Omitted fields keep their value."""

    account_handle: DashSlug | None = Field(default=None, description="Handle of the account: a-z, 0-9, `-`.")
    account_name: ShortText | None = Field(default=None, description="Name of the account, for people.")
    description: LongText | None = Field(default=None, description="Description for people.")
    workspace_handle: DashSlug | None = Field(default=None, description="Handle of the workspace: a-z, 0-9, `-`.")
    workspace_name: ShortText | None = Field(default=None, description="Name of the workspace, for people.")
