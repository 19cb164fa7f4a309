"""The recordings: requests to the reference server and its answers."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORCHESTRATION = Path(__file__).with_name("orchestration.jsonl.gz")
STORES = Path(__file__).with_name("stores.jsonl.gz")

Step = Mapping[str, Any]
"""`op` is the operation; `as`, `run`, `flow` and `deployment` name its objects; `expect` is the answer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps on objects of their own."""

    name: str
    steps: tuple[Step, ...]

    @property
    def family(self) -> str:
        """Subject of the scenario."""
        return self.name.partition("/")[0]


def read(recording: Path = ORCHESTRATION) -> list[Scenario]:
    """Return every scenario of a recording."""
    with gzip.open(recording, "rt", encoding="utf-8") as lines:
        recorded = map(json.loads, lines)
        return [Scenario(each["id"], tuple(each["steps"])) for each in recorded]


def sample(scenarios: list[Scenario], at_most: int) -> list[Scenario]:
    """Return an even sample of the scenarios; all of them if they are few."""
    return scenarios[:: -(-len(scenarios) // at_most)]
