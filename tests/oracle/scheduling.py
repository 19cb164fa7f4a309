"""Plays recorded scenarios of deployments, schedules, pools, queues, workers and claims over HTTP.

A step has an operation (`op`) and the recorded answer (`expect`). Names in it are aliases of objects; `{n}` stands for
a word that is new in each play. Times are seconds from the beginning of the scenario, `{"in": 60}`, or instants.
Answers are `refused` (with `at`: the field), `taken`, `missing`, or the fields of an object.
"""

import json
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from tests.client import Ask
from tests.oracle.comparison import Differs
from tests.oracle.recording import Scenario

Step = dict[str, Any]
Answer = dict[str, Any]
Operation = Callable[["Play", Step], Coroutine[Any, Any, Answer | None]]

TOLERANCE_SECONDS = 5
NEAR = timedelta(days=40)
PROBLEM = "... on Problem { code message } ... on InvalidInput { path }"
PROBLEMS: dict[str, Answer] = {
    "InvalidInput": {"refused": True},
    "NotFound": {"missing": True},
    "NameTaken": {"taken": True},
}
OWN_LABELS = ("prefect.", "runstate.")
DOCUMENTS = ("parameters", "parameterSchema", "jobVariables", "labels", "baseJobTemplate", "pullSteps", "storage")
"""Values of clients: keys that were not recorded must not be there."""
OBJECTS = ("pool", "queue", "deployment", "run", "plan")
F = TypeVar("F", bound=Operation)
OPERATIONS: dict[str, Operation] = {}


def operation(function: F) -> F:
    """Register the function for steps with its name."""
    OPERATIONS[function.__name__] = function
    return function


class ProblemError(Exception):
    """A problem in place of a payload."""

    def __init__(self, problem: Answer) -> None:
        super().__init__(str(problem))
        self.problem = problem


def instant(text: str) -> datetime:
    """Return the instant of a text."""
    return datetime.fromisoformat(text)


class Play:
    """A scenario in progress: a word that makes its names unique, and its objects by alias."""

    def __init__(self, ask: Ask, schedule: Callable[[], Coroutine[Any, Any, int]]) -> None:
        self.client = ask
        self.schedule = schedule
        """Runs the scheduler once."""
        self.nonce, self.began = uuid4().hex[:10], datetime.now(UTC)
        self.ids: dict[str, str] = {}
        self.names: dict[str, str] = {}

    async def play(self, scenario: Scenario) -> None:
        """Execute the steps in order and compare each answer with the recorded one."""
        for number, step in enumerate(scenario.steps):
            try:
                answer = await OPERATIONS[step["op"]](self, dict(step)) or {}
            except ProblemError as problem:
                answer = {"problem": problem.problem}
            if "expect" in step and (difference := difference_of(step["expect"], answer)):
                raise Differs(f"step {number} {step['op']}: {difference}")

    async def ask(self, document: str, **variables: Any) -> Any:
        """Return the field `it` of an answer. Raise ProblemError for a problem or an invalid variable."""
        body = await self.client.raw(document, **variables)
        if errors := body.get("errors"):
            if errors[0].get("extensions", {}).get("code") in {"BAD_USER_INPUT", "INVALID_INPUT"}:
                raise ProblemError({"refused": True})
            raise Differs(json.dumps(errors)[:300])
        found = body["data"]["it"]
        if found is None:
            raise ProblemError({"missing": True})
        if problem := PROBLEMS.get(str(found.get("__typename"))):
            raise ProblemError({**problem, "path": found.get("path")})
        return found

    async def mutate(self, mutation: str, selection: str, given: Step, payload: str | None = None) -> Any:
        """Send a mutation with one input; return its payload."""
        name = mutation[0].upper() + mutation[1:]
        fields = f"__typename ... on {payload or name + 'Payload'} {{ {selection} }} {PROBLEM}"
        return await self.ask(
            f"mutation($input: {name}Input!) {{ it: {mutation}(input: $input) {{ {fields} }} }}", input=given
        )

    async def by_id(self, mutation: str, id: str, payload: str = "DeletePayload", selection: str = "deletedId") -> Any:
        """Send a mutation for one object."""
        fields = f"__typename ... on {payload} {{ {selection} }} ... on Problem {{ code message }}"
        return await self.ask(f"mutation($id: ID!) {{ it: {mutation}(id: $id) {{ {fields} }} }}", id=id)

    def id(self, alias: str) -> str:
        """Return the id of an object; for one that was not made, an id of nothing."""
        return self.ids.get(alias) or str(uuid4())

    def alias(self, id: str) -> str:
        """Return the alias of an object."""
        return next((alias for alias, known in self.ids.items() if known == id), "?")

    def named(self, value: Any) -> Any:
        """Return a recorded value with the names of this play."""
        return value.replace("{n}", self.nonce) if isinstance(value, str) else value

    def given(self, step: Step, *names: str) -> Step:
        """Return members of a step with the names of this play."""
        return {name: self.named(step[name]) for name in names if name in step}

    def at(self, given: Any) -> Any:
        """Return a time of the recording as an instant."""
        return (self.began + timedelta(seconds=given)).isoformat() if isinstance(given, int | float) else given

    def time(self, text: str | None) -> Any:
        """Return an instant as a time of the recording."""
        if text is None:
            return None
        since = instant(text) - self.began
        if abs(since) < NEAR:
            return {"in": round(since.total_seconds())}
        return instant(text).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"

    def plain(self, value: Any) -> Any:
        """Return an answer with the names of the recording."""
        if isinstance(value, str):
            known = next((f"<{alias}>" for alias, known in self.ids.items() if value == known), None)
            return known or value.replace(self.nonce, "{n}")
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        return {key: self.plain(each) for key, each in value.items()} if isinstance(value, dict) else value

    def plan_in(self, plan: Step) -> Step:
        """Return the input of a schedule."""
        found = self.given(plan, "active", "maxScheduledRuns", "parameters", "slug", "replaces")
        if "schedule" in plan:
            ((kind, fields),) = plan["schedule"].items()
            found["schedule"] = {
                kind: {**fields, **({"anchor": self.at(fields["anchor"])} if "anchor" in fields else {})}
            }
        return found

    def plans_out(self, rows: Iterable[Any]) -> list[Answer]:
        """Return the schedules of a deployment in one order."""
        return sorted(
            map(self.plan_out, rows),
            key=lambda plan: json.dumps([plan["slug"] or "", plan["schedule"]], sort_keys=True),
        )

    def plan_out(self, row: Any) -> Answer:
        """Return a schedule as it was recorded."""
        rule = {key: value for key, value in row["schedule"].items() if key != "__typename"}
        kind = row["schedule"]["__typename"].removesuffix("Schedule").lower()
        if "anchor" in rule:
            rule["anchor"] = self.time(rule["anchor"])
        return {"schedule": {kind: rule}, **picked(row, "active", "maxScheduledRuns", "parameters", "slug")}

    def slots(self, row: Any) -> Answer:
        """Return the slots in use of a pool or queue with a limit."""
        return picked(row, "slotsInUse") if row["concurrencyLimit"] is not None else {}


