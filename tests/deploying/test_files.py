"""The files of a deployment pass their linters; no container engine is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runstate.settings import Settings, load
from tests.node import lacking, packages

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
IMAGE = ROOT / "Dockerfile"
PROXY = ROOT / "deploy" / "Caddyfile"
REPLICAS = ("one", "two")


@pytest.fixture
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    composed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    services: dict[str, Any] = composed["services"]
    return services


def checked(*command: str | Path) -> str:
    """Return the output of a command; AssertionError: it failed."""
    name, *arguments = command
    program = shutil.which(str(name), path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not program:
        lacking(f"{name} is not installed here.")
    done = subprocess.run([program, *arguments], capture_output=True, check=False, text=True, timeout=120)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_compose_file_is_valid_and_passes_its_linter() -> None:
    packages(HERE).run("dclint", "--config", ".dclintrc.json", "--max-warnings", "0", COMPOSE)


def test_the_dockerfile_passes_its_linter() -> None:
    assert checked("hadolint", IMAGE) == ""


def test_the_proxy_accepts_its_configuration() -> None:
    checked("caddy", "validate", "--adapter", "caddyfile", "--config", PROXY)
    assert checked("caddy", "fmt", PROXY) == PROXY.read_text()


def test_two_replicas_share_a_postgresql(services: dict[str, Any]) -> None:
    urls = {services[name]["environment"]["RUNSTATE_DATABASE_URL"] for name in REPLICAS}

    assert len(urls) == 1
    assert services["postgres"]["image"] == "postgres:17"


def test_migrations_run_once_before_any_replica_starts(services: dict[str, Any]) -> None:
    assert services["migrate"]["command"] == ["runstate", "migrate"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in REPLICAS:
        assert services[name]["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }


def test_every_long_running_service_has_a_health_check(services: dict[str, Any]) -> None:
    assert all(each["healthcheck"]["test"] for name, each in services.items() if name != "migrate")


def test_the_proxy_starts_after_the_replicas_are_healthy_and_names_them(services: dict[str, Any]) -> None:
    assert services["proxy"]["depends_on"] == {name: {"condition": "service_healthy"} for name in REPLICAS}
    assert "{$RUNSTATE_REPLICAS:one:4200 two:4200}" in PROXY.read_text()


def test_only_the_proxy_is_published_and_by_default_on_loopback(services: dict[str, Any]) -> None:
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}

    assert published.keys() == {"proxy"}
    assert {port["host_ip"] for port in published["proxy"]} == {"${RUNSTATE_BIND:-127.0.0.1}"}


def test_environment_variables_are_settings(services: dict[str, Any]) -> None:
    known = {f"RUNSTATE_{name.upper()}" for name in Settings.model_fields}
    given = {name for each in REPLICAS for name in services[each]["environment"] if name.startswith("RUNSTATE_")}

    assert given <= known
    assert services["one"]["environment"]["RUNSTATE_AUTHENTICATION"] == "keys"


def test_defaults_contain_no_guessable_password_no_open_access_and_no_missing_limit(services: dict[str, Any]) -> None:
    required = "${POSTGRES_PASSWORD:?"
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith(required)
    for name in REPLICAS:
        environment = services[name]["environment"]
        assert required in environment["RUNSTATE_DATABASE_URL"]
        assert environment["RUNSTATE_GRAPHIQL"] == "${RUNSTATE_GRAPHIQL:-false}"
        assert environment["RUNSTATE_INTROSPECTION"] == "${RUNSTATE_INTROSPECTION:-false}"
    assert all(each["mem_limit"] for each in services.values())


def test_a_server_has_time_to_shut_down(services: dict[str, Any]) -> None:
    grace = int(services["one"]["stop_grace_period"].removesuffix("s"))

    assert grace >= float(services["one"]["environment"]["RUNSTATE_SHUTDOWN_DRAIN_SECONDS"]) + 30


def test_the_image_runs_as_an_unprivileged_user() -> None:
    image = IMAGE.read_text().splitlines()

    assert image.index("USER 10001") < image.index('CMD ["runstate", "serve"]')


def test_constraints_have_versions_and_no_urls() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if "://" in line or " @ " in line] == []
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_lock_files_have_no_urls() -> None:
    locks = [path for path in ROOT.glob("*/**/package-lock.json") if "node_modules" not in path.parts]

    assert HERE / "package-lock.json" in locks
    assert [path for path in locks if "resolved" in path.read_text()] == []


def test_an_empty_setting_has_its_default() -> None:
    settings = load({"RUNSTATE_AUTH_STRING": "", "RUNSTATE_WORKERS": " "})

    assert (settings.auth_string, settings.workers) == (None, 1)
