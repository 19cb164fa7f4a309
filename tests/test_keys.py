"""`runstate keys`: keys are created, listed and revoked."""

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from runstate.__main__ import cli
from runstate.cli.keys import lasting
from runstate.errors import ConfigurationError
from tests.serving import SOURCE


def say(url: str, *words: str) -> list[dict[str, Any]]:
    """Return the lines that a command prints."""
    result = CliRunner(env={"RUNSTATE_DATABASE_URL": url}).invoke(cli, ["keys", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [orjson.loads(line) for line in result.stdout.splitlines()]


def on_a_terminal(url: str, *words: str) -> str:
    """Return the output of a command on a terminal."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "TERM": "dumb", "RUNSTATE_DATABASE_URL": url}
    command = [sys.executable, "-m", "runstate", "keys", *words]
    subprocess.run(command, stdout=theirs, env=environment, check=True)  # noqa: S603 - our own command
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    return said


def test_a_key_is_shown_once(url: str) -> None:
    (made,) = say(url, "create", "ci", "--scope", "read", "--scope", "propose")
    (listed,) = say(url, "list")

    key = made.pop("key")
    assert key.startswith(f"{made['prefix']}_")
    assert listed == made
    assert (made["name"], made["scopes"], made["expires"], made["revoked"]) == ("ci", ["read", "propose"], None, None)


def test_a_key_may_expire(url: str) -> None:
    (made,) = say(url, "create", "ci", "--scope", "admin", "--expires", "30d")

    expires = datetime.fromisoformat(made["expires"])
    assert timedelta(days=29) < expires - datetime.now(UTC) <= timedelta(days=30)


def test_a_revoked_key_stays_listed(url: str) -> None:
    say(url, "create", "ci", "--scope", "read")
    (revoked,) = say(url, "revoke", "ci")

    assert revoked["revoked"]
    assert say(url, "list") == [revoked]


def test_an_unknown_key_cannot_be_revoked(url: str) -> None:
    with pytest.raises(ConfigurationError, match="There is no key `nobody`"):
        say(url, "revoke", "nobody")


def test_the_first_key_of_a_new_database_creates_its_tables(blank_url: str) -> None:
    with pytest.raises(ConfigurationError, match="runstate migrate"):
        say(blank_url, "list")
    (made,) = say(blank_url, "create", "ci", "--scope", "read")

    assert made["name"] == "ci"
    assert [each["name"] for each in say(blank_url, "list")] == ["ci"]


def test_on_a_terminal_keys_are_a_table(url: str, kind: str) -> None:
    made = on_a_terminal(url, "create", "ci", "--scope", "propose")
    listed = on_a_terminal(url, "list").splitlines()

    assert made.startswith("rs_")
    assert "not shown again" in made
    assert listed[0].split() == ["name", "prefix", "scopes", "created", "expires", "revoked", "used"]
    assert listed[1].split()[:3] == ["ci", made[:11], "propose"]
    assert "key ci is revoked" in on_a_terminal(url, "revoke", "ci")


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1y", "1.5h", "30d12h"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="A duration is a number"):
        lasting(text)
