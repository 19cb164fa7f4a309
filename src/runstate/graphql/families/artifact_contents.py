"""Contents of artifacts: their data, read as their type says."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, cast

import orjson
import strawberry

from runstate.documents import exact_json
from runstate.graphql.context import Info
from runstate.graphql.pagination.raw_rows import as_parsed
from runstate.graphql.published import BlockDocument
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.fields import field, object_type

MOST_ROWS: Final = 1_000
MOST_COLUMNS: Final = 200
"""Each row has a cell for each column, so that few bytes of data can make millions of cells."""
COMPLETE: Final = 100
LINK: Final = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<url>[^()\s]+)\)")
JSON: Any = strawberry.scalars.JSON


@object_type
class Markdown:
    """The content of an artifact of type `markdown`: a text."""

    markdown: str = strawberry.field(description="The text. Show it as Markdown without HTML.")


@object_type
class Link:
    """The content of an artifact of type `link`, or of type `markdown` with nothing but a link."""

    text: str | None = strawberry.field(description="Text of the link; null to show the address.")
    url: str = strawberry.field(description="Address.")


@object_type
class Image:
    """The content of an artifact of type `image`: an address."""

    url: str = strawberry.field(description="Address of the image.")


@object_type
class Progress:
    """The content of an artifact of type `progress`: a number."""

    percent: float = strawberry.field(description="Completed part, from 0 to 100.")


@object_type
class Table:
    """The content of an artifact of type `table`: a list of objects, an object of lists, or a list of lists."""

    columns: list[str] = strawberry.field(
        description="Names of the columns, in the order in which they first appear; of a list of lists, numbers from "
        f"0. At most {MOST_COLUMNS:,}."
    )
    rows: list[list[JSON | None]] = strawberry.field(
        description=f"Values by column; null for a missing one. At most {MOST_ROWS:,} rows."
    )
    row_count: int = strawberry.field(description="Number of rows.")


@object_type
class ResultSerializer:
    """The way in which a result was written."""

    settings: JSON = strawberry.field(description="Its further settings, as they were written.")
    type: str = strawberry.field(
        description="`pickle`, `json`, `compressed/pickle`, `compressed/json`, or another one of the client."
    )


@object_type
class ResultReference:
    """The place of a stored result.

    In JSON: `storage_key`, `storage_block_id`, `serializer`, `expiration`, `prefect_version`.
    """

    client_version: str | None = strawberry.field(description="Version of the client that wrote it.")
    expiration: datetime | None = strawberry.field(description="Time from which it may be gone; null for never.")
    serializer: ResultSerializer = strawberry.field(description="The way in which it was written.")
    storage_block_id: strawberry.ID | None = strawberry.field(
        description="Id of the block document of the storage; null for the default storage of the client."
    )
    storage_key: str = strawberry.field(description="Key or path in the storage.")

    @field
    async def storage_block(self, info: Info) -> BlockDocument | None:
        """The block document of the storage; null for the default storage of the client, or if it is unknown."""
        found: BlockDocument | None = await info.context.load(info, BlockDocument, self.storage_block_id)
        return found


for _content in (Markdown, Link, Image, Progress, Table):
    cast("Any", _content).__strawberry_definition__.name = f"{_content.__name__}Content"


def content_of(kind: str | None, data: Any) -> Any:
    """Return the content of an artifact; None if its type is another one, or if the data does not fit it."""
    read = READERS.get(kind or "")
    if read is None:
        return None
    return read(as_parsed(data))


def _markdown(data: Any) -> Markdown | Link | None:
    if not isinstance(data, str):
        return None
    # Clients of the reference store links as Markdown.
    link = LINK.fullmatch(data.strip())
    return Link(text=link["text"], url=link["url"]) if link else Markdown(markdown=data)


def _link(data: Any) -> Link | None:
    found = _markdown(data)
    if isinstance(found, Link):
        return found
    return Link(text=None, url=found.markdown) if found else None


def _image(data: Any) -> Image | None:
    return Image(url=data) if isinstance(data, str) else None


def _progress(data: Any) -> Progress | None:
    # In Python, booleans are integers.
    is_number = isinstance(data, int | float) and not isinstance(data, bool)
    return Progress(percent=data) if is_number and 0 <= data <= COMPLETE else None


def _table(data: Any) -> Table | None:
    found = _rows(_parsed(data))
    if found is None:
        return None
    count, rows = found
    names = list(dict.fromkeys(name for row in rows for name in row))[:MOST_COLUMNS]
    shown = [[_cell(row.get(name)) for name in names] for row in rows]
    return Table(columns=names, rows=shown, row_count=count)


def _cell(value: Any) -> Any:
    """Return a value of a table; lists and objects as JSON, because parsed they take thirty times the memory."""
    return orjson.Fragment(exact_json.dumps(value)) if isinstance(value, dict | list) else value


def _parsed(data: Any) -> Any:
    try:
        return orjson.loads(data) if isinstance(data, str) else data
    except orjson.JSONDecodeError:
        return None


def _rows(data: Any) -> tuple[int, list[Mapping[str, Any]]] | None:
    """Return the number of rows of a table and its first rows as objects; None if it is not a table."""
    if isinstance(data, dict):
        columns = list(data.values())
        if not all(isinstance(each, list) for each in columns) or len({len(each) for each in columns}) > 1:
            return None
        first = islice(zip(*columns, strict=True), MOST_ROWS)
        return max(map(len, columns), default=0), [dict(zip(data, values, strict=True)) for values in first]
    if isinstance(data, list) and all(isinstance(each, dict) for each in data):
        return len(data), data[:MOST_ROWS]
    if isinstance(data, list) and all(isinstance(each, list) for each in data):
        return len(data), [{str(number): value for number, value in enumerate(each)} for each in data[:MOST_ROWS]]
    return None


def _timestamp(text: Any) -> datetime | None:
    """Return a time with its zone, by default UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def result_of(data: Any) -> ResultReference | None:
    """Return the reference in the data of a state or artifact; None if the data are no object with `storage_key`."""
    data = as_parsed(data)
    if not isinstance(data, dict) or not isinstance(key := data.get("storage_key"), str):
        return None
    block, version, given = data.get("storage_block_id"), data.get("prefect_version"), data.get("serializer")
    settings = dict(given) if isinstance(given, dict) else {"type": given}
    kind = settings.pop("type", None)
    return ResultReference(
        client_version=version if isinstance(version, str) else None,
        expiration=_timestamp(data.get("expiration")),
        serializer=ResultSerializer(settings=settings, type=kind if isinstance(kind, str) else "pickle"),
        storage_block_id=strawberry.ID(block) if isinstance(block, str) and as_uuid(block) else None,
        storage_key=key,
    )


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "markdown": _markdown,
    "link": _link,
    "image": _image,
    "progress": _progress,
    "table": _table,
    "result": result_of,
}
