"""The recording: what was proposed to another server of this kind, and what it answered."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("orchestration.jsonl.gz")

Step = Mapping[str, Any]
"""`op` says what is done; `as`, `run`, `flow` and `deployment` name what it is done to; `expect` is the answer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Some steps that nothing else takes part in."""

    name: str
    steps: tuple[Step, ...]

    @property
    def family(self) -> str:
        """What the scenario is about."""
        return self.name.partition("/")[0]


def read() -> list[Scenario]:
    """Every recorded scenario."""
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        recorded = map(json.loads, lines)
        return [Scenario(each["id"], tuple(each["steps"])) for each in recorded]


def sample(scenarios: list[Scenario], at_most: int) -> list[Scenario]:
    """Some of the scenarios, spread evenly; all of them when they are few."""
    return scenarios[:: -(-len(scenarios) // at_most)]
