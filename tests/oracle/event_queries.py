"""Recorded scenarios of events as operations of this server: appending, pages, counts, history."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid4, uuid5

from tests.client import Ask

BEGIN: Final = datetime(2026, 3, 2, tzinfo=UTC)
RESOURCE: Final = "{ resourceId role name labels }"
EMIT: Final = """mutation($input: EmitEventsInput!) { r: emitEvents(input: $input) {
  __typename ... on InvalidInput { path } } }"""
PAGE: Final = """query($where: EventWhere, $by: [EventOrderBy!], $first: Int, $one: Boolean! = false) {
  r: events(where: $where, orderBy: $by, first: $first, onePerResource: $one) { totalCount nodes { id } } }"""
COUNTS: Final = """query($where: EventWhere, $by: EventCountBy!) {
  r: eventCounts(where: $where, by: $by) { value label count first last } }"""
HISTORY: Final = """query($where: EventWhere, $since: DateTime!, $until: DateTime!, $seconds: Float!) {
  r: eventHistory(where: $where, since: $since, until: $until, intervalSeconds: $seconds) { start end count } }"""
NAMES: Final = [
    *("order.placed", "order.paid", "order.paid.twice", "order", "orders.placed", "user.signed-in", "user.signed_in"),
    *("Größe.geändert", "runstate.flow-run.Completed", "runstate.flow-run.Failed", "runstate.flow-run.Running"),
    *("runstate.task-run.Completed", "a%b", "a_b", "a*b"),
]
OWN: Final = {"resource.id": "resourceId", "resource.name": "name", "resource.role": "role"}


def at(seconds: float) -> str:
    """Return the time that is some seconds after the beginning."""
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def since_begin(moment: str) -> float:
    """Return the seconds from the beginning to a time."""
    return round((datetime.fromisoformat(moment) - BEGIN).total_seconds(), 3)


def resource(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded labels as a resource."""
    given: dict[str, Any] = {"resourceId": labels.get("resource.id")}
    given |= {name: labels[key] for key, name in OWN.items() if key in labels}
    further = {key: value for key, value in labels.items() if key not in OWN}
    return given | ({"labels": further} if further else {})


def seed() -> list[dict[str, Any]]:
    """Return the recorded set of 160 events, which a generator with a fixed seed makes."""
    rnd = random.Random(7)
    return [_seeded(rnd, place) for place in range(160)]


def _seeded(rnd: random.Random, place: int) -> dict[str, Any]:
    # The calls of the generator must have the order of the recording.
    kind = rnd.choice(["order", "order", "user", "flow-run"])
    labels = {"resource.id": f"{kind}.{rnd.randint(1, 12)}"}
    if rnd.random() < 0.6:
        labels["env"] = rnd.choice(["prod", "test", "production", "pre_prod"])
    if rnd.random() < 0.5:
        labels["resource.name"] = rnd.choice(["alpha", "beta", "beta max", "Größe", "100%"])
    if rnd.random() < 0.3:
        labels["region"] = rnd.choice(["eu", "us", ""])
    related = [_related(rnd) for _ in range(rnd.choice([0, 0, 1, 2, 3]))]
    when = [place * 5400 + 17, place * 61 + 7.25, place * 86400 * 0.7 + 3][place % 3] + place * 0.001
    payloads: list[Any] = [{}, {"amount": place}, {"note": "Connection timeout in step 3"}]
    payloads += [{"nested": {"reason": "disk full", "list": [1, 2]}}, {"text": "käse und brot"}]
    name = rnd.choice(NAMES)
    payload = rnd.choice(payloads)
    its = {"id": str(uuid5(NAMESPACE_OID, str(place))), "name": name, "occurred": at(round(when, 3))}
    return {**its, "resource": resource(labels), "related": list(map(resource, related)), "payload": payload}


def _related(rnd: random.Random) -> dict[str, str]:
    role = rnd.choice(["flow", "tag", "deployment", "tag"])
    labels = {"resource.role": role, "resource.id": f"{role}.{rnd.randint(1, 5)}"}
    if rnd.random() < 0.4:
        labels["resource.name"] = rnd.choice(["etl", "report", "nightly"])
    if rnd.random() < 0.3:
        labels["team"] = rnd.choice(["red", "blue"])
    return labels


