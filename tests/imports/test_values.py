"""Values, histories and automations of the reference in our form: pure functions."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from runstate.documents.actions import AutomationAction
from runstate.documents.states import StateDetails
from runstate.imports import values
from runstate.imports.automations import action_of, trigger_of
from runstate.imports.histories import details_of
from runstate.imports.runs import task_policy
from runstate.imports.table import LeftOut
from runstate.imports.tables import schedule_form

DEPLOYMENT = "00000000-0000-4000-8000-00000000000a"
ANY_ACTION = values.document(AutomationAction)


def test_times_are_in_utc() -> None:
    there = timezone(timedelta(hours=2))
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert values.instant("2026-01-02 12:00:00.000000") == noon
    assert values.instant(datetime(2026, 1, 2, 14, tzinfo=there)).utcoffset() == timedelta(0)


def test_run_times_are_never_negative() -> None:
    assert values.seconds("1970-01-01 00:00:01.500000") == 1.5
    assert values.seconds("1969-12-31 23:59:59.000000") == 0
    assert values.seconds(timedelta(seconds=-1)) == 0


def test_nul_characters_are_left_out() -> None:
    assert values.text("a\0b") == "ab"
    assert values.json(r'{"a": "x\u0000y", "b": "\\u0000", "c": "\\\u0000"}') == {"a": "xy", "b": r"\u0000", "c": "\\"}


def test_an_id_of_version_7_is_kept() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    kept = UUID("01a21f57-6dbe-7722-a588-616acabfaa69")
    other = UUID("94d90ac5-3c70-4715-9237-a8953ced4087")
    made = values.ordered(other, at)
    assert values.ordered(kept, at) == kept
    assert (made.version, made.variant, made.int >> 80) == (7, other.variant, int(at.timestamp() * 1000))
    assert made == values.ordered(other, at)


def test_details_that_do_not_fit_are_left_out_and_noted() -> None:
    noted: list[str] = []
    given = '{"scheduled_time": "soon", "retriable": false, "pause_key": "k", "unknown": 1, "deferred": false}'

    found = details_of(given, lambda text, _: noted.append(text), "id")

    assert found == StateDetails(retriable=False, pause_key="k")
    assert noted == ["imported without scheduled_time in the details, whose value does not fit"]


@pytest.mark.parametrize(("given", "expected"), [(0, [0]), ([1, 2], [1, 2]), (None, None)])
def test_delays_of_task_runs_are_a_list(given: Any, expected: Any) -> None:
    assert task_policy({"retry_delay": given})["retry_delays_seconds"] == expected


def test_schedules_without_a_time_zone_are_in_utc() -> None:
    assert schedule_form({"cron": "* * * * *", "timezone": None})["time_zone"] == "UTC"


EVENT = {
    "type": "event",
    "id": DEPLOYMENT,
    "posture": "Reactive",
    "match": {"prefect.resource.id": ["prefect.flow-run.*", "!prefect.flow-run.x"], "prefect.state-type": "FAILED"},
    "match_related": {},
    "after": [],
    "expect": ["mine", "prefect.flow-run.Failed"],
    "for_each": ["prefect.resource.id", "related:flow:prefect.resource.name"],
    "threshold": 2,
    "within": 60.0,
}


def test_event_triggers_match_in_both_vocabularies() -> None:
    found = trigger_of(EVENT)

    assert [(each.label, each.values) for each in found.match] == [
        ("resource.id", ["prefect.flow-run.*", "runstate.flow-run.*", "!runstate.flow-run.x"]),
        ("runstate.state-type", ["FAILED"]),
    ]
    assert found.match_related == []
    assert found.expect == ["mine", "prefect.flow-run.Failed", "runstate.flow-run.Failed"]
    assert [(each.label, each.role) for each in found.for_each] == [("resource.id", None), ("resource.name", "flow")]
    assert (str(found.id), found.within_seconds) == (DEPLOYMENT, 60)


@pytest.mark.parametrize(("require", "expected"), [("any", 1), ("all", None), (2, 2)])
def test_compound_triggers_keep_their_number(require: Any, expected: int | None) -> None:
    found = trigger_of({"type": "compound", "triggers": [EVENT, EVENT], "within": "PT1M", "require": require})

    assert (found.require, found.within_seconds) == (expected, 60)
    assert [str(each.id) for each in found.triggers] == [DEPLOYMENT, DEPLOYMENT]
    assert trigger_of({"type": "sequence", "triggers": [EVENT], "within": None}).within_seconds is None


@pytest.mark.parametrize(
    "given",
    [
        {"type": "do-nothing"},
        {"type": "run-deployment", "deployment_id": DEPLOYMENT, "parameters": {"x": 1}, "schedule_after": 5},
        {"type": "pause-deployment", "source": "inferred", "deployment_id": None},
        {"type": "resume-deployment", "deployment_id": DEPLOYMENT},
        {"type": "pause-work-pool", "work_pool_id": DEPLOYMENT},
        {"type": "resume-work-queue", "work_queue_id": DEPLOYMENT},
        {"type": "pause-automation", "automation_id": DEPLOYMENT},
        {"type": "cancel-flow-run"},
        {"type": "suspend-flow-run"},
        {"type": "resume-flow-run"},
        {"type": "delete-flow-run"},
        {"type": "change-flow-run-state", "state": "FAILED", "name": None, "message": "m", "force": True},
        {"type": "send-notification", "block_document_id": DEPLOYMENT, "subject": "s", "body": "b"},
        {"type": "call-webhook", "block_document_id": DEPLOYMENT, "payload": "p"},
    ],
    ids=lambda given: given["type"],
)
def test_every_action_of_the_reference_has_a_form(given: Any) -> None:
    found = action_of(given)

    assert ANY_ACTION(found.model_dump_json()) == found


def test_unknown_kinds_are_left_out() -> None:
    with pytest.raises(LeftOut, match="no triggers of the type metric"):
        trigger_of({"type": "metric"})
    with pytest.raises(LeftOut, match="no actions of the type declare-incident"):
        action_of({"type": "declare-incident"})
