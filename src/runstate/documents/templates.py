"""Templates of actions: Jinja2 in an immutable sandbox. The same environment checks them when they are saved."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import humanize
from jinja2 import ChainableUndefined, TemplateError, pass_context
from jinja2.nodes import EvalContextModifier
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_LOOPS: Final = 10
DEEPEST_LOOP: Final = 2
LONGEST_RANGE: Final = 100
HUMANIZE: Final = (
    *("apnumber", "fractional", "intcomma", "intword", "naturaldate", "naturalday", "naturaldelta", "naturalsize"),
    *("naturaltime", "ordinal", "precisedelta", "scientific"),
)
"""Functions of humanize that are filters, with the prefix `humanize_`."""
FIELDS: Final = {"id": "resource.id", "name": "resource.name", "role": "resource.role"}


class Resource(dict[str, str]):
    """Labels of a resource; `resource.id`, `resource.name` and `resource.role` are attributes, too."""


def short_range(*bounds: int) -> range:
    """Return a range. Raise ValueError if it has more than 100 items."""
    found = range(*bounds)
    if len(found) > LONGEST_RANGE:
        raise ValueError(f"a range has at most {LONGEST_RANGE} items")
    return found


class Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of templates."""

    # These make large values from small templates.
    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a value of a dict by its key before a method of the dict."""
        if isinstance(obj, Resource) and attribute in FIELDS:
            return obj.get(FIELDS[attribute])
        return obj[attribute] if isinstance(obj, dict) and attribute in obj else super().getattr(obj, attribute)


@pass_context
def _as_it_is(_: Any, value: Any) -> Any:
    return value


@cache
def environment() -> Any:
    """Return the environment of all templates. Undefined names are empty texts, however deep they are."""
    made = Sandbox(
        # An event without a label must not make the action fail.
        undefined=ChainableUndefined,
        # Texts of notifications are no HTML.
        autoescape=False,
        keep_trailing_newline=True,
        # The compiler must compute nothing: it also runs in the server, without limits.
        optimized=False,
        finalize=_as_it_is,
    )
    made.globals["range"] = short_range
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": str}
    made.filters |= {f"humanize_{name}": getattr(humanize, name) for name in HUMANIZE}
    return made


def template(text: str) -> str:
    """Return the text of a template. Raise ValueError if it is no template, or has too many loops."""
    if "{" not in text:
        return text
    try:
        tree = environment().parse(text)
        # The compiler computes the argument of `autoescape`.
        if any(tree.find_all(EvalContextModifier)):
            raise ValueError("the template must not use `autoescape`")
        depths = list(_loops(tree, 0))
        # Unknown filters and tests are found by the compiler, not by the parser.
        environment().compile(tree)
    except TemplateError as error:
        raise ValueError(f"the template is invalid: {error}") from None
    except RecursionError:
        raise ValueError("the template is nested too deeply") from None
    if len(depths) > MOST_LOOPS:
        raise ValueError(f"the template has {len(depths)} loops; at most {MOST_LOOPS} are allowed")
    if max(depths, default=0) > DEEPEST_LOOP:
        raise ValueError(f"loops of the template are nested too deeply; at most {DEEPEST_LOOP} levels are allowed")
    return text


def _loops(node: Any, depth: int) -> Iterator[int]:
    """Yield the depth of each loop below a node."""
    for child in node.iter_child_nodes():
        inner = depth + (type(child).__name__ == "For")
        if inner > depth:
            yield inner
        yield from _loops(child, inner)


def expression(text: str) -> str | None:
    """Return the source of the only expression that a template consists of; None for other templates."""
    tokens = [(kind, value) for _, kind, value in environment().lex(text)]
    kinds = [kind for kind, _ in tokens]
    if not kinds or (kinds[0], kinds[-1]) != ("variable_begin", "variable_end") or kinds.count("variable_begin") > 1:
        return None
    return "".join(value for _, value in tokens[1:-1])
