"""Plays recorded scenarios of automations over HTTP; services are run between two steps, so nothing waits."""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid4, uuid5

from tests.client import Ask
from tests.oracle.comparison import Differs
from tests.oracle.event_queries import resource
from tests.oracle.recording import Scenario
from tests.oracle.triggers import document

PROBLEM: Final = "__typename ... on Problem { message } ... on InvalidInput { path }"
RESULTS: Final = {
    "createAutomation": "... on CreateAutomationPayload { made: automation { id } }",
    "updateAutomation": "... on UpdateAutomationPayload { automation { id } }",
    "createFlow": "... on CreateFlowPayload { made: flow { id } }",
    "createDeployment": "... on CreateDeploymentPayload { made: deployment { id } }",
    "updateDeployment": "... on UpdateDeploymentPayload { deployment { id } }",
    "createFlowRun": "... on CreateFlowRunPayload { made: flowRun { id } }",
    "proposeState": "... on OrchestrationResult { status }",
    "emitEvents": "... on EmitEventsPayload { ids }",
}
FIRINGS: Final = """query($id: ID!) { r: automation(id: $id) { firings(first: 200) { nodes {
  eventId labels { label role value } actionRuns { index status } } } } }"""
EVENTS_ABOUT: Final = """query($where: EventWhere) { r: events(where: $where, orderBy: [{received: ASC}], first: 200) {
  nodes { id name follows related { role resourceId } payload } } }"""
LIST: Final = """query($where: AutomationWhere, $by: [AutomationOrderBy!], $first: Int) {
  r: automations(where: $where, orderBy: $by, first: $first) { totalCount nodes { id } } }"""
READ: Final = """query($id: ID!) { r: automation(id: $id) {
  name description enabled tags actions { __typename } trigger { __typename } } }"""
RUNS: Final = """query($id: ID!) { r: deployment(id: $id) {
  flowRuns(first: 200) { nodes { id stateName parameters expectedStartTime } } } }"""
TEST: Final = """query($input: TestActionInput!) { r: testAction(input: $input) {
  __typename ... on TestActionPayload { target rendered reason } } }"""
ACTIONS: Final = {"change_state": "change_flow_run_state"}
MEMBERS: Final = {"schedule_after": "schedule_after_seconds", "state": "type"}
LISTS: Final = ("actions", "actions_on_trigger", "actions_on_resolve")
TAGS: Final = {"tags_all": "all", "tags_any": "any", "no_tags": "isEmpty"}


