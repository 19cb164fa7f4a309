"""The states of runs, numbered: pure functions from rows of the reference to rows of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from pydantic import ValidationError

from runstate.core.states import is_persisted, is_unpersisted
from runstate.documents.access import IMPORT
from runstate.documents.states import FINAL_TYPES, StateDetails, StateType
from runstate.imports.table import Columns, Raw
from runstate.imports.values import instant, json, state_type, text, uuid

DETAILS: Final = frozenset(StateDetails.model_fields)
NO_DETAILS: Final = StateDetails()
VALIDATE: Final = StateDetails.__pydantic_validator__.validate_python

Remark = Callable[[str, object], None]
"""Notes a text about a row."""


def details_of(value: Any, remark: Remark, name: object) -> StateDetails:
    """Return the details of a state. Members that do not fit are left out."""
    given = json(value) or {}
    # The reference stores all members, most of them empty; defaults are not stored here.
    found = {key: each for key, each in given.items() if each is not None and each is not False and key in DETAILS}
    if given.get("retriable") is False:
        # The one member for which false differs from its absence.
        found["retriable"] = False
    if not found:
        return NO_DETAILS
    try:
        return VALIDATE(found)  # type: ignore[no-any-return]
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
        remark(f"imported without {', '.join(sorted(wrong))} in the details, whose value does not fit", name)
        return StateDetails.model_validate({key: each for key, each in found.items() if key not in wrong})


def state_row(raw: Raw, run_id: UUID, remark: Remark) -> Columns:
    """Return a state without its version."""
    own = json(raw["data"])
    data = json(raw["artifact_data"]) if own is None else own
    kept = None if is_unpersisted(data) else data
    names = (raw["artifact_key"], raw["artifact_type"], raw["artifact_description"])
    return {
        "id": uuid(raw["id"]),
        "created": instant(raw["created"]),
        "updated": instant(raw["updated"]),
        "run_id": run_id,
        "type": state_type(raw["type"]),
        "name": text(raw["name"]),
        "message": None if raw["message"] is None else text(raw["message"]),
        "timestamp": instant(raw["timestamp"]),
        # Versions follow when all states of the run are known.
        "version": 0,
        "data": kept,
        "details": details_of(raw["state_details"], remark, raw["id"]),
        "persisted": is_persisted(data),
        # `runstate verify` knows by it that the state has no entry in the log.
        "actor": IMPORT,
        "request_id": None,
        "decision_record": None,
        "artifact_id": uuid(raw["result_artifact_id"]) if any(names) else None,
    }


def numbered(states: list[Columns], current: UUID | None, remark: Remark) -> list[Columns]:
    """Return the states of a run in the order of their versions: by time, and the current one last.

    The reference can make a state current that is older than others. Times never go back here, so it gets theirs.
    """
    # The id decides between equal times, so that a second import gives the same versions.
    ordered = sorted(states, key=lambda each: (each["id"] == current, each["timestamp"], each["id"]))
    last: datetime | None = None
    for version, state in enumerate(ordered, 1):
        if last is not None and state["timestamp"] < last:
            remark("imported with the time of the state before it, because it was older", state["id"])
            state["timestamp"] = last
        last, state["version"] = state["timestamp"], version
    return ordered


def lost_state(raw: Raw, run_id: UUID, at: datetime) -> Columns:
    """Return the current state of a run whose states are lost, as far as the run tells it."""
    lost = (
        "data",
        "message",
        "state_details",
        "artifact_data",
        "artifact_key",
        "artifact_type",
        "artifact_description",
    )
    since = instant(raw["state_timestamp"]) if raw["state_timestamp"] else at
    # Derived from the id of the run, so that a second import finds it.
    state = {"id": raw["state_id"] or uuid5(run_id, "state"), "type": raw["state_type"], "timestamp": since}
    name = raw["state_name"] or str(raw["state_type"]).capitalize()
    known = {**raw, **dict.fromkeys(lost), **state, "name": name, "result_artifact_id": None}
    return state_row(known, run_id, lambda *_: None)


def entered(run: Columns, states: Sequence[Columns]) -> Columns:
    """Return the columns of a run that follow from its states."""
    last = states[-1] if states else {"id": None, "type": None, "name": None, "timestamp": None, "version": 0}
    is_final = last["type"] in FINAL_TYPES
    return {
        "state_id": last["id"],
        "state_type": last["type"],
        "state_name": last["name"],
        "state_timestamp": last["timestamp"],
        "version": last["version"],
        "end_time": (run["end_time"] or last["timestamp"]) if is_final else None,
        "next_scheduled_start_time": run["next_scheduled_start_time"] if last["type"] is StateType.SCHEDULED else None,
    }


def by_run(raws: Sequence[Raw], column: str) -> Iterator[tuple[UUID, list[Raw]]]:
    """Yield the states of each run; they are ordered by run."""
    group: list[Raw] = []
    for raw in raws:
        if group and group[0][column] != raw[column]:
            yield uuid(group[0][column]), group
            group = []
        group.append(raw)
    if group:
        yield uuid(group[0][column]), group
