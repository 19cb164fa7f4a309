"""What every document has in common, and the texts and values that documents are made of."""

import re
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST_JSON_BYTES = 512 * 1024
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Document(BaseModel):
    """A value without identity: frozen, and strict about the keys it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


def storable_text(text: str) -> str:
    """A text that every database can keep: no NUL character, no half of a surrogate pair."""
    if "\0" in text:
        raise ValueError("the NUL character cannot be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair cannot be stored") from None
    return text


def storable_json(value: Any) -> Any:
    """A JSON value that every database can keep, of at most 512 KiB."""
    try:
        written = orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON that can be stored: {error}") from None
    if len(written) > LARGEST_JSON_BYTES:
        raise ValueError(f"{len(written):,} bytes of JSON are more than the {LARGEST_JSON_BYTES:,} that are stored")
    if NUL.search(written):
        raise ValueError("the NUL character cannot be stored")
    return value


Text = Annotated[str, AfterValidator(storable_text)]
Name = Annotated[str, AfterValidator(storable_text), Field(min_length=1, max_length=255)]
LongText = Annotated[str, AfterValidator(storable_text), Field(max_length=100_000)]
Tags = Annotated[list[Name], Field(max_length=100)]
JsonValue = Annotated[Any, AfterValidator(storable_json)]
JsonObject = Annotated[dict[str, Any], AfterValidator(storable_json)]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 24 * 3600, allow_inf_nan=False)]
NonNegativeInt = Annotated[int, Field(ge=0, le=2**31 - 1)]
