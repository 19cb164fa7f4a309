"""Targets, templates and addresses of actions."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from runstate.core.actions.addresses import Addresses
from runstate.core.actions.rendering import TemplateFailed, Templates
from runstate.core.actions.targets import NoTarget, target
from runstate.core.automations.events import Event
from runstate.documents.actions import FlowRunAction, FlowRunVerb, PausableKind, PauseAction
from runstate.documents.templates import expression, template

ID = UUID("00000000-0000-4000-8000-000000000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(*resources: str) -> Event:
    first, *others = [{"resource.id": each} for each in resources]
    return Event(ID, "a", NOW, NOW, first, tuple(others))


@pytest.fixture
async def templates() -> AsyncIterator[Templates]:
    made = Templates()
    yield made
    await made.close()


def test_the_first_resource_of_the_kind_is_the_target() -> None:
    pause = PauseAction(kind=PausableKind.WORK_QUEUE)
    assert target(pause, event("x", f"runstate.work-queue.{ID}", "runstate.work-queue.17"), {}) == ID


def test_a_resource_with_an_id_that_is_no_uuid_hides_later_ones() -> None:
    pause = PauseAction(kind=PausableKind.DEPLOYMENT)
    with pytest.raises(NoTarget, match="no UUID"):
        target(pause, event("runstate.deployment.17", f"runstate.deployment.{ID}"), {})


def test_the_label_of_for_each_names_the_flow_run() -> None:
    cancel = FlowRunAction(verb=FlowRunVerb.CANCEL)
    assert target(cancel, None, {"resource.id": f"runstate.flow-run.{ID}"}) == ID


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"],  # noqa: S104
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not Addresses().permits(address)


@pytest.mark.parametrize("address", ["64:ff9b::7f00:1", "2002:7f00:1::1", "224.0.0.1", "localhost", ""])
def test_addresses_that_stand_for_others_are_refused_as_those(address: str) -> None:
    assert not Addresses().permits(address)


def test_public_addresses_and_allowed_networks_are_permitted() -> None:
    assert Addresses().permits("93.184.215.14")
    assert Addresses(["10.0.0.0/8"]).permits("10.1.2.3")
    assert not Addresses(["10.0.0.0/8"]).permits("192.168.0.1")


@pytest.mark.parametrize("text", ["{{ a ", "{% for x in y %}", "{{ a | no_such_filter }}", "{% nonsense %}"])
def test_a_template_that_cannot_be_compiled_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template is invalid"):
        template(text)


def test_a_template_has_few_loops() -> None:
    loop = "{% for a in b %}x{% endfor %}"
    deep = "{% for a in b %}{% for c in d %}{% for e in f %}x{% endfor %}{% endfor %}{% endfor %}"
    assert template(loop * 10)
    with pytest.raises(ValueError, match="11 loops"):
        template(loop * 11)
    with pytest.raises(ValueError, match="nested too deeply"):
        template(deep)


def test_a_text_around_an_expression_makes_it_a_text() -> None:
    assert expression("{{ a + 1 }}") == " a + 1 "
    assert expression("{{ a }} {{ b }}") is None
    assert expression(" {{ a }}") is None


async def test_an_expression_keeps_its_type(templates: Templates) -> None:
    names = {"event": None, "labels": {"env": "prod"}}
    values = {"a": "{{ 1 + 1 }}", "b": ["{{ missing }}", "{{ labels.env }}!"]}
    assert await templates.render(values, names, typed=True) == {"a": 2, "b": [None, "prod!"]}


@pytest.mark.parametrize(
    "text", ["{{ 'x' * 100000 }}", "{{ range(101) }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ 1 / 0 }}"]
)
async def test_a_rendering_that_takes_too_much_fails(templates: Templates, text: str) -> None:
    with pytest.raises(TemplateFailed):
        await templates.render({"body": text}, {})


@pytest.mark.parametrize(
    "text", ["{{ 10 ** (10 ** 10) }}", "{{ 'a' | center(10000000000) }}", "{{ 'a' * 9999999999 }}"]
)
def test_the_check_of_a_template_computes_nothing(text: str) -> None:
    assert template(text) == text


@pytest.mark.parametrize("text", ["{% autoescape 'a' | center(9) %}{% endautoescape %}", "{{ " + "(" * 5000 + "}}"])
def test_a_template_that_the_compiler_would_compute_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"autoescape|nested too deeply"):
        template(text)


async def test_a_template_that_computes_without_end_is_stopped(templates: Templates) -> None:
    with pytest.raises(TemplateFailed):
        await templates.render({"body": "{{ 10 ** (10 ** 10) }}"}, {})
    assert await templates.render({"body": "{{ 1 }}"}, {}) == {"body": "1"}
