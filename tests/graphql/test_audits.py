"""The audits of GraphQL over HTTP by npm's graphql-http: all of them pass."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.node import BIN, Packages
from tests.subscribing import Listening, listening

AUDITS = 61
PREFLIGHT = {"GraphQL-Require-Preflight": "1"}


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def audited(clients: Packages, server: Listening, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Return the result of each audit."""
    url, given = f"http://{server.address}", orjson.dumps(headers).decode()
    said = await asyncio.to_thread(clients.run, BIN / "node", "audits.mjs", url, given)
    results: list[dict[str, Any]] = orjson.loads(said)
    return results


async def test_every_audit_passes(clients: Packages, server: Listening) -> None:
    results = await audited(clients, server, PREFLIGHT)

    assert [each for each in results if each["status"] != "ok"] == []
    assert len(results) == AUDITS


async def test_every_audit_passes_without_the_header_if_csrf_prevention_for_get_is_off(
    clients: Packages, url: str
) -> None:
    async with listening(url, get_csrf_prevention=False) as server:
        results = await audited(clients, server, {})

    assert [each for each in results if each["status"] != "ok"] == []
    assert len(results) == AUDITS


async def test_without_the_header_only_audits_with_get_fail(clients: Packages, server: Listening) -> None:
    results = await audited(clients, server, {})

    failed = [each for each in results if each["status"] != "ok"]
    assert [each["name"].split()[0] for each in failed] == ["MAY"] * 3
    assert all("GET" in each["name"] for each in failed)
