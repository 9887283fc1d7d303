"""The figures are well-formed, contain no markup of the mails, and are to scale."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.model import Json
from mailstack.report.figures import path, svg
from mailstack.report.figures.timeline import MAX_LABELLED, PLOT, end, place_labels, ticks, timeline, x_of
from mailstack.report.figures.topology import topology
from tests.unit.test_corpus import NAMES, everything

EXPERIMENT = json.loads((Path(__file__).parents[1] / "data" / "experiment.json").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&\x00\x1b[31m\ud800\u202e"


def journey(name: str = "store-and-forward") -> Json:
    """Return a journey of the experiment that a test may change."""
    return copy.deepcopy(EXPERIMENT["journeys"][name])


def hostile(document: Json) -> Json:
    """Return the document with every text replaced by one with markup."""

    def poisoned(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {each: poisoned(inside, each) for each, inside in value.items()}
        if isinstance(value, list):
            return [poisoned(inside, key) for inside in value]
        kept = key in ("service", "status", "kind", "step") or value in ("client", "server")
        return HOSTILE if isinstance(value, str) and not kept else value

    found: Json = poisoned(document)  # type: ignore[assignment]
    return found


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter(f"{SVG}text")]


def dots(figure: str) -> list[float]:
    """Return the positions of a timeline's events."""
    found = ElementTree.fromstring(figure).iter(f"{SVG}circle")
    return [float(dot.attrib["cx"]) for dot in found if dot.get("class") == "dot"]


@pytest.mark.parametrize("name", list(EXPERIMENT["journeys"]))
def test_a_figure_is_well_formed_and_named_for_those_who_do_not_see_it(name: str) -> None:
    for figure in (timeline(journey(name)), topology({name: journey(name)})):
        root = ElementTree.fromstring(figure)
        named = {element.get("id"): element.text for element in root if element.get("id")}
        assert root.get("role") == "img"
        assert named[root.get("aria-labelledby")] and named[root.get("aria-describedby")]


def test_what_stands_in_a_mail_is_text_in_a_figure_and_nothing_else() -> None:
    poisoned = hostile(journey())
    for figure in (timeline(poisoned), topology({HOSTILE: poisoned})):
        root = ElementTree.fromstring(figure)  # no character that XML does not know
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
            "svg", "title", "desc", "style", "g", "rect", "line", "text", "circle", "path", "polyline", "polygon",
        }  # fmt: skip
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
        figure.encode("utf-8")


def test_a_figure_refers_to_nothing_outside() -> None:
    for figure in (timeline(journey()), topology({"one": journey(), "two": journey("end-to-end")})):
        without_namespace = figure.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"href|url\(|@import|https?:|<script|\sstyle=", without_namespace)


def test_two_figures_in_one_page_share_no_id() -> None:
    figures = [timeline(journey()), timeline(journey("end-to-end")), topology({"one": journey()})]
    ids = [word for figure in figures for word in re.findall(r' id="([^"]+)"', figure)]
    assert len(ids) == len(set(ids)) == 6


@given(st.lists(st.floats(0, 1e7, allow_nan=False), min_size=1, max_size=12))
def test_events_stand_where_their_times_are(times: list[float]) -> None:
    drawn = journey()
    event = drawn["events"][0]
    drawn["hops"] = drawn["hops"][:1]
    drawn["events"] = [event | {"milliseconds": time} for time in times]
    span = max(end(drawn), 0.1)
    first = x_of(0, span)
    for time, x in zip(times, dots(timeline(drawn)), strict=True):
        assert x - first == pytest.approx(PLOT * time / span, abs=0.01)


def test_a_bar_is_as_long_as_a_station_had_the_mail() -> None:
    drawn = journey()
    found = ElementTree.fromstring(timeline(drawn)).iter(f"{SVG}rect")
    bars = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in found if bar.get("class") == "wait"]
    span = end(drawn)
    expected = [
        (
            x_of(hop["arrived_milliseconds"], span),
            PLOT * (hop["left_milliseconds"] - hop["arrived_milliseconds"]) / span,
        )
        for hop in drawn["hops"]
    ]
    for bar, place_and_length in zip(bars, expected, strict=True):
        assert bar == pytest.approx(place_and_length, abs=0.02)


def test_the_four_delays_have_the_proportions_that_postfix_logged() -> None:
    drawn = journey()
    drawn["hops"] = [drawn["hops"][0] | {"left_milliseconds": 100.0}]
    drawn["events"] = [drawn["events"][0] | {"milliseconds": 100.0, "delays": [0.01, 0.02, 0.03, 0.04]}]
    found = ElementTree.fromstring(timeline(drawn)).iter(f"{SVG}rect")
    widths = [float(box.attrib["width"]) for box in found if "delay" in box.attrib["class"]][:4]
    assert widths == pytest.approx([PLOT * share for share in (0.1, 0.2, 0.3, 0.4)], abs=0.01)
    assert "delays 0.01 / 0.02 / 0.03 / 0.04 s" in texts(timeline(drawn))


