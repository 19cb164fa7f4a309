"""Settings from the environment: unrelated variables are ignored, and errors are named."""

import socket
from pathlib import Path
from typing import Any

import pytest

from runstate.errors import ConfigurationError
from runstate.settings import Settings, load, unknown_variables
from tests.databases import sqlite_url
from tests.serving import DidNotStartError, Serve

KUBERNETES = {
    "RUNSTATE_SERVICE_HOST": "10.96.0.7",
    "RUNSTATE_SERVICE_PORT": "4200",
    "RUNSTATE_SERVICE_PORT_HTTP": "4200",
    "RUNSTATE_PORT": "tcp://10.96.0.7:4200",
    "RUNSTATE_PORT_4200_TCP": "tcp://10.96.0.7:4200",
    "RUNSTATE_PORT_4200_TCP_PROTO": "tcp",
    "RUNSTATE_PORT_4200_TCP_PORT": "4200",
    "RUNSTATE_PORT_4200_TCP_ADDR": "10.96.0.7",
    "RUNSTATE_PROXY_SERVICE_HOST": "10.96.0.8",
    "RUNSTATE_PROXY_PORT": "udp://10.96.0.8:53",
}


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


def mistakes(environ: dict[str, str], **options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as failed:
        load(environ, **options)
    return failed.value.message.splitlines()


def test_variables_of_kubernetes_services_are_ignored() -> None:
    assert load(KUBERNETES) == Settings()
    assert unknown_variables(KUBERNETES) == {}
    assert load({"RUNSTATE_PORT": "4300"}).port == 4300


def test_white_space_around_a_value_is_ignored() -> None:
    settings = load({"RUNSTATE_AUTH_STRING": " user:secret word\n", "RUNSTATE_HOST": "::1\r\n", "RUNSTATE_PORT": "\t"})

    assert settings.auth_string
    assert settings.auth_string.get_secret_value() == "user:secret word"
    assert (settings.host, settings.port) == ("::1", 4200)


@pytest.mark.parametrize("value", ["DEBUG", "Debug", "debug"])
def test_values_are_case_insensitive(value: str) -> None:
    environ = {"RUNSTATE_LOG_LEVEL": value, "RUNSTATE_LOG_FORMAT": "JSON", "RUNSTATE_SERVICES": "Off"}
    settings = load(environ | {"RUNSTATE_AUTHENTICATION": "Keys"})

    assert (settings.log_level, settings.log_format) == ("debug", "json")
    assert (settings.services, settings.authentication) == ("off", "keys")


def test_all_errors_are_reported_at_once_with_their_variables() -> None:
    found = mistakes(
        {
            "RUNSTATE_PORT": "seventy",
            "RUNSTATE_LOG_LEVEL": "loud",
            "RUNSTATE_AUTH_STRING": "secret:",
            "RUNSTATE_SERVICES": "latte",
            "RUNSTATE_SERVICE_INTERVALS": '{"late": -5}',
            "RUNSTATE_ALLOWED_ORIGINS": "https://app.example/path",
        },
        workers=0,
    )

    assert [line.split(":")[0] for line in found] == [
        "--workers=0",
        "RUNSTATE_PORT=seventy",
        "RUNSTATE_AUTH_STRING",
        "RUNSTATE_ALLOWED_ORIGINS=https",
        "RUNSTATE_SERVICES=latte",
        "RUNSTATE_SERVICE_INTERVALS=-5 at `late`",
        "RUNSTATE_LOG_LEVEL=loud",
    ]
    assert "secret" not in "".join(found)


@pytest.mark.parametrize("value", ["late=5", "[]", "{", '{"latte": 5}'])
def test_invalid_json_is_reported_with_its_variable(value: str) -> None:
    (found,) = mistakes({"RUNSTATE_SERVICE_INTERVALS": value})

    assert found.startswith("RUNSTATE_SERVICE_INTERVALS=")


def test_an_unknown_variable_is_reported_with_a_suggestion() -> None:
    misspelt = {
        "RUNSTATE_DATABSE_URL": "RUNSTATE_DATABASE_URL",
        "RUNSTATE_SUGGESTIONS": "RUNSTATE_FIELD_SUGGESTIONS",
        "RUNSTAT_LOG_LEVEL": "RUNSTATE_LOG_LEVEL",
        "runstate_wokers": "RUNSTATE_WORKERS",
        "RUNSTATE_XYZZY": None,
    }
    known = {"PATH": "/bin", "runstate_port": "1", "RUNSTATE_API_KEY": "k", "RUNSTATE_TLS": "internal"}

    assert unknown_variables(dict.fromkeys(misspelt, "x") | known) == misspelt


async def test_an_unknown_variable_is_logged_as_a_warning(serve: Serve) -> None:
    server = await serve(RUNSTATE_WOKERS="4", RUNSTATE_LOG_FORMAT="json")
    await server.stop()

    assert '"variable": "RUNSTATE_WOKERS", "probably": "RUNSTATE_WORKERS"' in server.greeting


async def test_a_port_in_use_is_reported_in_one_line_before_tables_are_created(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        url = sqlite_url(tmp_path / "new.db")
        with pytest.raises(DidNotStartError) as failed:
            await serve(RUNSTATE_PORT=str(port), RUNSTATE_DATABASE_URL=url)

    assert str(failed.value) == f"Cannot listen on 127.0.0.1, port {port}: Address already in use.\n"
    assert not (tmp_path / "new.db").exists()


async def test_an_invalid_host_is_reported_in_one_line(serve: Serve) -> None:
    with pytest.raises(DidNotStartError, match=r"^Cannot listen on no\.such\.host\.invalid, port 0: .*\.\n$"):
        await serve(RUNSTATE_HOST="no.such.host.invalid", RUNSTATE_INSECURE="true")


async def test_an_ipv6_address_is_printed_in_brackets(serve: Serve) -> None:
    server = await serve(RUNSTATE_HOST="::1")

    assert server.url.startswith("http://[::1]:")
