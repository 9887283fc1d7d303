"""A lab whose sender is blank: its definition, its files, and `up`, which sends nothing from it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mailstack.config import render
from mailstack.definition import bundled, schema
from mailstack.errors import CheckFailed
from mailstack.lab.up import Request
from mailstack.model import Account, Domain, Lab, Settings
from tests.unit.world import NAME, World

pytestmark = pytest.mark.sockets  # free ports are looked for

OVERLAY = str(bundled.compose_file("blank.yaml"))
LAB = Lab(
    "b.test",
    (Domain("b.test"),),
    (Account("x@b.test"),),
    settings=Settings(sender={"myorigin": "c.test", "smtp_helo_timeout": "5s"}),
    blank=True,
)


def parsed(**more: Any) -> Lab:
    return schema.parse({schema.BLOCK: {"domains": {"b.test": {}}, "accounts": {"x@b.test": {}}, **more}})


def test_the_bundled_overlay_makes_the_sender_blank() -> None:
    document = yaml.safe_load(bundled.compose_file("blank.yaml").read_text())
    assert parsed(**document[schema.BLOCK]).blank
    assert (parsed().blank, parsed(blank=False).blank, parsed(blank=None).blank) == (False, False, False)


@pytest.mark.parametrize("value", ["yes", 1, {}])
def test_blank_is_true_or_false(value: Any) -> None:
    with pytest.raises(schema.InvalidDefinition) as caught:
        parsed(blank=value)
    assert caught.value.keys == (schema.BLOCK, "blank")
    assert "should be true or false" in caught.value.message


def test_a_blank_sender_is_told_its_mail_name_and_the_settings_of_an_overlay_alone() -> None:
    assert render.tables(LAB, "relay-1")["sender.cf"].splitlines() == [
        "template: debian",
        "mailname: b.test",
        "myorigin = c.test",
        "smtp_helo_timeout = 5s",
    ]


def overlays(world: World) -> list[str]:
    """Return the overlays that Compose was given last, when it resolved the files."""
    command = [each for each in world.runner.commands if "config" in each.argv][-1]
    return [word for word in command.argv if word.endswith(".yaml")][1:]


@pytest.fixture
def blank(world: World) -> World:
    """Return a world with a running lab whose sender is blank, and from which a mail would not arrive."""

    def fail() -> None:
        raise CheckFailed("a mail was sent from the sender")

    world.compose.block["blank"] = True  # as the overlay has it
    world.relay = fail
    assert world.up(Request(NAME, blank=True)).blank
    return world


def test_up_lays_the_overlay_over_the_lab_and_sends_no_mail_from_the_sender(blank: World) -> None:
    assert overlays(blank) == [OVERLAY]
    report = blank.up(Request(NAME))
    assert report.verified.relayed is None
    assert (report.json()["blank"], report.changes) == (True, ())


def test_a_lab_stays_blank_until_another_one_is_asked_for(blank: World) -> None:
    blank.up(Request(NAME))
    assert overlays(blank) == [OVERLAY]
    found = blank.directory.load()
    assert found
    assert Request.of(found).overlays == ()
    blank.compose.block.pop("blank")
    blank.relay = lambda: None
    report = blank.up(Request(NAME, blank=False))
    assert (overlays(blank), report.blank, report.verified.relayed is None) == ([], False, False)


def test_an_ordinary_lab_is_not_blank(standing: World) -> None:
    standing.up()
    assert overlays(standing) == []
