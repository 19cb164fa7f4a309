"""Documents of blocks: input of the commands that write them, and references to them."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from runstate.documents.base import Changes, DashSlug, Document, JsonObject, ShortText, storable_json

Capabilities = Annotated[list[ShortText], Field(max_length=100)]


class Secret:
    """Data that may contain secrets. Its representation shows nothing, so that no message or trace shows them."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(********)"


def _concealed(value: dict[str, Any]) -> Any:
    return Secret(value)


SecretData = Annotated[JsonObject, AfterValidator(_concealed)]


class CreateBlockSchema(Document):
    """A new block schema."""

    block_type_id: UUID = Field(description="Id of the type.")
    capabilities: Capabilities = Field(default=[], description="Abilities of its blocks; none by default.")
    dry_run: bool = Field(default=False, description="True to compute the checksum only; nothing is written.")
    fields_: Annotated[dict[str, Any], AfterValidator(partial(storable_json, at_most=512 * 1024))] = Field(
        default={}, description="A JSON Schema of the data, at most 512 KiB."
    )
    version: ShortText = Field(default="non-versioned", description="Version for people.")


class CreateBlockDocument(Document):
    """A new block document."""

    block_schema_id: UUID = Field(description="Id of the schema, which decides the type.")
    data: SecretData = Field(
        default={},
        validate_default=True,
        description='An object, at most 512 KiB. `{"$ref": {"block_document_id": …}}` as the value of a key nests a '
        "document.",
    )
    dry_run: bool = Field(default=False, description="True to validate only; nothing is written.")
    is_anonymous: bool = Field(default=False, description="True for a block that a program creates for itself.")
    name: DashSlug | None = Field(
        default=None, description="Name, unique in the type: a-z, 0-9, `-`. Generated for anonymous documents."
    )
    validate_: bool = Field(
        default=False, description="True to refuse data that do not conform to the fields of the schema."
    )


class UpdateBlockDocument(Changes):
    """Changes to a block document. A mask in place of a secret leaves the secret unchanged."""

    id: UUID = Field(description="Id of the document.")
    block_schema_id: UUID | None = Field(default=None, description="Id of another schema of the same type.")
    data: SecretData | None = Field(default=None, description="Values by key; each replaces all that is below its key.")
    merge: bool = Field(default=True, description="False to remove the keys that `data` omits.")
    validate_: bool = Field(
        default=False, description="True to refuse data that do not conform to the fields of the schema."
    )


class BlockDocumentName(Document):
    """A block type and the name of a document."""

    block_type_slug: str = Field(description="Slug of the type.")
    name: str = Field(description="Name of the document.")


class BlockDocumentRef(Document):
    """A block document, by id or by type and name. Exactly one must be set."""

    id: UUID | None = Field(default=None, description="The document with this id.")
    name: BlockDocumentName | None = Field(default=None, description="The document of a type with this name.")


class BlockSchemaVersion(Document):
    """A checksum and a version."""

    checksum: str = Field(description="The checksum.")
    version: str = Field(description="The version.")


class BlockSchemaRef(Document):
    """A block schema, by id, by checksum, or by checksum and version. Exactly one must be set."""

    id: UUID | None = Field(default=None, description="The schema with this id.")
    checksum: str | None = Field(default=None, description="The newest schema with this checksum.")
    checksum_and_version: BlockSchemaVersion | None = Field(
        default=None, description="The newest schema with this checksum and version."
    )
