"""Collections of artifacts: artifactCollection, artifactCollections."""

from runstate.graphql.families.family import Family, by_reference
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import ArtifactCollection

FAMILY = Family(
    ArtifactCollection,
    {
        "artifact_collection": by_reference(ArtifactCollection, "key"),
        "artifact_collections": rows_of(
            ArtifactCollection, "All collections that meet a condition, each with its latest artifact; newest first."
        ),
    },
    {},
)
