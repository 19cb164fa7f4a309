"""Dates of schedules, computed in a process with limits on time and memory."""

import asyncio
from contextlib import nullcontext
from datetime import datetime
from typing import Final, NamedTuple

import orjson

from runstate.core.validation.process import BoundedProcess
from runstate.documents.schedules import DateShift, RRuleSchedule, Schedule, ScheduledDate
from runstate.errors import InvalidInput

FEW: Final = 4
"""Maximum number of patient requests that wait for the process at a time."""
MOST_VALID: Final = 1_000
"""Number of valid schedules that are remembered."""
LONGEST_VALID: Final = 1_000
"""Bytes of the largest one."""
TOO_MUCH: Final = "The dates of the schedule take too much time or memory to compute."
NO_DATES: Final = "The schedule has no dates in the next 100 years."


class Dates(NamedTuple):
    """Dates of a schedule."""

    dates: list[ScheduledDate]
    has_more: bool


class Calendar(BoundedProcess):
    """The dates of schedules."""

    module = "runstate.core.scheduling.worker"

    def __init__(self) -> None:
        super().__init__()
        self.few = asyncio.Semaphore(FEW)
        self.valid: dict[bytes, None] = {}
        """Schedules that were valid, as JSON: many deployments have equal ones, and a valid one stays valid."""

    async def dates(
        self,
        schedule: Schedule,
        path: tuple[str, ...],
        after: datetime,
        *,
        until: datetime | None = None,
        first: int,
        patient: bool = False,
    ) -> Dates:
        """Return the first dates from `after` to `until`, both inclusive.

        Raise InvalidInput if the schedule is invalid or will never have a date; `path` is where the input has it. A
        recurrence rule that has ended is valid. With `patient`, for lists of schedules, only a few wait at a time.
        """
        asked = {"schedule": schedule.model_dump(mode="json"), "after": after, "until": until, "first": first}
        # One process computes for all: a list of many schedules must not keep a mutation waiting.
        async with self.few if patient else nullcontext():
            answer = orjson.loads(await self.ask(orjson.dumps(asked)) or b"{}")
        if "dates" not in answer:
            field = (_camel(answer["field"]),) if answer else ()
            raise InvalidInput(answer.get("error", TOO_MUCH), (*path, schedule.kind, *field))
        found = [
            ScheduledDate(date=datetime.fromisoformat(date), local=local, shifted=shift and DateShift(shift))
            for date, local, shift in answer["dates"]
        ]
        if not found and until is None and not isinstance(schedule, RRuleSchedule):
            raise InvalidInput(NO_DATES, (*path, schedule.kind))
        return Dates(found[:first], has_more=len(found) > first)

    async def check(self, schedule: Schedule, path: tuple[str, ...], now: datetime) -> None:
        """Raise InvalidInput as `dates` does."""
        key = schedule.model_dump_json().encode()
        if key in self.valid:
            return
        await self.dates(schedule, path, now, first=1)
        if len(self.valid) >= MOST_VALID:
            # Simpler than forgetting the oldest, and rare.
            self.valid.clear()
        if len(key) <= LONGEST_VALID:
            self.valid[key] = None


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
