"""Logs of a server: JSON lines if the output is not a terminal, including those of libraries."""

from io import StringIO
from typing import Any

import httpx
import orjson
import pytest
import structlog

from runstate import logs
from tests.serving import Serve, Server

MISTAKE = {"query": "query Mine { nothing }", "operationName": "Mine", "variables": {"password": "secret"}}


@pytest.fixture
def kind() -> str:
    return "sqlite"


async def ask(server: Server, *bodies: Any) -> None:
    async with httpx.AsyncClient(headers={"X-Request-ID": "given"}) as client:
        for body in bodies:
            await client.post(server.url, json=body)


async def lines(server: Server) -> list[str]:
    """Return the output of a server after it listened, except for the line about its database."""
    assert await server.stop() == 0
    return [line for line in (await server.output).decode().splitlines() if not line.startswith("Database: ")]


async def test_every_line_is_json_if_the_output_is_not_a_terminal(serve: Serve) -> None:
    server = await serve()
    await ask(server, MISTAKE, 5)

    entries = [orjson.loads(line) for line in await lines(server)]

    assert all({"event", "level", "timestamp"} <= entry.keys() for entry in entries)
    assert "uvicorn.error" in {entry.get("logger") for entry in entries}
    (answered,) = (entry for entry in entries if entry["event"] == "operation_answered")
    assert answered.pop("milliseconds") >= 0
    assert answered.pop("timestamp").endswith("Z")
    assert len(answered.pop("document")) == 16
    assert answered == {
        "event": "operation_answered",
        "level": "info",
        "request_id": "given",
        "type": "query",
        "operation": "Mine",
        "outcome": "failed",
        "codes": ["BAD_USER_INPUT"],
        "cost": None,
        "statements": 0,
        "events": None,
    }
    (refused,) = (entry for entry in entries if entry["event"] == "request_refused")
    assert (refused["code"], refused["status"], refused["request_id"]) == ("BAD_REQUEST", 400, "given")


async def test_successful_operations_are_logged_at_the_level_debug(serve: Serve) -> None:
    server = await serve(RUNSTATE_LOG_LEVEL="debug")
    await ask(server, {"query": "{ flowRunCount }"})

    entries = [orjson.loads(line) for line in await lines(server)]

    (answered,) = (entry for entry in entries if entry["event"] == "operation_answered")
    assert (answered["level"], answered["outcome"], answered["statements"]) == ("debug", "ok", 1)
    assert answered["cost"] >= 1


async def test_the_level_limits_the_lines(serve: Serve) -> None:
    server = await serve(RUNSTATE_LOG_LEVEL="warning")
    await ask(server, MISTAKE)

    assert await lines(server) == []


async def test_text_lines_are_a_setting(serve: Serve) -> None:
    server = await serve(RUNSTATE_LOG_FORMAT="text")
    await ask(server, MISTAKE)

    said = "\n".join(await lines(server))
    assert "operation_answered" in said
    assert "Shutting down" in said
    assert "{" not in said


async def test_values_sent_by_clients_are_not_logged(serve: Serve) -> None:
    server = await serve(RUNSTATE_LOG_LEVEL="debug")
    await ask(server, MISTAKE)

    assert "secret" not in "\n".join(await lines(server))


def failure() -> Exception:
    """Return an error that was raised many frames deep, with a secret in each frame."""

    def fail(depth: int, password: str) -> None:
        if depth == 0:
            raise RuntimeError("It failed.")
        fail(depth - 1, password)

    try:
        fail(30, "hun" + "ter2")  # a traceback shows this line
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("as_text", [True, False])
def test_a_traceback_is_short_and_shows_no_local_variables(*, as_text: bool) -> None:
    written = StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(written), processors=logs.rendering(as_text=as_text))

    log.error("failed", exc_info=failure())

    assert "It failed." in written.getvalue()
    assert "hunter2" not in written.getvalue()
    assert len(written.getvalue()) < 20_000
