"""The log line of an operation has its duration and its number of statements."""

import structlog

from tests.client import Ask


async def test_an_operation_is_logged_with_its_statements_and_its_duration(ask: Ask) -> None:
    with structlog.testing.capture_logs() as logs:
        await ask("{ flows { nodes { id } } flowRunCount }")

    (said,) = (each for each in logs if each["event"] == "operation_answered")
    assert (said["log_level"], said["statements"]) == ("debug", 2)
    assert said["milliseconds"] >= 0
