"""A server that is reachable by other machines does not start without explicit settings."""

from pathlib import Path
from typing import Any

import pytest

from runstate.app import build_app
from runstate.errors import ConfigurationError
from runstate.exposure import check_exposure, is_loopback, needs_key
from runstate.settings import Settings, load
from tests.databases import sqlite_url
from tests.serving import DidNotStartError, Serve, run

ELSEWHERE = ["0.0.0.0", "::", "192.168.1.5", "runs.example", ""]  # noqa: S104 - these addresses are refused


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


def settings(**given: Any) -> Settings:
    return load({}, **given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_no_keys_are_required(host: str) -> None:
    check_exposure(settings(host=host))

    assert is_loopback(host)
    assert not needs_key(settings(host=host))


@pytest.mark.parametrize("host", ELSEWHERE)
def test_elsewhere_keys_or_an_explicit_setting_are_required(host: str) -> None:
    with pytest.raises(ConfigurationError, match="RUNSTATE_AUTHENTICATION=keys"):
        build_app(settings(host=host))

    check_exposure(settings(host=host, authentication="keys"))
    check_exposure(settings(host=host, auth_string="user:password"))
    check_exposure(settings(host=host, insecure=True))


@pytest.mark.parametrize("string", ["password", ":password", "user:", ":", "anonymous:x", "a user:x"])
def test_a_password_requires_a_user(string: str) -> None:
    with pytest.raises(ConfigurationError):
        check_exposure(settings(auth_string=string))


def test_an_empty_password_is_refused() -> None:
    assert not needs_key(settings(auth_string=""))
    with pytest.raises(ConfigurationError, match="RUNSTATE_AUTHENTICATION=keys"):
        check_exposure(settings(host="0.0.0.0", auth_string=""))  # noqa: S104 - this address is refused
    check_exposure(settings(host="0.0.0.0", auth_string="", authentication="keys"))  # noqa: S104


def test_without_keys_not_every_origin_can_be_allowed() -> None:
    with pytest.raises(ConfigurationError, match="list the origins"):
        build_app(settings(allowed_origins="*"))


@pytest.mark.parametrize("origin", ["https://app.example/path", "app.example", "null"])
def test_an_origin_consists_of_scheme_and_host(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="origin"):
        build_app(settings(allowed_origins=origin))


def test_the_password_is_hidden_in_the_settings() -> None:
    assert "lovelace" not in repr(settings(auth_string="user:lovelace"))


async def test_an_exposed_server_does_not_start_by_default(serve: Serve) -> None:
    with pytest.raises(DidNotStartError, match="Set RUNSTATE_AUTHENTICATION=keys"):
        await serve(RUNSTATE_HOST="0.0.0.0")  # noqa: S104 - this address is refused


async def test_an_exposed_server_starts_with_the_explicit_setting(tmp_path: Path) -> None:
    environment = {"RUNSTATE_DATABASE_URL": sqlite_url(tmp_path / "r.db"), "RUNSTATE_SERVICES": "off"}
    process = await run("serve", "--host=0.0.0.0", "--port=0", "--insecure", environment=environment)
    assert process.stdout
    said = b""
    while b"listens" not in said:
        line = await process.stdout.readline()
        assert line, said
        said += line
    process.terminate()

    await process.stdout.read()
    assert await process.wait() == 0
