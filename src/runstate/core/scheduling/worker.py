"""The process that computes the dates of schedules."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice, takewhile
from typing import Any

import orjson

from runstate.core.scheduling.dates import Date, ScheduleError, dates
from runstate.core.scheduling.zones import zone_of
from runstate.core.validation.serving import serve


def answer(request: bytes) -> bytes:
    """Return the dates from `after` to `until`, at most `first` and one more; or the error, with the field."""
    asked = orjson.loads(request)
    try:
        found = [_written(each, asked["schedule"]["time_zone"]) for each in islice(_dates(asked), asked["first"] + 1)]
    except ScheduleError as error:
        return orjson.dumps({"error": str(error), "field": error.field})
    return orjson.dumps({"dates": found})


def _dates(asked: dict[str, Any]) -> Iterator[Date]:
    found = dates(asked["schedule"], datetime.fromisoformat(asked["after"]))
    if (given := asked["until"]) is None:
        return found
    until = datetime.fromisoformat(given)
    return takewhile(lambda date: date.instant <= until, found)


def _written(date: Date, zone: str) -> tuple[datetime, str, str | None]:
    return date.instant, date.instant.astimezone(zone_of(zone)).isoformat(), date.shift


if __name__ == "__main__":
    serve(answer)
