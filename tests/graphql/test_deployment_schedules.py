"""Schedules of deployments: added, changed, matched, deleted; parameters and versions of deployments."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runstate.services import scheduler
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, create, do, make_deployment, make_flow

FIELDS = """id slug active maxScheduledRuns parameters nextDates(first: 2) problem
  schedule { __typename ... on CronSchedule { cron dayOr timeZone } ... on IntervalSchedule { intervalSeconds } }"""
ONE = f"{PROBLEM} ... on NameTaken {{ takenBy: id path }}"
CREATED = f"{ONE} ... on CreateDeploymentSchedulePayload {{ deploymentSchedule {{ {FIELDS} }} }}"
UPDATED = f"{ONE} ... on UpdateDeploymentSchedulePayload {{ takenBackRuns deploymentSchedule {{ {FIELDS} }} }}"
SET = f"""{PROBLEM} ... on SetDeploymentSchedulesPayload {{
  created deleted kept takenBackRuns deployment {{ schedules {{ nodes {{ {FIELDS} }} }} }} }}"""
DAILY: Any = {"cron": {"cron": "@daily"}}
HOURLY: Any = {"cron": {"cron": "@hourly", "timeZone": "Europe/Berlin"}}
SCHEMA: Any = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0}, "name": {"$ref": "#/$defs/name"}},
    "required": ["n"],
    "$defs": {"name": {"type": "string"}},
}


async def add(ask: Ask, deployment: str, schedule: Any = DAILY, **fields: Any) -> Any:
    given = {"deploymentId": deployment, "schedule": {"schedule": schedule, **fields}}
    return await do(ask, "createDeploymentSchedule", "CreateDeploymentScheduleInput", CREATED, **given)


async def added(ask: Ask, deployment: str, schedule: Any = DAILY, **fields: Any) -> Any:
    return (await add(ask, deployment, schedule, **fields))["deploymentSchedule"]


async def update(ask: Ask, id: str, **fields: Any) -> Any:
    return await do(ask, "updateDeploymentSchedule", "UpdateDeploymentScheduleInput", UPDATED, id=id, **fields)


async def set_all(ask: Ask, deployment: str, *schedules: Any) -> Any:
    given = {"deploymentId": deployment, "schedules": list(schedules)}
    return await do(ask, "setDeploymentSchedules", "SetDeploymentSchedulesInput", SET, **given)


async def test_a_schedule_is_added_with_defaults_and_read(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    made = await added(ask, deployment)
    document = f"query($id: ID!) {{ deploymentSchedule(id: $id) {{ deployment {{ id }} {FIELDS} }} }}"
    read = (await ask(document, id=made["id"]))["deploymentSchedule"]

    assert made["schedule"] == {"__typename": "CronSchedule", "cron": "@daily", "dayOr": True, "timeZone": "UTC"}
    assert (made["active"], made["maxScheduledRuns"], made["parameters"], made["slug"]) == (True, None, {}, None)
    assert len(made["nextDates"]) == 2
    assert read == made | {"deployment": {"id": deployment}}


async def test_an_update_changes_the_given_fields(ask: Ask) -> None:
    made = await added(ask, await make_deployment(ask), slug="a", parameters={"n": 1}, maxScheduledRuns=3)
    changed = (await update(ask, made["id"], schedule=HOURLY, active=False, slug=None))["deploymentSchedule"]

    assert changed["schedule"]["cron"] == "@hourly"
    assert (changed["active"], changed["slug"], changed["nextDates"]) == (False, None, [])
    assert (changed["parameters"], changed["maxScheduledRuns"]) == ({"n": 1}, 3)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"schedule": {"cron": {"cron": "x"}}}, ["schedule", "schedule", "cron", "cron"]),
        ({"schedule": {"cron": {"cron": "0 0 30 2 *"}}}, ["schedule", "schedule", "cron"]),
        (
            {"schedule": {"cron": {"cron": "@daily", "timeZone": "Mars/X"}}},
            ["schedule", "schedule", "cron", "timeZone"],
        ),
        ({"schedule": DAILY, "maxScheduledRuns": 51}, ["schedule", "maxScheduledRuns"]),
        ({"schedule": DAILY, "maxScheduledRuns": 0}, ["schedule", "maxScheduledRuns"]),
        ({"schedule": DAILY, "parameters": {"n": "one"}}, ["schedule", "parameters", "n"]),
    ],
)
async def test_an_invalid_schedule_is_refused_and_not_stored(ask: Ask, fields: Any, path: list[str]) -> None:
    deployment = await make_deployment(ask, parameterSchema=SCHEMA)
    given = {"deploymentId": deployment, "schedule": fields}
    refused = await do(ask, "createDeploymentSchedule", "CreateDeploymentScheduleInput", CREATED, **given)
    found = await ask("{ deploymentSchedules { totalCount } }")

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", path)
    assert found["deploymentSchedules"]["totalCount"] == 0


async def test_a_slug_is_unique_within_its_deployment(ask: Ask) -> None:
    flow = await make_flow(ask)
    one, other = [await make_deployment(ask, flowId=flow, name=name) for name in "ab"]
    first = await added(ask, one, slug="x")
    second = await added(ask, one, slug="y")
    taken = await add(ask, one, slug="x")
    renamed = await update(ask, second["id"], slug="x")

    assert (await add(ask, other, slug="x"))["deploymentSchedule"]["slug"] == "x"
    assert [(each["__typename"], each["takenBy"]) for each in (taken, renamed)] == [("NameTaken", first["id"])] * 2


async def test_setting_all_keeps_matched_schedules_with_their_ids_and_activity(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    named = await added(ask, deployment, slug="named", active=False)
    equal = await added(ask, deployment, HOURLY, active=False)
    await added(ask, deployment, slug="gone")
    answer = await set_all(
        ask, deployment, {"schedule": HOURLY, "slug": "named"}, {"schedule": HOURLY}, {"schedule": DAILY}
    )
    found = {each["id"]: each for each in answer["deployment"]["schedules"]["nodes"]}

    assert (answer["created"], answer["deleted"], answer["kept"]) == (1, 1, 2)
    assert (found[named["id"]]["active"], found[named["id"]]["schedule"]["cron"]) == (False, "@hourly")
    assert found[equal["id"]]["active"] is False
    assert len(found) == 3


async def test_schedules_are_renamed_and_swap_their_slugs(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    one, other = [await added(ask, deployment, slug=slug) for slug in ("a", "b")]
    await set_all(
        ask,
        deployment,
        {"schedule": DAILY, "slug": "b", "replaces": "a"},
        {"schedule": DAILY, "slug": "a", "replaces": "b"},
    )
    document = "query($id: ID!) { deploymentSchedule(id: $id) { slug } }"

    assert (await ask(document, id=one["id"]))["deploymentSchedule"]["slug"] == "b"
    assert (await ask(document, id=other["id"]))["deploymentSchedule"]["slug"] == "a"


async def test_an_empty_list_deletes_all_and_an_omitted_one_none(ask: Ask) -> None:
    flow = await make_flow(ask)
    count = "id schedules { totalCount }"
    for given, expected in (({"schedules": [{"schedule": DAILY}]}, 1), ({}, 1), ({"schedules": []}, 0)):
        made = await create(ask, "deployment", count, flowId=flow, name="d", **given)
        assert made["deployment"]["schedules"]["totalCount"] == expected


async def test_a_slug_that_occurs_twice_is_refused_with_its_path(ask: Ask) -> None:
    given = {"schedule": DAILY, "slug": "x"}
    refused = await set_all(ask, await make_deployment(ask), given, given)

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["schedules", "1", "slug"])


async def test_unknown_schedules_and_deployments_are_not_found(ask: Ask) -> None:
    unknown = "01890000-0000-7000-8000-000000000000"
    delete = f"mutation($id: ID!) {{ it: deleteDeploymentSchedule(id: $id) {{ {PROBLEM} }} }}"
    answers = [
        await add(ask, unknown),
        await update(ask, unknown, active=False),
        await set_all(ask, unknown),
        (await ask(delete, id=unknown))["it"],
    ]

    assert [(each["__typename"], each["missingId"]) for each in answers] == [("NotFound", unknown)] * 4


async def run(ask: Ask, deployment: str, **given: Any) -> Any:
    fields = (
        f"{PROBLEM} ... on CreateFlowRunPayload {{ flowRun {{ parameters labels jobVariables deploymentVersion }} }}"
    )
    return await do(ask, "runDeployment", "RunDeploymentInput", fields, deploymentId=deployment, **given)


async def test_a_run_keeps_what_its_deployment_was_when_it_was_created(ask: Ask) -> None:
    deployment = await make_deployment(ask, version="1", labels={"a": 1, "b": 1}, jobVariables={"cpu": 2})
    made = (await run(ask, deployment, labels={"b": 2}, jobVariables={"cpu": 3}))["flowRun"]

    assert made == {
        "parameters": {},
        "labels": {"a": 1, "b": 2},
        "jobVariables": {"cpu": 3},
        "deploymentVersion": "1",
    }


async def test_parameters_of_runs_must_conform_to_the_schema(ask: Ask) -> None:
    deployment = await make_deployment(ask, parameterSchema=SCHEMA, parameters={"name": "x"})
    missing = await run(ask, deployment)
    wrong = await run(ask, deployment, parameters={"n": True})
    forced = await run(ask, deployment, parameters={"n": "one"}, enforceParameterSchema=False)
    right = await run(ask, deployment, parameters={"n": 1, "more": None})

    assert [(each["__typename"], each["path"][0]) for each in (missing, wrong)] == [("InvalidInput", "parameters")] * 2
    assert forced["flowRun"]["parameters"] == {"name": "x", "n": "one"}
    assert right["flowRun"]["parameters"] == {"name": "x", "n": 1, "more": None}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"parameterSchema": {"type": "whatever"}}, ["parameterSchema", "type"]),
        ({"parameterSchema": SCHEMA, "parameters": {"n": -1}}, ["parameters", "n"]),
        ({"pullSteps": [{"a": 1, "b": 2}]}, ["pullSteps"]),
        ({"schedules": [{"schedule": {"cron": {"cron": "x"}}}]}, ["schedules", "0", "schedule", "cron", "cron"]),
    ],
)
async def test_an_invalid_deployment_is_refused_and_not_stored(ask: Ask, given: Any, path: list[str]) -> None:
    refused = await create(ask, "deployment", flowId=await make_flow(ask), name="d", **given)
    found = await ask("{ deployments { totalCount } }")

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", path)
    assert found["deployments"]["totalCount"] == 0


async def test_an_update_is_checked_against_the_stored_schema(ask: Ask) -> None:
    deployment = await make_deployment(ask, parameterSchema=SCHEMA)
    fields = f"{PROBLEM} ... on UpdateDeploymentPayload {{ deployment {{ parameters }} }}"
    refused = await do(ask, "updateDeployment", "UpdateDeploymentInput", fields, id=deployment, parameters={"n": -1})
    given = {"id": deployment, "parameters": {"n": -1}, "enforceParameterSchema": False}
    accepted = await do(ask, "updateDeployment", "UpdateDeploymentInput", fields, **given)

    assert refused["path"] == ["parameters", "n"]
    assert accepted["deployment"]["parameters"] == {"n": -1}


async def test_labels_of_the_flow_are_below_those_of_the_deployment(ask: Ask) -> None:
    flow = (await create(ask, "flow", name="f", labels={"team": "flow", "k": 1}))["flow"]["id"]
    made = await create(ask, "deployment", "labels", flowId=flow, name="d", labels={"team": "own"})

    assert made["deployment"]["labels"] == {"team": "own", "k": 1}


async def test_a_changed_version_keeps_the_earlier_form(ask: Ask) -> None:
    info = {"type": "vcs:git", "version": "abc", "extra": {"branch": "main"}}
    deployment = await make_deployment(ask, version="1", versionInfo=info, entrypoint="a.py:f")
    versions = "versions { nodes { version versionInfo { type version extra } snapshot } }"
    fields = f"{PROBLEM} ... on UpdateDeploymentPayload {{ deployment {{ version {versions} }} }}"
    given = {"id": deployment, "entrypoint": "b.py:f"}
    same = await do(ask, "updateDeployment", "UpdateDeploymentInput", fields, **given)
    changed = await do(ask, "updateDeployment", "UpdateDeploymentInput", fields, **given, version="2")

    assert same["deployment"]["versions"]["nodes"] == []
    (kept,) = changed["deployment"]["versions"]["nodes"]
    assert (kept["version"], kept["versionInfo"]) == ("1", info)
    assert (kept["snapshot"]["entrypoint"], kept["snapshot"]["concurrencyLimitId"]) == ("b.py:f", None)
    assert changed["deployment"]["version"] == "2"


WINDOW = f"{PROBLEM} ... on ScheduleDeploymentPayload {{ flowRuns {{ expectedStartTime stateName tags }} }}"


async def fill(ask: Ask, deployment: str, **window: Any) -> Any:
    given = {"deploymentId": deployment, **window}
    return await do(ask, "scheduleDeployment", "ScheduleDeploymentInput", WINDOW, **given)


async def test_a_past_window_of_a_paused_deployment_is_filled_once(ask: Ask) -> None:
    given = [{"schedule": DAILY, "slug": "a"}, {"schedule": DAILY, "slug": "b", "active": False}]
    deployment = await make_deployment(ask, paused=True, schedules=given)
    window = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-04T00:00:00Z", "minRuns": 9}
    first, second = await fill(ask, deployment, **window), await fill(ask, deployment, **window)

    assert [run["expectedStartTime"][:10] for run in first["flowRuns"]] == [f"2026-01-0{day}" for day in (1, 2, 3, 4)]
    assert first["flowRuns"][0]["tags"] == ["auto-scheduled"]
    assert second["flowRuns"] == []


async def test_a_window_ends_early_once_it_has_enough_runs_for_enough_time(ask: Ask) -> None:
    deployment = await make_deployment(ask, schedules=[{"schedule": HOURLY}])
    few = await fill(ask, deployment, since="2026-01-01T00:00:00Z", minRuns=2, minSeconds=0.0)
    most = await fill(ask, deployment, since="2026-01-01T00:00:00Z", maxRuns=4, minRuns=1000)

    assert (len(few["flowRuns"]), len(most["flowRuns"])) == (2, 2)


async def test_a_window_that_ends_before_its_start_has_no_runs(ask: Ask) -> None:
    deployment = await make_deployment(ask, schedules=[{"schedule": DAILY}])
    found = await fill(ask, deployment, since="2026-01-02T00:00:00Z", until="2026-01-01T00:00:00Z")

    assert found["flowRuns"] == []


async def test_pausing_and_resuming_are_idempotent(ask: Ask) -> None:
    deployment = await make_deployment(ask, schedules=[{"schedule": DAILY}])
    await fill(ask, deployment)
    pause = f"""mutation($id: ID!) {{ it: pauseDeployment(id: $id) {{ {PROBLEM}
      ... on PauseDeploymentPayload {{ takenBackRuns deployment {{ paused }} }} }} }}"""
    resume = f"""mutation($id: ID!) {{ it: resumeDeployment(id: $id) {{ {PROBLEM}
      ... on ResumeDeploymentPayload {{ deployment {{ paused }} }} }} }}"""
    answers = [(await ask(document, id=deployment))["it"] for document in (pause, pause, resume, resume)]
    unknown = (await ask(pause, id="unknown"))["it"]

    assert [each["deployment"]["paused"] for each in answers] == [True, True, False, False]
    assert [each.get("takenBackRuns") for each in answers] == [3, 0, None, None]
    assert unknown["__typename"] == "NotFound"


async def test_a_page_of_schedules_has_the_dates_of_each(ask: Ask) -> None:
    deployment = await make_deployment(ask, schedules=[{"schedule": DAILY, "slug": f"s{n}"} for n in range(50)])
    found = await ask(f"{{ deploymentSchedules(first: 50) {{ nodes {{ deployment {{ id }} {FIELDS} }} }} }}")
    nodes = found["deploymentSchedules"]["nodes"]

    assert {each["deployment"]["id"] for each in nodes} == {deployment}
    assert [(len(each["nextDates"]), each["problem"]) for each in nodes] == [(2, None)] * 50


async def test_setting_the_same_schedules_again_changes_nothing(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    await added(ask, deployment, slug="old")
    renamed = {"schedule": DAILY, "slug": "new", "replaces": "old"}
    anchored = {"interval": {"intervalSeconds": 3600.0, "anchor": "2026-01-01T00:30:00Z"}}
    first = await set_all(ask, deployment, renamed, {"schedule": anchored})
    filled = await fill(ask, deployment)
    again = await set_all(ask, deployment, renamed, {"schedule": {"interval": {"intervalSeconds": 3600.0}}})

    assert (first["created"], first["kept"], len(filled["flowRuns"])) == (1, 1, 6)
    assert (again["created"], again["deleted"], again["kept"], again["takenBackRuns"]) == (0, 0, 2, 0)
    assert again["deployment"] == first["deployment"]


async def test_an_interval_with_another_anchor_is_another_schedule(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    kept = []
    for day in (1, 1, 2):
        rule = {"interval": {"intervalSeconds": 86400.0, "anchor": f"2026-01-0{day}T01:00:00Z"}}
        kept.append((await set_all(ask, deployment, {"schedule": rule}))["kept"])

    assert kept == [0, 1, 0]


async def test_a_preview_says_what_the_scheduler_would_do_and_writes_nothing(
    ask: Ask, serve_later: Callable[..., Awaitable[int]]
) -> None:
    deployment = await make_deployment(ask, parameters={"a": 1, "b": 1})
    daily = await added(ask, deployment, parameters={"b": 2})
    fields = "idle missing { date parameters deploymentSchedule { id } } surplus { id }"
    document = f"""query($id: ID!, $until: DateTime) {{
      it: scheduledRunsPreview(deploymentId: $id, until: $until) {{ {fields} }} }}"""

    async def preview(**given: Any) -> Any:
        return (await ask(document, id=deployment, **given))["it"]

    before = await preview()
    soon = await preview(until=before["missing"][0]["date"])
    await serve_later(scheduler)
    after = await preview()
    set_active = "... on UpdateDeploymentSchedulePayload { takenBackRuns }"
    overdue = await do(
        ask,
        "scheduleDeployment",
        "ScheduleDeploymentInput",
        "... on ScheduleDeploymentPayload { flowRuns { id } }",
        deploymentId=deployment,
        since="2026-01-01T00:00:00Z",
        maxRuns=1,
    )
    await do(ask, "updateDeploymentSchedule", "UpdateDeploymentScheduleInput", set_active, id=daily["id"], active=False)
    stopped = await preview()

    assert [each["date"] for each in before["missing"]][:2] == daily["nextDates"]
    assert (before["idle"], before["surplus"], before["missing"][0]["parameters"]) == (None, [], {"a": 1, "b": 2})
    assert soon["missing"] == before["missing"][:1]
    assert (after["idle"], after["missing"], after["surplus"]) == ("Its schedules have enough runs ahead.", [], [])
    assert (stopped["idle"], stopped["surplus"]) == ("It has no active schedule.", overdue["flowRuns"])
    assert (await ask(document, id="unknown"))["it"] is None