def camel(name: str) -> str:
    """Return a name as GraphQL has it."""
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def as_input(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a trigger as an input."""
    members = {camel(name): value for name, value in trigger.items() if name != "kind"}
    if "triggers" in members:
        members["triggers"] = list(map(as_input, members["triggers"]))
    return {trigger["kind"]: members}


def action(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded action as an input."""
    kind = recorded["type"]
    given = {camel(MEMBERS.get(name, name)): value for name, value in recorded.items() if name != "type"}
    return {camel(ACTIONS.get(kind, kind)): True if kind == "do_nothing" else given}


def automation(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded automation as an input."""
    given = {name: recorded[name] for name in ("name", "description", "enabled", "tags") if name in recorded}
    # A trigger without a posture is refused, and has no other form here.
    trigger = recorded.get("trigger")
    if trigger:
        given["trigger"] = as_input(document(trigger)) if "posture" in json.dumps(trigger) else {"event": {}}
    given |= {camel(name): list(map(action, recorded[name])) for name in LISTS if name in recorded}
    return given | ({"ownerResourceId": recorded["owner_resource"]} if "owner_resource" in recorded else {})


def in_order(values: list[Any]) -> list[Any]:
    """Return values in an order that does not depend on the server."""
    return sorted(values, key=lambda each: json.dumps(each, sort_keys=True))


def labels(values: list[dict[str, Any]]) -> list[Any]:
    """Return values of labels without roles that are null."""
    return in_order([{name: value for name, value in each.items() if value is not None} for each in values])


def previewed(recorded: Any) -> Any:
    """Return a recorded preview of an action: a target or rendered templates, and whether it fails."""
    failed = recorded.get("failed", False)
    return (recorded["target"] if "target" in recorded else recorded.get("rendered")), failed


def fired(recorded: Any) -> Any:
    """Return recorded firings in an order that does not depend on the server."""
    return in_order([{"event": each["event"], "labels": labels(each["labels"])} for each in recorded])


EXPECTED: Final[dict[str, Callable[[Any], Any]]] = {
    "create_automation": lambda recorded: recorded["accepted"],
    "update_automation": lambda recorded: recorded["accepted"],
    "delete_automation": lambda recorded: recorded["deleted"],
    "propose": lambda recorded: recorded["status"],
    "firings": fired,
    "test_action": previewed,
    "read_run": lambda recorded: recorded and recorded["state"],
    "runs_of_deployment": lambda recorded: in_order(
        [each | {"starts_in": round(each["starts_in"] / 30)} for each in recorded]
    ),
    "action_runs": in_order,
    "automation_events": in_order,
    "list_automations": lambda recorded: recorded if isinstance(recorded, dict) else sorted(recorded),
}
"""Recorded answers in the form of the answers here, by operation."""


class Automations:
    """A scenario in progress."""

    def __init__(self, ask: Ask, settle: Callable[[], Awaitable[None]]) -> None:
        self.asking, self.settle = ask, settle
        self.nonce = uuid4().hex[:8]
        self.ids: dict[str, str] = {}
        self.events: dict[str, str] = {}

    async def play(self, scenario: Scenario) -> None:
        """Execute the steps in order and compare each answer with the recorded one."""
        for number, step in enumerate(scenario.steps):
            given = self.own({key: value for key, value in step.items() if key != "expect"})
            found = await getattr(self, step["op"])(given)
            expected = self.own(step.get("expect"))
            if expected is not None or found is None:
                self.compare(f"step {number} {step['op']}", found, self.expected(step["op"], expected))

    def compare(self, what: str, found: Any, expected: Any) -> None:
        """Fail if an answer is not the recorded one."""
        if expected is not None and found != expected:
            raise Differs(f"{what}: {found} instead of {expected}")

    def own(self, value: Any) -> Any:
        """Return a recorded value with the names and ids of this scenario."""
        if isinstance(value, dict):
            return {self.own(key): self.own(each) for key, each in value.items()}
        if isinstance(value, list):
            return list(map(self.own, value))
        if not isinstance(value, str):
            return value
        value = value.replace("{p}", "runstate.").replace("{n}", self.nonce)
        for name, known in self.ids.items():
            value = value.replace(f"{{id:{name}}}", known)
        return value

    def expected(self, op: str, recorded: Any) -> Any:
        """Return a recorded answer in the form of the answers here."""
        return EXPECTED[op](recorded) if op in EXPECTED else recorded

    async def ask(self, document: str, **variables: Any) -> Any:
        """Return the field `r` of an answer; None if the values were refused."""
        body = await self.asking.raw(document, **variables)
        if errors := body.get("errors"):
            if all(each["extensions"]["code"] in {"BAD_USER_INPUT", "INVALID_INPUT"} for each in errors):
                return None
            raise Differs(json.dumps(errors)[:300])
        return body["data"]["r"]

    async def mutate(self, name: str, given: Any) -> Any:
        """Return the payload of a mutation, or its problem; None if the values were refused."""
        kind = name[0].upper() + name[1:]
        text = f"mutation($input: {kind}Input!) {{ r: {name}(input: $input) {{ {PROBLEM} {RESULTS[name]} }} }}"
        return await self.ask(text, input=given)

    async def make(self, mutation: str, step: dict[str, Any], given: dict[str, Any]) -> bool:
        """Create an object and remember its id. Return whether it was accepted."""
        answer = await self.mutate(mutation, given)
        if not answer or "made" not in answer:
            return False
        self.ids[step.get("as", "")] = answer["made"]["id"]
        await self.settle()
        return True

    def id(self, name: str) -> str:
        """Return the id of an object; for one that was not made, an id of nothing."""
        return self.ids.get(name) or str(uuid4())

    def event_id(self, name: str) -> str:
        """Return the id of an event by its name in the recording."""
        return self.events.setdefault(name, str(uuid5(NAMESPACE_OID, self.nonce + name)))

    def event_name(self, id: str | None) -> str | None:
        """Return the name of an event in the recording."""
        return next((name for name, known in self.events.items() if known == id), "?") if id else None

    # ---- automations

    async def create_automation(self, step: Any) -> Any:
        """Create an automation; return whether it was accepted."""
        return await self.make("createAutomation", step, automation(step["automation"]))

    async def update_automation(self, step: Any) -> Any:
        """Update an automation; return whether it was accepted."""
        given = {"id": self.id(step["automation"])} | automation(step["change"])
        answer = await self.mutate("updateAutomation", given)
        await self.settle()
        return bool(answer and "automation" in answer)

    async def read_automation(self, step: Any) -> Any:
        """Return an automation."""
        answer = await self.ask(READ, id=self.id(step["automation"]))
        if answer is None:
            return None
        kind = answer["trigger"]["__typename"].removesuffix("Trigger").lower()
        return answer | {"actions": len(answer["actions"]), "trigger": kind}

    async def delete_automation(self, step: Any) -> Any:
        """Delete an automation; return whether it existed."""
        text = "mutation($id: ID!) { r: deleteAutomation(id: $id) { __typename } }"
        answer = await self.ask(text, id=self.id(step["automation"]))
        await self.settle()
        return answer["__typename"] == "DeletePayload"

    async def delete_owned(self, step: Any) -> Any:
        """Delete the automations that a resource owns; return their names."""
        text = """mutation($of: String!) { r: deleteAutomationsOwnedBy(resourceId: $of) {
          ... on DeleteManyPayload { deletedIds } } }"""
        deleted = (await self.ask(text, of=step["resource"]))["deletedIds"]
        return sorted(name for name, known in self.ids.items() if known in deleted)

    async def list_automations(self, step: Any) -> Any:
        """Return the names of automations that meet a condition."""
        asked = step.get("where", {})
        where: dict[str, Any] = {"name": {"startsWith": self.nonce}}
        if "related_to" in step:
            where = {"relatedResources": {"some": {"resourceId": {"eq": step["related_to"]}}}}
        if "names" in asked:
            where["name"]["in"] = asked["names"]
        if "ids" in asked:
            where["id"] = {"in": list(map(self.id, asked["ids"]))}
        if tags := {name: asked[key] for key, name in TAGS.items() if key in asked}:
            where["tags"] = tags
        column, _, direction = step.get("sort", "NAME_ASC").rpartition("_")
        answer = await self.ask(LIST, where=where, by=[{column.lower(): direction}], first=step.get("limit", 50))
        if answer is None:
            return {"refused": True}
        names = {known: name for name, known in self.ids.items()}
        found = [names[each["id"]] for each in answer["nodes"]]
        self.compare("total", answer["totalCount"], step.get("total"))
        # The order of names is the database's; other orders are tested in tests/graphql.
        return sorted(found)

    # ---- events, firings and actions

    async def emit(self, step: Any) -> None:
        """Append events."""
        begin = datetime.now(UTC)
        given = [self.event(each, begin) for each in step["events"]]
        answer = await self.mutate("emitEvents", {"events": given})
        self.compare("emitted", len(answer.get("ids", ())), len(given))
        await self.settle()

    def event(self, recorded: Any, begin: datetime) -> dict[str, Any]:
        """Return a recorded event as an input."""
        occurred = begin + timedelta(seconds=recorded.get("occurred", recorded["at"]))
        given = {"id": self.event_id(recorded.get("id", f"#{len(self.events)}")), "name": recorded["name"]}
        given |= {"occurred": occurred.isoformat(), "resource": resource(recorded["resource"])}
        given |= {"related": list(map(resource, recorded.get("related", ()))), "payload": recorded.get("payload", {})}
        return given | ({"follows": self.event_id(recorded["follows"])} if recorded.get("follows") else {})

    async def firings(self, step: Any) -> Any:
        """Return the firings of an automation."""
        nodes = (await self.ask(FIRINGS, id=self.ids[step["automation"]]))["firings"]["nodes"]
        return in_order(
            [{"event": self.event_name(each["eventId"]), "labels": labels(each["labels"])} for each in nodes]
        )

    async def action_runs(self, step: Any) -> Any:
        """Return the actions of the firings of an automation."""
        nodes = (await self.ask(FIRINGS, id=self.ids[step["automation"]]))["firings"]["nodes"]
        return in_order([run for each in nodes for run in each["actionRuns"]])

    async def automation_events(self, step: Any) -> Any:
        """Return the events about an automation."""
        about = f"runstate.automation.{self.ids[step['automation']]}"
        nodes = (await self.ask(EVENTS_ABOUT, where={"resource": {"resourceId": {"eq": about}}}))["nodes"]
        names = {each["id"]: each["name"] for each in nodes}
        return in_order([self.told(each, names) for each in nodes])

    def told(self, node: Any, names: Mapping[str, str]) -> dict[str, Any]:
        """Return an event of an automation as it is recorded."""
        related = sorted([each["role"], "".join(each["resourceId"].rpartition(".")[:2])] for each in node["related"])
        follows = names.get(node["follows"]) or self.event_name(node["follows"])
        told = {"name": node["name"], "follows": follows, "related": related}
        return told | ({"action": node["payload"]["action_index"]} if "action_index" in node["payload"] else {})

    async def test_action(self, step: Any) -> Any:
        """Return the target or the rendered templates of an action, and whether it fails."""
        given = {"automationName": step["automation"], "action": action(step["action"]), "labels": step["labels"]}
        if step["event"] is not None:
            given["event"] = self.event(step["event"], datetime(2026, 3, 2, tzinfo=UTC)) | {"id": step["event"]["id"]}
        answer = await self.ask(TEST, input=given)
        if answer is None or answer["__typename"] == "InvalidInput":
            return None, True
        if (
            "sendNotification" in given["action"]
            or "callWebhook" in given["action"]
            or "parameters" in json.dumps(step)
        ):
            return answer["rendered"], answer["rendered"] is None
        return answer["target"], answer["target"] is None

    # ---- flows, deployments and runs

    async def flow(self, step: Any) -> None:
        """Create a flow."""
        await self.make("createFlow", step, {"name": f"flow-{self.nonce}-{step['as']}"})

    async def deployment(self, step: Any) -> None:
        """Create a deployment."""
        given = {"name": f"dep-{self.nonce}-{step['as']}", "flowId": self.ids[step["flow"]]}
        await self.make("createDeployment", step, given | {"parameters": step.get("parameters", {})})

    async def flow_run(self, step: Any) -> None:
        """Create a flow run."""
        given = {"flowId": self.ids[step["flow"]], "name": f"run-{step['as']}"}
        given |= {"deploymentId": self.ids[step["deployment"]]} if "deployment" in step else {}
        await self.make("createFlowRun", step, given)

    async def propose(self, step: Any) -> Any:
        """Propose a state; return the answer."""
        given = {"run": {"flowRunId": self.ids[step["run"]]}, "state": step["state"], "force": step.get("force", False)}
        status = (await self.mutate("proposeState", given))["status"]
        await self.settle()
        return status

    async def update_deployment(self, step: Any) -> None:
        """Pause or resume a deployment."""
        await self.mutate("updateDeployment", {"id": self.ids[step["deployment"]], "paused": step["paused"]})

    async def read_run(self, step: Any) -> Any:
        """Return type and name of the state of a run."""
        answer = await self.ask(
            "query($id: ID!) { r: flowRun(id: $id) { state { type name } } }", id=self.ids[step["run"]]
        )
        return answer and [answer["state"]["type"], answer["state"]["name"]]

    async def read_deployment(self, step: Any) -> Any:
        """Return whether a deployment is paused."""
        return await self.ask("query($id: ID!) { r: deployment(id: $id) { paused } }", id=self.ids[step["deployment"]])

    async def runs_of_deployment(self, step: Any) -> Any:
        """Return the runs of a deployment that an automation created."""
        nodes = (await self.ask(RUNS, id=self.ids[step["deployment"]]))["flowRuns"]["nodes"]
        made, now = set(self.ids.values()), datetime.now(UTC)
        return in_order(
            [
                {
                    "state": each["stateName"],
                    "parameters": each["parameters"],
                    "starts_in": round((datetime.fromisoformat(each["expectedStartTime"]) - now).total_seconds() / 30),
                }
                for each in nodes
                if each["id"] not in made
            ]
        )