def picked(row: Any, *names: str) -> Answer:
    """Return some members of an object."""
    return {name: row[name] for name in names}


def difference_of(recorded: Any, got: Any) -> str | None:
    """Return the difference between a recorded answer and another one; None if they agree."""
    told = f"recorded {json.dumps(recorded)[:300]}, got {json.dumps(got, default=str)[:400]}"
    if recorded.keys() & {"refused", "missing", "taken"}:
        return None if _is_refusal(recorded, got.get("problem")) else told
    if "problem" in got:
        return told
    for key, value in recorded.items():
        if not _same_member(key, value, got.get(key)):
            return f"{key}: {told}"
    return None


def _same_member(key: str, recorded: Any, got: Any) -> bool:
    if key not in OBJECTS or not isinstance(recorded, dict):
        return same(recorded, got)
    return all(
        (exactly if field in DOCUMENTS else same)(value, (got or {}).get(field)) for field, value in recorded.items()
    )


def _is_refusal(recorded: Any, problem: Any) -> bool:
    if problem is None:
        return False
    if not recorded.get("refused"):
        return all(problem.get(key) for key in recorded)
    if problem.get("taken"):
        return bool(recorded.get("at") == "slug")
    path = problem.get("path")
    return bool(problem.get("refused")) and (not path or "at" not in recorded or recorded["at"] in path)


def exactly(recorded: Any, got: Any) -> bool:
    """Return whether two JSON values are equal."""
    return json.dumps(recorded, sort_keys=True) == json.dumps(got, sort_keys=True)


def same(recorded: Any, got: Any) -> bool:
    """Return whether a value has all recorded members; times may differ a little."""
    if isinstance(recorded, dict) and set(recorded) == {"in"}:
        return isinstance(got, dict) and "in" in got and abs(recorded["in"] - got["in"]) <= TOLERANCE_SECONDS
    if isinstance(recorded, dict):
        return isinstance(got, dict) and all(key in got and same(value, got[key]) for key, value in recorded.items())
    if isinstance(recorded, list):
        return isinstance(got, list) and len(recorded) == len(got) and all(map(same, recorded, got))
    if isinstance(recorded, bool) or isinstance(got, bool):
        return recorded is got
    return bool(recorded == got)
