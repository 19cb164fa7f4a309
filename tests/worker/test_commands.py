"""Commands of runs: from templates, job variables and entry points."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runstate.cli.worker.commands import Command, CommandError, command_of, filled_in

TEMPLATE: Any = {
    "job_configuration": {
        "command": "{{ command }}",
        "env": "{{ env }}",
        "working_dir": "/srv/{{ place }}",
        "labels": ["{{ place }}", {"n": "{{ n }}"}],
    },
    "variables": {"properties": {"command": {}, "env": {}, "place": {"default": "jobs"}, "n": {}}},
}


def run(own: Any = None, **deployment: Any) -> Any:
    """Return a claimed run, with job variables of its own."""
    return {"jobVariables": own or {}, "deployment": deployment or None}


def test_a_command_is_taken_from_the_job_variables_of_the_run_above_those_of_the_deployment() -> None:
    given = {"jobVariables": {"command": "python a.py 'x y'", "env": {"A": 1, "B": "b"}}, "path": "/work"}

    assert command_of(run(**given), {}) == Command(("python", "a.py", "x y"), {"A": "1", "B": "b"}, "/work")
    assert command_of(run({"command": ["sh", 1]}, **given), {}).arguments == ("sh", "1")


def test_a_template_has_defaults_and_placeholders() -> None:
    given = run(jobVariables={"command": "true", "place": None}, path="/elsewhere")

    assert command_of(given, TEMPLATE) == Command(("true",), {}, "/srv/jobs")
    assert filled_in(TEMPLATE["job_configuration"], {"n": 3, "place": "x"})["labels"] == ["x", {"n": 3}]


def test_a_run_without_command_and_entry_point_has_none() -> None:
    assert command_of(run(entrypoint="a.py:f"), {}).arguments[1:] == ("-m", "runstate.cli.worker.entrypoint", "a.py:f")
    with pytest.raises(CommandError):
        command_of(run(), {})


@pytest.mark.parametrize("entrypoint", ["flows/etl.py:etl", "flows.etl:etl_later", "flows/script.py"])
def test_an_entry_point_is_called_with_the_parameters(tmp_path: Path, entrypoint: str) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/helper.py").write_text("GREETING = 'loaded'")
    (tmp_path / "flows/etl.py").write_text(
        "def etl(n):\n    from helper import GREETING\n    print(GREETING, n)\n\n"
        "async def etl_later(n):\n    print('loaded', n)\n"
    )
    (tmp_path / "flows/script.py").write_text("import sys, json\nprint('loaded', json.load(sys.stdin)['n'])")
    command = (sys.executable, "-m", "runstate.cli.worker.entrypoint", entrypoint)
    done = subprocess.run(command, cwd=tmp_path, input=b'{"n": 7}', capture_output=True, check=False)  # noqa: S603

    assert (done.stdout, done.stderr, done.returncode) == (b"loaded 7\n", b"", 0)