def test_a_longer_span_makes_two_journeys_comparable() -> None:
    short = journey("end-to-end")
    assert max(dots(timeline(short, span=1000.0))) - x_of(0, 1000.0) == pytest.approx(
        PLOT * end(short) / 1000, abs=0.01
    )


@given(
    st.lists(st.tuples(st.floats(0, 500), st.text("abcm 漢", min_size=1, max_size=38)), min_size=1, max_size=14).map(
        sorted
    )
)
def test_words_of_close_events_cover_neither_each_other_nor_each_others_lines(words: list[tuple[float, str]]) -> None:
    placed = place_labels(words)
    assert [(label.x, label.words) for label in placed] == words
    for early, late in itertools.combinations(placed, 2):
        reaches = early.x + 4 + svg.width(early.words, 11.5)
        # Either it stands clear of the other's words, or below them: the line to it comes up from the lane.
        assert reaches < late.x or early.row > late.row


def test_a_lane_with_hundreds_of_events_has_words_for_some_and_says_how_many_have_none() -> None:
    drawn = journey()
    drawn["events"] = [drawn["events"][0] | {"milliseconds": float(number)} for number in range(300)]
    figure = timeline(drawn)
    assert len(dots(figure)) == 300 and f"and {300 - MAX_LABELLED} more events" in texts(figure)


@given(st.floats(0.1, 1e9))
def test_ticks_are_few_round_and_within_the_scale(span: float) -> None:
    marks = ticks(span)
    assert 1 <= len(marks) - 1 <= 10 and marks[0] == 0 and marks[-1] <= span * 1.0001
    assert f"{marks[1]:e}"[0] in "125"


def test_the_legs_of_store_and_forward_go_over_the_sender_s_own_queue() -> None:
    way = path.legs(journey())
    assert [(leg.origin, leg.target, leg.protocol, leg.port) for leg in way] == [
        ("", "sender", "", None),
        ("sender", "postfix", "SMTP", 587),
        ("postfix", "dovecot", "LMTP", 24),
    ]
    assert way[1].tls.startswith("TLSv1") and way[1].sasl_user and not way[2].tls


def test_a_hop_over_a_socket_leads_to_the_mailboxes_and_needs_no_tls() -> None:
    relay = journey()["hops"][-1]["relays"][0]
    local = json.loads(json.dumps(journey()).replace(relay, "postfix.example.com[/run/sockets/lmtp]"))
    last = path.legs(local)[-1]
    assert (last.origin, last.target, last.protocol, last.port) == ("postfix", "dovecot", "LMTP", None)
    assert last.local
    shown = texts(topology({"one": local}))
    assert topology({"one": local}).count('class="lock"') == topology({"one": journey()}).count('class="lock"') - 1
    assert "UNIX socket" in shown and "no TLS" not in shown and "in the mailbox" in shown


def test_a_mail_that_waits_is_drawn_at_the_station_where_it_waits() -> None:
    waiting = journey()
    waiting["hops"] = waiting["hops"][:1]
    waiting["hops"][0]["left_milliseconds"] = None
    waiting["events"] = waiting["events"][:3]
    assert path.legs(waiting)[-1].target == ""
    shown = texts(topology({"one": waiting}))
    assert "waits here" in shown and "in the mailbox" not in shown
    assert "in the mailbox" in texts(topology({"one": journey()}))
    assert "still queued" in texts(timeline(waiting))


def test_a_journey_of_which_nothing_is_known_is_drawn_all_the_same() -> None:
    empty = journey() | {"hops": [], "events": [], "recipients": [], "message_id": ""}
    for figure in (timeline(empty), topology({"one": empty}), topology({})):
        ElementTree.fromstring(figure)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 ms"),
        (0.42, "0.4 ms"),
        (41.3, "41 ms"),
        (3200, "3.2 s"),
        (252_000, "4 min 12 s"),
        (7_260_000, "2 h 1 min"),
    ],
)
def test_durations_are_written_for_people(value: float, words: str) -> None:
    assert svg.milliseconds(value) == words


@pytest.mark.parametrize("name", NAMES)
def test_every_captured_journey_is_drawn_to_scale(name: str) -> None:
    for captured in everything(name)[:8]:
        document = captured.json()
        ElementTree.fromstring(topology({"one": document}))
        times = [event["milliseconds"] for event in document["events"] if event["milliseconds"] is not None]
        span = max(end(document), 0.1)
        expected = sorted(x_of(time, span) for time in times)
        assert sorted(dots(timeline(document))) == pytest.approx(expected, abs=0.01)


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [svg.LIGHT, svg.DARK])
def test_words_and_lines_stand_out_from_every_ground(colours: dict[str, str]) -> None:
    for ground in (colours["ground"], colours["panel"]):
        for name in ("ink", "muted", "first", "second", "pass", "fail"):
            assert contrast(colours[name], ground) >= 4.5, name
    assert contrast(colours["line"], colours["ground"]) >= 3
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # a known pair
