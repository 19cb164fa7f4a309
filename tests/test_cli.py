"""The command `runstate` itself."""

from typer.testing import CliRunner

from runstate import __version__
from runstate.__main__ import cli


def test_it_prints_its_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"runstate {__version__}\n")
