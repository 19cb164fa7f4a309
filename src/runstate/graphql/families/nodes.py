"""Anything that has an id."""

from typing import Annotated

import strawberry

from runstate.errors import BadUserInput
from runstate.graphql.context import Info
from runstate.graphql.published import Row
from runstate.graphql.types.fields import Id, query

MOST_IDS = 1000
Ids = Annotated[
    list[strawberry.ID], strawberry.argument(description=f"At most {MOST_IDS} ids; a malformed one finds nothing.")
]


@strawberry.type
class Query:
    """Anything that has an id."""

    @query
    async def node(self, info: Info, id: Id) -> Row | None:
        """The object with an id, of whatever type."""
        return await info.context.node(info, id)

    @query
    async def nodes(self, info: Info, ids: Ids) -> list[Row | None]:
        """The objects with these ids, each in the place of its id; null where there is none."""
        if len(ids) > MOST_IDS:
            raise BadUserInput(f"At most {MOST_IDS} ids are looked up at once.")
        return await info.context.nodes(info, ids)
