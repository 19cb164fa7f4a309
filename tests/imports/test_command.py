"""`runstate import prefect`: the report, the dry run, and what is refused."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runstate.__main__ import cli
from runstate.database.ownership import sole_owner
from runstate.errors import ConfigurationError
from tests.databases import sqlite_url
from tests.imports.reference import Reference, filled


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    # Characters that mean something in URLs.
    return filled().reference.to_sqlite(tmp_path_factory.mktemp("prefect") / "a %41 #? b.db")


def run(*arguments: str, to: Path) -> Result:
    """Run the import into a SQLite file."""
    return CliRunner().invoke(cli, ["import", "prefect", *arguments, "--database-url", sqlite_url(to)])


def test_the_report_says_what_was_imported_and_what_has_no_place(
    source: str, sqlite_template: Path, tmp_path: Path
) -> None:
    target = Path(shutil.copy(sqlite_template, tmp_path / "runstate.db"))

    result = run(source, to=target)

    assert result.exit_code == 0
    assert "flow_run                         7         7         0         0" in result.stdout
    assert "events (1): events before the import" in result.stdout
    assert "left out: there are no actions of the type fly" in result.stdout
    assert "flow_run: 7 rows" in result.stderr
    verified = CliRunner().invoke(cli, ["verify", "--database-url", sqlite_url(target)])
    assert (verified.exit_code, "are consistent" in verified.stdout) == (0, True)


def test_a_dry_run_creates_no_database(source: str, tmp_path: Path) -> None:
    result = run(source, "--dry-run", to=tmp_path / "runstate.db")

    assert (result.exit_code, list(tmp_path.iterdir())) == (0, [])
    assert "flow_run                         7         7         0         0" in result.stdout


def test_a_file_that_a_server_uses_is_left_alone(source: str, tmp_path: Path) -> None:
    target = tmp_path / "runstate.db"
    with sole_owner(sqlite_url(target)):
        result = run(source, to=target)

    assert isinstance(result.exception, ConfigurationError)
    assert "Another server uses" in str(result.exception)
    assert not target.exists()


def test_a_malformed_key_is_refused(tmp_path: Path) -> None:
    source = Reference().to_sqlite(tmp_path / "prefect.db")

    result = run(source, "--dry-run", "--encryption-key", "short", to=tmp_path / "runstate.db")

    assert isinstance(result.exception, ConfigurationError)
    assert "short" not in str(result.exception)
