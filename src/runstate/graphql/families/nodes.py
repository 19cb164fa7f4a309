"""Objects of any type by id: node, nodes."""

from typing import Annotated

import strawberry

from runstate.errors import LimitExceeded
from runstate.graphql.context import Info
from runstate.graphql.published import Row
from runstate.graphql.types.fields import Id, query

MOST_IDS = 1000
Ids = Annotated[
    list[strawberry.ID], strawberry.argument(description=f"Ids, at most {MOST_IDS}; a malformed id is unknown.")
]


@strawberry.type
class Query:
    """Objects of any type by id: node, nodes."""

    @query
    async def node(self, info: Info, id: Id) -> Row | None:
        """The object with an id, of any type; null if the id is unknown."""
        return await info.context.node(info, id)

    @query
    async def nodes(self, info: Info, ids: Ids) -> list[Row | None]:
        """The objects with these ids, in the order of the ids; null in the place of an unknown id."""
        if len(ids) > MOST_IDS:
            raise LimitExceeded("listItems", MOST_IDS, len(ids))
        return await info.context.nodes(info, ids)
