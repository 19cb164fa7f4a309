"""Plays recorded scenarios of logs and the other stores over HTTP. Names and ids differ from the recorded ones."""

import json
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

from tests.client import Ask
from tests.oracle.comparison import Differs
from tests.oracle.recording import Scenario

Step = dict[str, Any]
Answer = dict[str, Any]
Operation = Callable[["Stores", Step], Coroutine[Any, Any, Answer | None]]

PROBLEM = "__typename ... on Problem { code message } ... on InvalidInput { path }"
KINDS = {
    "InvalidInput": "refused",
    "InUse": "refused",
    "NameTaken": "taken",
    "NotFound": "not_found",
}
"""Names of problems in the recording."""
OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    """Register the function for steps with its name."""
    OPERATIONS[function.__name__] = function
    return function


class RefusedError(Exception):
    """The server refused a step."""

    def __init__(self, kind: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(kind)
        self.kind, self.path = kind, path


class Stores:
    """A scenario in progress: a suffix that makes its names unique, and the ids of its objects by their names."""

    def __init__(self, ask: Ask) -> None:
        self.client = ask
        self.nonce = uuid4().hex[:8]
        self.ids: dict[str, str] = {}

    async def play(self, scenario: Scenario) -> None:
        """Execute the steps in order and compare each answer with the recorded one."""
        for number, step in enumerate(scenario.steps):
            expected = self.own(step.get("expect"))
            given = self.own({key: value for key, value in step.items() if key != "expect"})
            try:
                answer: Any = await OPERATIONS[step["op"]](self, given)
            except RefusedError as refused:
                answer = refused
            # After the step, because it names its object.
            difference = difference_of(answer, self.own(expected))
            if difference:
                raise Differs(f"step {number} {step['op']}: {difference}")

    def own(self, value: Any) -> Any:
        """Return a recorded value with the names and ids of this scenario."""
        if isinstance(value, dict):
            return {self.own(key): self.own(each) for key, each in value.items()}
        if isinstance(value, list):
            return list(map(self.own, value))
        if not isinstance(value, str):
            return value
        value = value.replace("{n}", self.nonce)
        for name, known in self.ids.items():
            value = value.replace(f"{{id:{name}}}", known)
        return value

    def id(self, name: str) -> str:
        """Return the id of an object; for one that was not made, an id of nothing."""
        return self.ids.get(name) or str(uuid5(NAMESPACE_OID, self.nonce + name))

    def name(self, id: str | None) -> str | None:
        """Return the name of an object in the recording; `?` for an object that the scenario does not name."""
        return None if id is None else next((name for name, known in self.ids.items() if known == id), "?")

    async def ask(self, document: str, **variables: Any) -> Any:
        """Return the field `it` of an answer. Raise RefusedError for a problem or an invalid variable."""
        body = await self.client.raw(document, **variables)
        if errors := body.get("errors"):
            if all(_is_about_values(error) for error in errors):
                raise RefusedError("refused")
            raise Differs(json.dumps(errors)[:300])
        answer = body["data"]["it"]
        kind = KINDS.get(str(answer.get("__typename"))) if isinstance(answer, dict) else None
        if kind:
            raise RefusedError(kind, tuple(answer.get("path") or ()))
        return answer

    async def mutate(self, mutation: str, selection: str, given: Step) -> Any:
        """Send a mutation with one input; return its payload."""
        name = mutation[0].upper() + mutation[1:]
        return await self.ask(
            f"mutation($input: {name}Input!) {{ it: {mutation}(input: $input) "
            f"{{ {PROBLEM} ... on {name}Payload {{ {selection} }} }} }}",
            input=given,
        )

    async def make(self, step: Step, kind: str, selection: str, given: Step) -> Answer:
        """Create an object and remember its id under the name of the step."""
        field = kind[0].lower() + kind[1:]
        made: Answer = (await self.mutate(f"create{kind}", f"made: {field} {{ id {selection} }}", given))["made"]
        self.ids[step["as"]] = made["id"]
        return made

    async def delete(self, kind: str, id: str) -> None:
        """Delete an object."""
        fields = f"{PROBLEM} ... on DeletePayload {{ deletedId }}"
        if kind not in {"BlockType", "BlockSchema"}:
            fields = fields.replace("... on InvalidInput { path }", "")
        await self.ask(f"mutation($id: ID!) {{ it: delete{kind}(id: $id) {{ {fields} }} }}", id=id)

    async def pages(self, field: str, kind: str, selection: str, where: list[Any], **more: Any) -> tuple[Any, int]:
        """Return the pages of a list and its total count. Arguments are named like their types."""
        size, order, extra = more.pop("size", 200), more.pop("order", None), more
        declared = "".join(f", ${name}: Boolean!" for name in extra)
        passed = "".join(f", {name}: ${name}" for name in extra)
        document = (
            f"query($where: {kind}Where, $by: [{kind}OrderBy!], $first: Int, $after: String{declared}) {{ "
            f"it: {field}(where: $where, orderBy: $by, first: $first, after: $after{passed}) "
            f"{{ nodes {{ {selection} }} totalCount pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        by = None if order is None else [{_camel(order.rpartition("_")[0].lower()): order.rpartition("_")[2]}]
        found: list[Any] = []
        variables: dict[str, Any] = {"where": {"and": where}, "by": by, "first": size, **extra}
        while True:
            page = await self.ask(document, **variables)
            found += [page["nodes"]] if page["nodes"] else []
            if not page["pageInfo"]["hasNextPage"]:
                return found, page["totalCount"]
            variables["after"] = page["pageInfo"]["endCursor"]


def _is_about_values(error: Any) -> bool:
    code = str(error.get("extensions", {}).get("code"))
    return code == "INVALID_INPUT" or (code == "BAD_USER_INPUT" and str(error["message"]).startswith("Variable "))


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def difference_of(answer: Any, recorded: Any) -> str | None:
    """Return the difference between an answer and the recorded one; None if they agree."""
    if isinstance(answer, RefusedError):
        return _difference_of_refusal(answer, recorded or {})
    if recorded is None or same(_ordered(json.loads(json.dumps(answer))), _ordered(recorded)):
        return None
    return f"answer {json.dumps(answer)[:600]}, recorded {json.dumps(recorded)[:600]}"


def _ordered(answer: Any) -> Any:
    """Return an answer with the sources of each argument in one order: the reference keeps them as a set."""
    if not isinstance(answer, dict) or "inputs" not in answer:
        return answer
    inputs = {key: sorted(each, key=lambda source: sorted(source.items())) for key, each in answer["inputs"].items()}
    return {**answer, "inputs": inputs}


def _difference_of_refusal(refused: RefusedError, recorded: Answer) -> str | None:
    kind = next((each for each in ("refused", "taken", "not_found") if each in recorded), None)
    if kind is None or kind not in ("refused", refused.kind):
        return f"{refused.kind} at {refused.path}, recorded {recorded}"
    field = recorded.get("refused")
    if isinstance(field, str) and refused.path and _camel(field) not in refused.path:
        return f"refused at {refused.path}, recorded at {field}"
    return None


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. True differs from 1, and 1 equals 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return type(one) is type(other) and bool(one == other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@operation
async def flow(play: Stores, step: Step) -> None:
    """Create a flow."""
    await play.make(step, "Flow", "", {"name": step.get("name", f"flow-{play.nonce}{step['as']}")})


@operation
async def deployment(play: Stores, step: Step) -> None:
    """Create a deployment."""
    await play.make(step, "Deployment", "", {"name": f"d-{play.nonce}", "flowId": play.ids[step["flow"]]})
    play.ids[f"flow of {step['as']}"] = play.ids[step["flow"]]


@operation
async def flow_run(play: Stores, step: Step) -> None:
    """Create a flow run."""
    given = {"name": step.get("name", "x")}
    if "deployment" in step:
        given |= {
            "deploymentId": play.ids[step["deployment"]],
            "flowId": play.ids[f"flow of {step['deployment']}"],
        }
    else:
        given["flowId"] = play.ids[step["flow"]]
    await play.make(step, "FlowRun", "", given)


@operation
async def task_run(play: Stores, step: Step) -> Answer | None:
    """Create a task run."""
    given = {"taskKey": "t", "dynamicKey": play.nonce + step["as"], "name": step.get("name", "x")}
    if "flow_run" in step:
        given["flowRunId"] = play.ids[step["flow_run"]]
    if "inputs" not in step:
        await play.make(step, "TaskRun", "", given)
        return None
    kinds = "... on TaskRunResult { id } ... on FlowRunResult { id } ... on Parameter { name } ... on Constant { type }"
    arguments = f"arguments {{ name inputs {{ inputType {kinds} }} }}"
    made = await play.make(step, "TaskRun", arguments, {**given, "taskInputs": step["inputs"]})
    inputs = {each["name"]: [_source(source) for source in each["inputs"]] for each in made["arguments"]}
    return {"ok": True, "inputs": inputs}


def _source(source: Answer) -> Answer:
    inner: Answer = {key: source[key] for key in ("id", "name", "type") if key in source}
    return {"input_type": source["inputType"].lower(), **inner}
