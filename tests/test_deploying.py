"""What is deployed from this repository is well-formed. No container engine is needed to say so."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the compose file."""
    composed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services: dict[str, Any] = composed["services"]
    return services


def test_two_replicas_share_a_postgresql(services: dict[str, Any]) -> None:
    replicas = [each for each in services.values() if each.get("build") == "."]

    assert len(replicas) == 2
    assert len({each["environment"]["RUNSTATE_DATABASE_URL"] for each in replicas}) == 1
    assert services["postgres"]["image"] == "postgres:17"


def test_replicas_start_when_postgresql_answers(services: dict[str, Any]) -> None:
    for name in ("one", "two"):
        assert services[name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_every_service_is_watched(services: dict[str, Any]) -> None:
    assert all(each["healthcheck"]["test"] for each in services.values())


def test_nothing_is_published_beyond_the_machine(services: dict[str, Any]) -> None:
    ports = [port for each in services.values() for port in each.get("ports", [])]

    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:4201:4200"]


def test_the_image_serves_as_somebody_without_rights() -> None:
    image = (ROOT / "Dockerfile").read_text().splitlines()

    assert image.index("USER runstate") < image.index('CMD ["runstate", "serve"]')


def test_constraints_name_versions_and_no_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if "://" in line or " @ " in line] == []
    assert all("==" in line for line in lines if not line.startswith("#"))
