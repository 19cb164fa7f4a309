"""Artifacts: artifact, artifacts, createArtifact, updateArtifact, deleteArtifact, and the subscription artifact."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import sqlalchemy as sa
import strawberry

from runstate.core.commands import artifacts
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.feed import Feed
from runstate.graphql.context import Info
from runstate.graphql.families.artifact_contents import (
    Image,
    Link,
    Markdown,
    Progress,
    ResultReference,
    Table,
    content_of,
    result_of,
)
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.published import Artifact, ArtifactCollection, State
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, subscription

FAMILY = family(
    Artifact,
    scope=Scope.PROPOSE,
    create=Command(
        artifacts.create_artifact,
        artifacts.CreateArtifact,
        description="Create an artifact. With a key, it becomes the latest of its collection, which is created if "
        "necessary.",
    ),
    update=Command(artifacts.update_artifact, artifacts.UpdateArtifact, (InvalidInput, NotFound)),
    delete=Delete(
        artifacts.delete_artifact,
        "Delete an artifact. The newest remaining one becomes the latest of its collection; without one, the "
        "collection is deleted.",
        scope=Scope.ADMIN,
    ),
)

ArtifactContent = Annotated[
    Image | Link | Markdown | Progress | ResultReference | Table,
    strawberry.union("ArtifactContent", description="The data of an artifact, read as its type says."),
]


@extends(Artifact, needs={"type", "data"}, parses=True)
async def content(root: strawberry.Parent[Artifact]) -> ArtifactContent | None:
    """The data, read as the type says; null for other types, and for data that does not fit the type."""
    found: Image | Link | Markdown | Progress | ResultReference | Table | None = content_of(root.type, root.data)
    return found


@extends(State, needs={"data"}, parses=True)
async def result_reference(root: strawberry.Parent[State]) -> ResultReference | None:
    """The place of the stored result, if `data` is an object with `storage_key`; null if it is the result itself."""
    return result_of(root.data)


@extends(Artifact, needs={"collection_id"})
async def is_latest(root: strawberry.Parent[Artifact], info: Info) -> bool:
    """True if no newer artifact has the same key; also without a key."""
    collection = await info.context.row(ArtifactCollection, root.collection_id, frozenset({"latest_id"}))
    return collection is None or collection.latest_id == root.id


@strawberry.type
class Subscription:
    """An artifact as it changes."""

    @subscription
    async def artifact(self, info: Info, id: Id) -> AsyncGenerator[Artifact | None, None]:
        """The artifact with an id: now, and after each change; null once it is deleted.

        Changes in quick succession are sent as one event.
        """
        return _changes(info, id)


async def _changes(info: Info, id: str) -> AsyncGenerator[Artifact | None, None]:
    key, found = as_uuid(id), None
    if key is not None:
        feed: Feed = info.context.feed
        version = sa.select(Artifact.updated).where(Artifact.id == key)
        async with aclosing(feed.transitions.live.rows(version)) as changes:
            async for _ in changes:
                info.context.forget()
                found = await info.context.load(info, Artifact, key)
                yield found
                if found is None:
                    return
    yield None
