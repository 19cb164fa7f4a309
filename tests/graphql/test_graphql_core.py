"""graphql-core's own tests of execution pass with our executor; the tests are downloaded and not copied."""

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import pytest

from tests.node import alone, lacking

PLUGIN = Path(__file__).parent / "graphql_core"
SOURCE = Path(__file__).parents[2] / "src"
EXECUTING = (
    "tests/execution",
    *(f"tests/test_{name}.py" for name in ("graphql", "star_wars_introspection", "star_wars_query", "user_registry")),
    *(f"tests/type/test_{name}.py" for name in ("custom_scalars", "enum", "introspection")),
)
"""Tests that execute documents."""

OPTIONS: Final = (
    *("-p", "substitute", "-p", "no:cacheprovider"),
    *("-o", "addopts=", "-W", "ignore::pytest.PytestUnknownMarkWarning"),  # both are of plugins that are not needed
    # A test that hangs ends the process; the last line of the output is its name.
    *("-v", "--tb=short", "-o", "faulthandler_timeout=60", "-o", "faulthandler_exit_on_timeout=true"),
)

BASICS: Final = "tests/execution/test_executor.py::describe_execute_handles_basic_execution_tasks::"
BASE: Final = "tests/execution/test_executor.py::describe_base_executor_without_incremental_delivery::"
UNLIKE_STRAWBERRY: Final = {
    # Variables are a plain dictionary for resolvers, and the operation has extensions.
    f"{BASICS}provides_info_about_current_execution_state",
    # graphql-core's base class ignores @defer and @stream; Strawberry's executor delivers incrementally.
    f"{BASE}ignores_stream_directives",
    f"{BASE}ignores_defer_directives_on_subfields",
}
"""Tests that fail with Strawberry's executor too, which ours extends."""
UNLIKE_OURS: Final = {
    # Collected fields are cached as long as their document, for later executions.
    f"{BASICS}retains_memoization_keys_until_execution_finishes",
}


class Results(NamedTuple):
    """The results of a test run."""

    failed: set[str]
    passed: int
    executors: int
    left: int
    output: str


class Release:
    """The unpacked tests of a release."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str) -> Results:
        """Run tests in a process with the installed graphql-core."""
        results = self.directory / "results.json"
        results.unlink(missing_ok=True)
        given = [*OPTIONS, "--results", str(results), *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pytest", *given],
            cwd=self.directory,
            env={**inherited, "PYTHONPATH": os.pathsep.join(map(str, (PLUGIN, SOURCE)))},
            capture_output=True,
            text=True,
            check=False,
        )
        output = f"{done.stdout[-20_000:]}{done.stderr}"
        assert done.returncode in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}, output
        assert results.exists(), output
        found: dict[str, Any] = orjson.loads(results.read_bytes())
        return Results(set(found.pop("failed")), output=output, **found)


@pytest.fixture
def release(pytestconfig: pytest.Config, tmp_path: Path) -> Release:
    """Return the source of the installed release."""
    with tarfile.open(source(pytestconfig.cache.mkdir("graphql-core"), version("graphql-core"))) as packed:
        packed.extractall(tmp_path, filter="data")
    (directory,) = tmp_path.iterdir()
    return Release(directory)


def source(directory: Path, number: str) -> Path:
    """Return the source of a version, downloaded once by all processes; skip the test if the download fails."""
    file = directory / f"graphql_core-{number}.tar.gz"
    with alone(directory):
        if not file.exists():
            brought = pip_download(directory / "new", f"graphql-core=={number}")
            if brought.returncode:
                lacking(f"pip brings no source of graphql-core here: {brought.stderr[-500:]}")
            (directory / "new" / file.name).rename(file)
    return file


def pip_download(directory: Path, wanted: str) -> "subprocess.CompletedProcess[str]":
    """Download the source of a package with pip, without its dependencies."""
    given = ["--no-deps", "--no-binary", "graphql-core", "--dest", str(directory), wanted]
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--quiet", *given]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.parametrize("options", [(), ("--planned",)], ids=["as they are", "planned"])
def test_graphql_cores_own_tests_of_execution_pass(release: Release, options: tuple[str, ...]) -> None:
    ours = release.run("--executor=ours", *options, *EXECUTING)
    stock = release.run("--executor=stock", *sorted(ours.failed))
    strawberry = release.run("--executor=strawberry", *sorted(ours.failed))

    assert ours.failed == UNLIKE_STRAWBERRY | UNLIKE_OURS, ours.output
    assert strawberry.failed == UNLIKE_STRAWBERRY, strawberry.output
    assert not stock.failed, stock.output
    assert ours.passed > 800
    assert ours.executors > 700
    assert stock.executors == 0
    if options:
        assert ours.left > 500
