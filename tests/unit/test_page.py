"""The report's page: a pure function of the experiment's document, in which content of mails is only text."""

from __future__ import annotations

import base64
import copy
import hashlib
import html.parser
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.model import Json
from mailstack.report import page
from tests.unit.test_figures import HOSTILE, hostile

EXPERIMENT = json.loads((Path(__file__).parents[1] / "data" / "experiment.json").read_text(encoding="utf-8"))


class Elements(html.parser.HTMLParser):
    """Every element of a page with its attributes, and the text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def document() -> Json:
    return copy.deepcopy(EXPERIMENT)


def failing() -> Json:
    """Return the document with one step that failed."""
    made = document()
    made |= {"verdict": "fail", "passed": made["passed"] - 1, "failed": 1}
    made["steps"][3] |= {"verdict": "fail", "reason": "the map is readable by everybody (0644)"}
    return made


def test_the_page_says_everything_that_the_document_says() -> None:
    shown = " ".join(Elements(page.render(document())).text.split())
    for step in EXPERIMENT["steps"]:
        for words in (step["title"], step["row"], step["done"], step["expected"]):
            assert " ".join(words.split()) in shown
        for evidence in step["evidence"]:
            assert evidence["title"] in shown
            for row in evidence.get("rows", []):
                assert all(" ".join(str(cell).split()) in shown for cell in row)
            assert " ".join(evidence.get("text", "").split()) in shown
    for value in EXPERIMENT["facts"].values():
        assert all(each in shown for each in (value.values() if isinstance(value, dict) else [value]))


def test_what_failed_stands_at_the_top_with_its_reason() -> None:
    made = page.render(failing())
    before = made[: made.index('<table class="summary"')]
    assert f"1 of {len(EXPERIMENT['steps'])} rows" in before and "the map is readable by everybody (0644)" in before
    assert "What failed, and why" not in page.render(document())


def test_an_experiment_that_brought_no_mail_has_a_page_without_pictures() -> None:
    bare = failing() | {"journeys": {}, "dialogue": {}}
    for step in bare["steps"]:
        step["evidence"] = []
    elements = Elements(page.render(bare))
    assert not elements.all("svg") and "The steps" in elements.text
    assert {f"#{a['id']}" for a in elements.all("section")} <= {a["href"] for a in elements.all("a")}


def test_anchors_lead_somewhere_and_no_id_is_there_twice() -> None:
    elements = Elements(page.render(failing()))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes in elements.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if not link.startswith("#")] == ["experiment.json"]


def test_headings_go_down_by_one_level_at_a_time() -> None:
    levels = [int(tag[1]) for tag, _ in Elements(page.render(failing())).found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_text_of_a_mail_is_never_markup() -> None:
    made = hostile(document()) | {"started": EXPERIMENT["started"], "verdict": "fail", "failed": 1}
    for step, original in zip(made["steps"], EXPERIMENT["steps"], strict=True):
        step["id"] = original["id"]
        for evidence, kept in zip(step["evidence"], original["evidence"], strict=True):
            evidence["kind"] = kept["kind"]
    shown = page.render(made)
    shown.encode("utf-8")
    assert not re.search("[\x00\x1b\u202e]", shown)
    elements = Elements(shown)
    assert not elements.all("script") and not elements.all("img")
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert HOSTILE[:40] in elements.text


def little(text: str) -> Json:
    """Return an experiment of one step, with this text wherever a text can be."""
    evidence = [
        {"kind": "text", "title": text, "text": text},
        {"kind": "table", "title": text, "headings": ["a", "b"], "rows": [[text, text]]},
        {"kind": "image", "title": text, "name": text, "type": "image/png", "base64": ""},
    ]
    words = dict.fromkeys(("title", "row", "done", "expected", "reason"), text)
    step = {"id": "one", "verdict": "fail", "seconds": 1.0, "evidence": evidence, **words}
    facts = EXPERIMENT["facts"] | {"host": text, "images": {"postfix": text}}
    counts = {"verdict": "fail", "passed": 0, "failed": 1, "seconds": 1.0, "started": EXPERIMENT["started"]}
    return {**counts, "facts": facts, "steps": [step], "journeys": {}, "dialogue": {}}


BREAKING = st.sampled_from("<>&\"'/=! -scriptaé\n\x00\u202e\ud800{}%#")


@given(st.text(BREAKING, min_size=1, max_size=30) | st.text(min_size=1, max_size=30))
def test_whatever_a_text_is_the_page_has_the_same_elements_with_the_same_attributes(text: str) -> None:
    def elements(page_: str) -> list[tuple[str, list[str]]]:
        return [(tag, list(attributes)) for tag, attributes in Elements(page_).found]

    made = page.render(little(text))
    assert elements(made) == elements(page.render(little("x")))
    made.encode("utf-8")


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", 'image/png"><script>', "IMAGE/PNG", ""])
def test_only_pictures_of_known_types_are_shown(kind: str) -> None:
    content = base64.b64encode(b"<svg onload=alert(1)>").decode()
    assert page.picture({"type": kind, "base64": content}) == ""
    assert page.picture({"type": "image/png", "base64": content}) == f"data:image/png;base64,{content}"
    assert page.picture({"type": "image/png", "base64": '"><script>'}) == ""
    assert page.picture({"type": "image/png", "base64": ""}) == ""


def test_the_policy_allows_the_page_s_own_style_and_nothing_else() -> None:
    made = page.render(document())
    (policy,) = [
        attributes["content"] or ""
        for attributes in Elements(made).all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    styles = set(re.findall(r"<style>(.*?)</style>", made, re.DOTALL))
    digests = {base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy
    assert not re.search(r"\sstyle=", made)


def test_the_page_is_made_within_a_tenth_of_a_second() -> None:
    def took() -> float:
        began = time.process_time()  # other processes may have the machine meanwhile
        page.render(EXPERIMENT)
        return time.process_time() - began

    assert min(took() for _ in range(3)) < 0.1


@pytest.mark.process
def test_templates_are_imported_when_a_page_is_made_and_not_before() -> None:
    code = "import mailstack.report.page, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jinja2", "markupsafe"} & set(loaded)


def test_a_time_is_written_for_people() -> None:
    assert page.moment("2026-11-23T21:24:01.914752+00:00") == "23 November 2026, 21:24:01 UTC"
    assert page.moment("2026-03-01T01:02:03") == "1 March 2026, 01:02:03"


@pytest.mark.parametrize(
    ("version", "said"), [("1:2.4.1+dfsg1-6+deb13u7", "2.4.1"), ("3.10.13-0+deb13u1", "3.10.13"), ("28.5.1", "28.5.1")]
)
def test_a_version_is_said_without_what_a_distribution_adds(version: str, said: str) -> None:
    assert page.release(version) == said
