"""Patterns of names and labels, compiled once: `*`, `?`, `[ab]`, and a leading `!` that negates a pattern of labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Final

from runstate.documents.labels import LabelPattern

MAGIC: Final = re.compile(r"[*?\[]")
Labels = Mapping[str, str]


class Patterns:
    """Patterns of which one must match."""

    __slots__ = ("exact", "globs")

    def __init__(self, patterns: Iterable[str], *, negatable: bool = True) -> None:
        negated = {each for each in patterns if negatable and each.startswith("!")}
        plain = [each for each in patterns if each not in negated]
        self.exact = frozenset(each for each in plain if not MAGIC.search(each))
        self.globs = tuple(
            [(re.compile(translate(each)), True) for each in plain if each not in self.exact]
            + [(re.compile(translate(each[1:])), False) for each in sorted(negated)]
        )

    def match(self, text: str) -> bool:
        """Return whether one of the patterns matches the whole text, case-sensitively."""
        return text in self.exact or any((glob.match(text) is not None) is wanted for glob, wanted in self.globs)


class NamePatterns(Patterns):
    """Patterns of names of events. A leading `!` is a character like any other."""

    __slots__ = ()

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__(patterns, negatable=False)


class LabelsPattern:
    """Patterns of several labels, all of which one resource must match."""

    __slots__ = ("labels",)

    def __init__(self, patterns: Sequence[LabelPattern]) -> None:
        self.labels = tuple((each.label, Patterns(each.values)) for each in patterns)

    def match(self, labels: Labels) -> bool:
        """Return whether the labels of a resource match. A missing label matches nothing, not even `!x`."""
        return all(
            (value := labels.get(label)) is not None and patterns.match(value) for label, patterns in self.labels
        )
