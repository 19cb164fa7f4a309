"""Settings in the database: configuration, setConfiguration, deleteConfiguration."""

from functools import partial
from typing import Annotated, Any

import strawberry

from runstate.core.commands import configurations
from runstate.documents.access import Scope
from runstate.errors import InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.family import Delete, Family, deletion
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.published import Configuration
from runstate.graphql.types.fields import query
from runstate.graphql.types.inputs import Input

SetConfigurationPayload: Any = payload(
    "SetConfigurationPayload", "The setting as written.", configuration=(Configuration, "The setting.")
)
FAMILY = Family(
    Configuration,
    {},
    {"delete_configuration": deletion(Configuration, Delete(configurations.delete_configuration), Scope.ADMIN)},
)
Key = Annotated[str, strawberry.argument(description="The key.")]
New = Annotated[Input[configurations.SetConfiguration], strawberry.argument(description="The setting.")]


@strawberry.type
class Query:
    """Settings."""

    @partial(query, scope=Scope.ADMIN)
    async def configuration(self, info: Info, key: Key) -> Configuration | None:
        """The setting with a key; null if the key is unknown. It is read anew each time."""
        return await info.context.named(info, Configuration, "key", key)


@strawberry.type
class Mutation:
    """Settings."""

    @mutation(Scope.ADMIN, InvalidInput, returns=SetConfigurationPayload)
    async def set_configuration(self, info: Info, input: New) -> Any:
        """Create or replace a setting."""
        return SetConfigurationPayload(
            configuration=await configurations.set_configuration(info.context.commands, input.checked())
        )
