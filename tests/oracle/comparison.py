"""Comparison of answers with recorded ones. Times are compared as seconds from now."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

TOLERANCE_SECONDS = 15
DRAWN_UP_TO_SECONDS = 60
STARTED: ContextVar[datetime] = ContextVar("STARTED")
"""Start of the scenario. The tolerance for times relative to now grows with the duration since then."""

Json = Mapping[str, Any]


class Differs(AssertionError):
    """An answer differs from the recorded one."""


def same(what: str, got: object, recorded: object) -> None:
    """Check that both are equal."""
    if got != recorded:
        raise Differs(f"{what}: got {got!r}, recorded {recorded!r}")


def near(what: str, got: float | None, recorded: float | None) -> None:
    """Check that both are null or differ by little."""
    now = datetime.now(UTC)
    tolerance = TOLERANCE_SECONDS + (now - STARTED.get(now)).total_seconds()
    alike = got is recorded if got is None or recorded is None else abs(got - recorded) <= tolerance
    if not alike:
        raise Differs(f"{what}: got {got!r} s from now, recorded {recorded!r}")


def seconds_from_now(moment: str | None) -> float | None:
    """Return the seconds from now to a time; null for null."""
    return None if moment is None else (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def same_state(got: Json | None, recorded: Json | None) -> None:
    """Check that a state equals the recorded one."""
    if got is None or recorded is None:
        return same("state", got, recorded)
    details = got["details"]
    same("state type and name", (got["type"], got["name"]), (recorded["type"], recorded["name"]))
    same("state has data", got["data"] is not None, recorded.get("has_data", False))
    near("scheduledTime", seconds_from_now(details["scheduledTime"]), recorded.get("scheduled_in"))
    near("pauseTimeout", seconds_from_now(details["pauseTimeout"]), recorded.get("pause_timeout_in"))
    same("pauseReschedule", bool(details["pauseReschedule"]), recorded.get("pause_reschedule", False))
    return None


def same_verdict(got: Json, recorded: Json) -> None:
    """Check that a verdict equals the recorded one; delays below the maximum are random."""
    same("type of answer", got["__typename"], "OrchestrationResult")
    same("status", got["status"], recorded["status"])
    same_state(got["state"], recorded["state"])
    if recorded["status"] == "WAIT":
        wait = got["retryAfterSeconds"]
        if wait is None or wait <= 0:
            raise Differs(f"retryAfterSeconds: got {wait!r}, recorded a wait")
        if recorded["delay_seconds"] > DRAWN_UP_TO_SECONDS:
            near("retryAfterSeconds", wait, recorded["delay_seconds"])


def same_run(got: Json | None, recorded: Json) -> None:
    """Check that the columns of a run equal the recorded ones."""
    if got is None:
        raise Differs("run not found")
    same("stateType", got["stateType"], recorded["state_type"])
    same("stateName", got["stateName"], recorded["state_name"])
    same("runCount", got["runCount"], recorded["run_count"])
    near("expectedStartTime", seconds_from_now(got["expectedStartTime"]), recorded["expected_start_in"])
    near("nextScheduledStartTime", seconds_from_now(got["nextScheduledStartTime"]), recorded["next_scheduled_start_in"])
    same("has startTime", got["startTime"] is not None, recorded["has_start_time"])
    same("has endTime", got["endTime"] is not None, recorded["has_end_time"])
    if "flow_run_run_count" in recorded:
        same("flowRunRunCount", got["flowRunRunCount"], recorded["flow_run_run_count"])
    if "pause_keys" in recorded:
        same("policy.resuming", got["policy"]["resuming"], recorded["resuming"])
        same("policy.pauseKeys", len(got["policy"]["pauseKeys"]), recorded["pause_keys"])
        same("policy.retryType", got["policy"]["retryType"], recorded["retry_type"])


def same_history(got: list[Json], recorded: list[Json]) -> None:
    """Check that the states of a run equal the recorded ones and have consecutive versions."""
    same("history", [(it["type"], it["name"]) for it in got], [(it["type"], it["name"]) for it in recorded])
    same("versions", [it["version"] for it in got], list(range(1, len(got) + 1)))
