"""Programs that were written for Prefect, run unmodified against a server on each database."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from runstate.core.checks.verify import verify
from runstate.core.keyring import new_key
from runstate.database import Database
from tests.core.factories import THOROUGH
from tests.prefect.clients import needs_prefect, run_program, run_programs
from tests.serving import Serve

PROGRAMS = (
    "b_failures.py",
    "e_limits.py",
    "k_reads.py",
    "h_stores.py",
    "i_events.py",
    "c_subflows.py",
    "d_async.py",
    "n_transactions.py",
    "m_background.py",
    "a_plain.py",
)
"""The longest first."""
DEPLOYED = ("l_run_deployment.py", "f_pause_serve.py", "g_workpool.py")
"""Programs that wait for the polls of workers and runners."""
UNHURRIED = "240"
"""Seconds for which they wait: most of their processes start at the same time."""

RUNS = """{
  flowRuns(first: 200) { nodes {
    id name runCount stateName states(first: 50) { nodes { id name timestamp } }
    taskRuns(first: 100) { nodes { id name runCount stateName taskKey } }
  } }
}"""


@needs_prefect
async def test_programs_end_as_with_prefect_and_leave_a_consistent_database(
    serve: Serve, database: Database, tmp_path: Path
) -> None:
    server = await serve(RUNSTATE_SERVICES="all", RUNSTATE_SECRET_KEYS=new_key())
    api = server.url.replace("/graphql", "/api")

    said = await run_programs(PROGRAMS, api, tmp_path)

    assert all("PASS" in each for each in said)
    assert await verify(database, datetime.now(UTC)) == []
    await graphql_tells_the_same(server.url, api)


@needs_prefect
async def test_programs_with_deployments_end_as_with_prefect(serve: Serve, database: Database, tmp_path: Path) -> None:
    server = await serve(RUNSTATE_SERVICES="all", RUNSTATE_SECRET_KEYS=new_key())
    api = server.url.replace("/graphql", "/api")

    said = await run_programs(DEPLOYED, api, tmp_path, at_once=len(DEPLOYED), PATIENCE=UNHURRIED)

    assert all("PASS" in each for each in said)
    assert await verify(database, datetime.now(UTC)) == []


@needs_prefect
@pytest.mark.skipif(not THOROUGH, reason="takes minutes: set RUNSTATE_THOROUGH=1")
async def test_the_command_line_ends_as_with_prefect(serve: Serve, database: Database, tmp_path: Path) -> None:
    server = await serve(RUNSTATE_SERVICES="all", RUNSTATE_SECRET_KEYS=new_key())

    said = await run_program("j_cli.py", server.url.replace("/graphql", "/api"), tmp_path)

    assert "PASS" in said
    assert await verify(database, datetime.now(UTC)) == []


async def graphql_tells_the_same(url: str, api: str) -> None:
    """Compare all runs as GraphQL answers them with the answers to the requests of the client."""
    async with httpx.AsyncClient() as client:
        answer = (await client.post(url, json={"query": RUNS})).json()
        runs = answer["data"]["flowRuns"]["nodes"]
        read = (await client.post(f"{api}/flow_runs/filter", json={"limit": 200})).json()
        assert sorted(shown(each) for each in runs) == sorted(as_client(each) for each in read)
        for run in runs:
            states = (await client.get(f"{api}/flow_run_states/?flow_run_id={run['id']}")).json()
            assert [each["id"] for each in states] == [each["id"] for each in run["states"]["nodes"]]
            wanted = {"flow_runs": {"id": {"any_": [run["id"]]}}, "limit": 200}
            tasks = (await client.post(f"{api}/task_runs/filter", json=wanted)).json()
            assert sorted(shown(each) for each in run["taskRuns"]["nodes"]) == sorted(map(as_client, tasks))


def shown(run: dict[str, object]) -> tuple[object, ...]:
    return run["id"], run["name"], run["runCount"], run["stateName"]


def as_client(run: dict[str, object]) -> tuple[object, ...]:
    return run["id"], run["name"], run["run_count"], run["state_name"]
