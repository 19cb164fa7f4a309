"""The base of all documents, and the validated types of their members."""

import functools
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from runstate.documents.exact_json import dumps

LARGEST_JSON_BYTES = 512 * 1024
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

READ_ONLY: Final[dict[str, Any]] = {"readOnly": True}
"""`json_schema_extra` of a member that the server sets: answers have it, inputs do not."""


class Document(BaseModel):
    """A value without identity: frozen, and strict about the keys it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Changes(Document):
    """The input of an update: omitted fields keep their value, and null is a value of nullable fields only."""


def is_kind(annotation: Any) -> bool:
    """Whether a member is a constant text, which tells the documents of a union apart."""
    return get_origin(annotation) is Literal and list(map(type, get_args(annotation))) == [str]


def is_read_only(field: FieldInfo) -> bool:
    """Whether the server sets a member."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("readOnly") is True


@functools.cache
def omits_defaults(annotation: Any) -> bool:
    """Whether values of a type are stored without the members that are at their defaults.

    Not if a member tells kinds apart, or has a computed default: what is read would be another value.
    """
    return not any(_is_kept(part) for part in _parts(TypeAdapter(annotation).core_schema))


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
    inner = schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list | tuple) else ()
    for part in inner:
        yield from _parts(part)


def _is_kept(part: Mapping[str, Any]) -> bool:
    kind = part.get("type") == "literal" and list(map(type, part["expected"])) == [str]
    return kind or "default_factory" in part


def storable_text(text: str) -> str:
    """A text that every database can keep: no NUL character, no half of a surrogate pair."""
    if "\0" in text:
        raise ValueError("the NUL character cannot be stored")
    # ASCII has no surrogates, and most texts are ASCII.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair cannot be stored") from None
    return text


def storable_json(value: Any, *, at_most: int = LARGEST_JSON_BYTES) -> Any:
    """Return a JSON value that every database can store. Raise ValueError if it is larger than `at_most` bytes."""
    try:
        written = dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the value is not JSON that can be stored: {error}") from None
    if len(written) > at_most:
        raise ValueError(f"the value has {len(written):,} bytes of JSON; at most {at_most:,} are stored")
    # In the written text each NUL is an escape sequence, however deep it is nested.
    if NUL.search(written):
        raise ValueError("the NUL character cannot be stored")
    return value


def without_duplicates(values: list[Any]) -> list[Any]:
    """Return the values in their order, each once."""
    # Not a set: the order of tags is kept.
    return list(dict.fromkeys(values))


LONGEST_SHORT_TEXT: Final = 500


def shortened(texts: dict[str, str]) -> dict[str, str]:
    """Return texts by key, cut off after 500 characters, with three dots at the end of those that were longer."""
    return {
        key: text if len(text) <= LONGEST_SHORT_TEXT else text[:LONGEST_SHORT_TEXT] + "..."
        for key, text in texts.items()
    }


def not_null(value: Any) -> Any:
    """Return the value of a field that may be omitted but not null."""
    if value is None:
        raise PydanticCustomError("null", "null is not allowed; omit the field to keep its value")
    return value


Text = Annotated[str, AfterValidator(storable_text)]
Name = Annotated[str, AfterValidator(storable_text), Field(min_length=1, max_length=255)]
ShortText = Annotated[str, AfterValidator(storable_text), Field(max_length=255)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=255)]
DashSlug = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=255)]
LongText = Annotated[str, AfterValidator(storable_text), Field(max_length=100_000)]
Tags = Annotated[list[Name], Field(max_length=100), AfterValidator(without_duplicates)]
RepeatedTags = Annotated[list[Name], Field(max_length=100)]
"""Tags that are kept as they are, even if one occurs twice."""
JsonValue = Annotated[Any, AfterValidator(storable_json)]
SmallJsonValue = Annotated[Any, AfterValidator(partial(storable_json, at_most=5_000))]
ShortTexts = Annotated[dict[str, str], AfterValidator(shortened), AfterValidator(storable_json)]
JsonObject = Annotated[dict[str, Any], AfterValidator(storable_json)]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 24 * 3600, allow_inf_nan=False)]
HeartbeatSeconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]
PerSecond = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
NonNegativeInt = Annotated[int, Field(ge=0, le=2**31 - 1)]
