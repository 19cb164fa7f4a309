"""`runstate worker start`: processes of a real worker, with a real server that is killed and restarted."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from runstate.core.checks.verify import verify
from runstate.database import Database
from runstate.rows import RunClaim
from tests.graphql.mutations import do
from tests.serving import Serve, run
from tests.worker.conftest import PATIENCE_SECONDS, Pool, pool_of, said, stopped

GREET = """
import json, os, sys
print("parameters", json.load(sys.stdin), os.environ["GREETING"])
print("run", os.environ["RUNSTATE_FLOW_RUN_ID"], os.environ["RUNSTATE_URL"], file=sys.stderr)
print("no newline", end="")
"""
WAIT = "import time; print('started', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
UNTIL = """
import os, time
print("started", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
print("ended")
"""
FINAL = ("COMPLETED", "CRASHED", "CANCELLED", "FAILED")
PID = f"import os; print(os.getpid(), flush=True); {WAIT}"


async def cancel(pool: Pool, run_id: str) -> None:
    """Cancel a run."""
    await do(pool.ask, "cancelFlowRun", "CancelFlowRunInput", "__typename", id=run_id)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def expire(url: str) -> None:
    """Let the lease of all claims pass."""
    database = Database(url)
    async with database.write() as transaction:
        passed = datetime.now(UTC) - timedelta(seconds=1)
        await transaction.connection.execute(sa.update(RunClaim).values(expires=passed))
    await database.close()


async def findings(url: str) -> list[str]:
    """Return the findings of `verify`."""
    database = Database(url)
    found = await verify(database, datetime.now(UTC))
    await database.close()
    return found


async def test_runs_are_executed_crashed_and_cancelled(pool: Pool, url: str) -> None:
    deployment = await pool.deploy(GREET, jobVariables={"env": {"GREETING": "hello"}}, parameters={"n": 1})
    worker = await pool.worker("--name", "w", "--queue", "default", "--grace", "0.2")
    programs: dict[str, Any] = {
        "exit": [sys.executable, "-c", "import sys; sys.exit(3)"],
        "kill": [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
        "missing": "/no/such/program",
        "none": "",
        "stubborn": [sys.executable, "-c", STUBBORN],
    }
    done = await pool.make_run(deployment)
    runs = {
        name: await pool.make_run(deployment, jobVariables={"command": command}) for name, command in programs.items()
    }
    await pool.lines(runs["stubborn"])
    await cancel(pool, runs["stubborn"])
    ended = {name: await pool.until(run_id, *FINAL) for name, run_id in runs.items()}
    completed = await pool.until(done, *FINAL)

    assert (completed["stateType"], completed["claimCount"], completed["claim"]) == ("COMPLETED", 1, None)
    assert await pool.lines(done, 3) == ["parameters {'n': 1} hello", f"run {done} {pool.url}", "no newline"]
    assert {name: each["stateType"] for name, each in ended.items()} == {
        **dict.fromkeys(programs, "CRASHED"),
        "stubborn": "CANCELLED",
    }
    assert ended["exit"]["state"]["message"] == "The process ended with exit code 3."
    assert ended["kill"]["state"]["message"] == "The process was killed by SIGKILL."
    assert "No such file" in ended["missing"]["state"]["message"]
    assert "entry point" in ended["none"]["state"]["message"]
    workers = await pool.ask("{ workers { nodes { name status } } }")
    assert workers["workers"]["nodes"] == [{"name": "w", "status": "ONLINE"}]
    assert await stopped(worker) == 0
    assert await findings(url) == []


async def test_a_killed_worker_costs_its_run_one_lease_and_leaves_no_process(pool: Pool, url: str) -> None:
    deployment = await pool.deploy(PID)
    worker = await pool.worker()
    run_id = await pool.make_run(deployment)
    pid = int((await pool.lines(run_id, 2))[0])
    worker.send_signal(SIGKILL)
    await worker.wait()
    still = await pool.until(run_id, "RUNNING")
    await expire(url)
    crashed = await pool.until(run_id, *FINAL)

    assert still["claim"] is not None
    assert (crashed["stateType"], crashed["claim"]) == ("CRASHED", None)
    assert crashed["state"]["message"] == "The claim of the worker expired."
    if sys.platform == "linux":
        async with asyncio.timeout(PATIENCE_SECONDS):
            while is_running(pid):  # noqa: ASYNC110 the kernel sets no event
                await asyncio.sleep(0.05)


async def test_sigterm_lets_runs_finish_and_a_second_one_ends_them(pool: Pool, tmp_path: Path) -> None:
    deployment = await pool.deploy(UNTIL, jobVariables={"working_dir": str(tmp_path)})
    worker = await pool.worker("--limit", "1")
    first, later = await pool.make_run(deployment), await pool.make_run(deployment)
    await pool.lines(first)
    worker.terminate()
    (tmp_path / "go").touch()
    assert await worker.wait() == 0
    assert (await pool.until(first, *FINAL))["stateType"] == "COMPLETED"
    assert (await pool.until(later, "SCHEDULED"))["claim"] is None

    other = await pool.worker()
    await pool.until(later, "COMPLETED")
    (tmp_path / "go").unlink()
    endless = await pool.make_run(deployment)
    await pool.lines(endless)
    other.terminate()
    await said(other, "Stopping")
    assert await stopped(other) == 0
    crashed = await pool.until(endless, *FINAL)
    assert (crashed["stateType"], crashed["state"]["message"]) == ("CRASHED", "The worker was stopped.")


async def test_a_worker_outlives_its_server(serve: Serve, tmp_path: Path) -> None:
    server = await serve()
    async with pool_of(server.url) as pool:
        deployment = await pool.deploy(UNTIL, jobVariables={"working_dir": str(tmp_path)})
        await pool.worker()
        run_id = await pool.make_run(deployment)
        await pool.lines(run_id)
        await server.stop(SIGKILL)
        (tmp_path / "go").touch()
        await serve(RUNSTATE_PORT=str(urlsplit(server.url).port))

        assert (await pool.until(run_id, *FINAL))["stateType"] == "COMPLETED"
        assert await pool.lines(run_id, 2) == ["started", "ended"]
        again = await pool.until(await pool.make_run(deployment), *FINAL)
        assert (again["stateType"], again["claimCount"]) == ("COMPLETED", 1)


async def test_a_worker_is_refused_without_its_pool(pool: Pool) -> None:
    process = await run("worker", "start", "--pool", "unknown", "--url", pool.url, environment={})
    output, _ = await process.communicate()

    assert (process.returncode, b"No work pool has the name `unknown`" in output) == (3, True)