def where(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded condition."""
    parts = [part for key, value in given.items() if key in CONDITIONS for part in CONDITIONS[key](value)]
    bounds = {name: at(given[key]) for key, name in (("since", "gte"), ("until", "lte")) if key in given}
    return {"and": [*parts, *([{"occurred": bounds}] if bounds else [])]}


def _starts(values: list[str]) -> dict[str, Any]:
    return {"or": [{"name": {"startsWith": each}} for each in values]}


def _resource_where(given: Mapping[str, Any]) -> dict[str, Any]:
    labels = [{"label": label, "values": values} for label, values in given.get("labels", {}).items()]
    ids = {name: {"in": given[key]} for key, name in (("id", "resourceId"), ("role", "role")) if key in given}
    return ids | ({"labels": labels} if labels else {})


def _resource(given: Mapping[str, Any], member: str = "resource") -> list[dict[str, Any]]:
    starts = [{member: {"resourceId": {"startsWith": each}}} for each in given.get("id_prefix", ())]
    own = _resource_where(given)
    return ([{member: own}] if own else []) + ([{"or": starts}] if "id_prefix" in given else [])


def _related_where(given: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        _in_roles(each["resources_in_roles"]) if "resources_in_roles" in each else _some(_resource_where(each))
        for each in given
    ]


def _some(own: dict[str, Any]) -> dict[str, Any]:
    return {"related": {"some": own}}


def _in_roles(pairs: list[list[str]]) -> dict[str, Any]:
    return {"or": [_some({"resourceId": {"eq": key}, "role": {"eq": role}}) for key, role in pairs]}


CONDITIONS: Final[dict[str, Callable[[Any], list[dict[str, Any]]]]] = {
    "prefix": lambda values: [_starts(values)],
    "exclude_prefix": lambda values: [{"not": _starts(values)}],
    "name": lambda values: [{"name": {"in": values}}],
    "exclude_name": lambda values: [{"name": {"notIn": values}}],
    "id": lambda places: [{"id": {"in": [str(uuid5(NAMESPACE_OID, str(each))) for each in places]}}],
    "text": lambda text: [{"text": text}] if text.strip() else [],
    "resource": _resource,
    "related": _related_where,
    "any_resource": lambda given: [part for each in given for part in _resource(each, "anyResource")],
}


async def answer(ask: Ask, step: Mapping[str, Any]) -> Any:
    """Return the answer to a step in the form of the recording."""
    return await OPERATIONS[step["op"]](ask, step)


async def _emit(ask: Ask, step: Mapping[str, Any]) -> dict[str, Any]:
    event = step["event"]
    given = {"id": str(uuid4()), "occurred": at(0)} | event
    given |= {"resource": resource(event["resource"]), "related": list(map(resource, event["related"]))}
    body = await ask.raw(EMIT, input={"events": [given]})
    return {"accepted": not body.get("errors") and body["data"]["r"]["__typename"] == "EmitEventsPayload"}


async def _events(ask: Ask, step: Mapping[str, Any]) -> dict[str, Any]:
    given = step["where"]
    by, one = [{"occurred": given.get("order", "desc").upper()}], given.get("resource", {}).get("distinct", False)
    found = (await ask(PAGE, where=where(given), by=by, first=given.get("limit", 50), one=one))["r"]
    places = {each["id"]: place for place, each in enumerate(seed())}
    return {"events": [places[each["id"]] for each in found["nodes"]], "total": found["totalCount"]}


async def _counts(ask: Ask, step: Mapping[str, Any]) -> list[dict[str, Any]]:
    by = {"event": "NAME", "resource": "RESOURCE"}[step["by"]]
    found = (await ask(COUNTS, where=where(step["where"]), by=by))["r"]
    rows = [{**each, "first": since_begin(each["first"]), "last": since_begin(each["last"])} for each in found]
    return sorted(rows, key=lambda each: (-each["count"], each["value"]))


async def _history(ask: Ask, step: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(step["where"])
    span = {"since": at(given.pop("since")), "until": at(given.pop("until")), "seconds": step["seconds"]}
    body = await ask.raw(HISTORY, where=where(given), **span)
    if body.get("errors"):
        return {"refused": True}
    found = [
        {**each, "start": since_begin(each["start"]), "end": since_begin(each["end"])} for each in body["data"]["r"]
    ]
    listed = [each for each in found if each["count"]] if len(found) > 60 else found
    return {"intervals": len(found), "listed": listed}


OPERATIONS: Final[dict[str, Callable[[Ask, Mapping[str, Any]], Any]]] = {
    "emit": _emit,
    "events": _events,
    "event_counts": _counts,
    "event_history": _history,
}
