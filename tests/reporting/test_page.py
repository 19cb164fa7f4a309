"""docs/reporting.md and the script of the README: their examples run against a server."""

import asyncio
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.client import Ask
from tests.subscribing import Listening

ROOT = Path(__file__).parent.parent.parent
SNIPPET = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = dict(SNIPPET.findall((ROOT / "docs" / "reporting.md").read_text()))
README = dict(SNIPPET.findall((ROOT / "README.md").read_text()))
STATES = """{ flowRuns { nodes { flow { name } stateName
  taskRuns(orderBy: [{ created: ASC }]) { nodes { taskKey stateName runCount } } } } }"""
LONGEST_SCRIPT = 20


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def output(server: Listening, folder: Path, name: str, text: str) -> str:
    """Run a snippet and return what it printed."""
    (folder / name).write_text(text)
    program = "bash" if name.endswith(".sh") else sys.executable
    environment = {"RUNSTATE_URL": f"http://{server.address}", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    process = await asyncio.create_subprocess_exec(program, name, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE)
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()


async def test_the_script_reports_three_tasks(server: Listening, ask: Ask, tmp_path: Path) -> None:
    said = await output(server, tmp_path, "etl.py", SNIPPETS["etl.py"])

    (run,) = (await ask(STATES))["flowRuns"]["nodes"]
    assert said.endswith(": 6 rows\n")
    assert (run["flow"]["name"], run["stateName"]) == ("etl", "Completed")
    assert [(each["taskKey"], each["runCount"]) for each in run["taskRuns"]["nodes"]] == [
        ("extract", 1),
        ("load", 3),
        ("report", 1),
    ]


async def test_the_script_of_the_readme_is_short(server: Listening, ask: Ask, tmp_path: Path) -> None:
    script = README["etl.py"]
    await output(server, tmp_path, "etl.py", script)

    assert len(script.splitlines()) <= LONGEST_SCRIPT
    (run,) = (await ask(STATES))["flowRuns"]["nodes"]
    assert {each["taskKey"]: each["stateName"] for each in run["taskRuns"]["nodes"]} == {
        "extract": "Completed",
        "load": "Completed",
        "report": "Completed",
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("attempts.py", ""),
        ("functions.py", "231.0"),
        ("results.py", "division by zero\nIn the run:"),
        ("journal.py", ""),
        ("logs.py", ""),
        ("reading.py", ""),
    ],
)
async def test_a_snippet_runs(server: Listening, tmp_path: Path, name: str, says: str) -> None:
    assert says in await output(server, tmp_path, name, SNIPPETS[name])


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="jq or curl is not installed")
async def test_the_loop_in_any_language(server: Listening, ask: Ask, tmp_path: Path) -> None:
    await output(server, tmp_path, "loop.sh", SNIPPETS["loop.sh"])

    (run,) = (await ask("{ flowRuns { nodes { history { name } } } }"))["flowRuns"]["nodes"]
    assert [each["name"] for each in run["history"]] == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]


def test_every_snippet_is_run() -> None:
    assert set(SNIPPETS) == {
        *("etl.py", "attempts.py", "functions.py", "results.py", "journal.py", "logs.py", "reading.py", "loop.sh")
    }
