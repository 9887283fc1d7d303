"""The experiment on a student's own lab: whose report it is, its page, and the PDF file that replaces no other."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from mailstack.checks.client.facts import Facts
from mailstack.cli.experiment import checked_author
from mailstack.cli.hosts import host_argv
from mailstack.cli.main import cli
from mailstack.errors import HostError, InputError
from mailstack.experiment import own, own_settings, pdf_file
from mailstack.experiment.own import steps_on
from mailstack.experiment.own_scene import OwnScene
from mailstack.experiment.step import Step, judge, run
from mailstack.model import Command, Deadline, Json, Result, Verdict
from mailstack.report import page, pdf
from mailstack.runner.output import LineSink
from tests.unit.test_client_rows import RIGHT, having

DOCUMENT: Json = json.loads((Path(__file__).parents[1] / "data" / "experiment.json").read_text())


class Scene:
    """A scene that no step looks at, except for what is in effect."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.journeys: Json = {}
        self.lab = self

    def line(self, *words: str) -> str:
        return " ".join(("mailstack", *words))


def scene(facts: Facts) -> OwnScene:
    """Return a lab with these settings in effect."""
    return cast(OwnScene, Scene(facts))


# ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_setting_of_the_course_is_a_step_and_passes_where_it_is_right() -> None:
    steps = own_settings.steps(RIGHT)
    names = ("relayhost", "smtp_sasl_password_maps", "smtp_use_tls", "smtpd_tls_key_file", "credentials", "myorigin")
    assert set(names) <= {step.id for step in steps}
    assert {outcome.verdict for outcome in run(scene(RIGHT), steps, lambda outcome: None)} == {Verdict.PASS}


def test_a_wrong_setting_fails_with_reason_and_remedy() -> None:
    (step,) = [step for step in own_settings.steps(having(relayhost="[postfix]:25")) if step.id == "relayhost"]
    outcome = judge(step, scene(RIGHT), {})
    assert (outcome.verdict, step.title) == (Verdict.FAIL, "relayhost: [postfix]:25")
    problem, remedy = outcome.reason.split("\n→ ")
    assert "nobody can log in there" in problem
    assert remedy == "sudo postconf 'relayhost = [postfix]:587'; sudo postfix reload"


def test_what_cannot_be_performed_there_is_left_out_with_its_reason() -> None:
    routed = having(header_checks="regexp:{ {/^X-Mailstack-Route: direct$/ FILTER direct:[postfix]:25} }")
    steps, left_out = steps_on(scene(routed))
    assert [each["id"] for each in left_out] == ["outside"]
    assert {"end-to-end", "dialogue", "queue", "roles"} <= {step.id for step in steps}
    steps, left_out = steps_on(scene(RIGHT))
    assert {each["id"] for each in left_out} == {"outside", "end-to-end", "dialogue"}
    assert not {"end-to-end", "dialogue"} & {step.id for step in steps}
    for each in left_out:
        assert each["title"] and each["reason"].startswith("This step would show ")
        assert "You need not do anything about it: " in each["reason"] and "without --on" in each["reason"]
        assert "header_checks" not in each["reason"] and "X-Mailstack" not in each["reason"]
    for facts in (RIGHT, Facts("example.com", "postfix", error="main.cf, line 1: wrong")):
        steps, _ = steps_on(scene(facts))
        assert {needed for step in steps for needed in step.needs} <= {step.id for step in steps}


def test_each_row_of_the_settings_says_in_a_sentence_what_the_student_does() -> None:
    said = {step.id: step.row for step in own_settings.steps(RIGHT)}
    sentence = re.compile(r"The student (adds to main\.cf: \w+ = \S|[a-z]+ [^=]+\.$)")
    assert [row for row in said.values() if not sentence.match(row)] == []
    assert said["smtp_use_tls"] == "The student adds to main.cf: smtp_use_tls = yes"
    assert said["postfix"] == "The student restarts Postfix after each change of its configuration."


def test_the_rows_of_the_settings_are_on_the_page_once_and_links_lead_there() -> None:
    wrong = scene(having(relayhost="[postfix]:25"))
    steps = [*own_settings.steps(wrong.facts), Step("send", "A mail", "r", "d", "e", lambda *_: None, ("relayhost",))]
    outcomes = [outcome.json() for outcome in run(wrong, steps, lambda outcome: None)]
    assert [each["blocked_by"] for each in outcomes if each["id"] in ("send", "mynetworks")] == [None, "relayhost"]
    assert outcomes[-1]["reason"].startswith("it needs “relayhost: [postfix]:25”, which failed: port 25")
    assert "postconf" not in outcomes[-1]["reason"]  # the remedy is told once
    counts = {"verdict": "fail", "passed": len(outcomes) - 2, "failed": 2, "configuration": "relayhost = [postfix]:25"}
    journeys = {"store-and-forward": DOCUMENT["journeys"]["store-and-forward"]}
    made: Json = {**DOCUMENT, **counts, "settings": own.settings(wrong), "steps": outcomes, "journeys": journeys}
    shown = page.render(made)
    assert shown.count("<article") == 1
    assert shown.count('id="step-relayhost"') == shown.count("</pre>") == 1
    assert shown.count('href="#step-relayhost"') == 2
    assert "Row 5, <a" in shown and "For the same cause: row 19, <a" in shown
    assert "smtp_<wbr>sasl_<wbr>auth_<wbr>enable" in shown
    assert ">0 ms</td>" not in shown
    assert "Two models, side by side" not in shown
    assert "Nothing, since it needs row 5." in shown


# ── the author ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["Robin Example", "Zoë O'Sample-Přík", "أحمد", "測試", ""])
def test_names_are_taken_as_they_are(name: str) -> None:
    assert checked_author(f" {name} ") == name


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "a\x00b", "x" * 201])
def test_a_name_that_is_no_line_of_text_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        checked_author(name)


def test_the_page_has_the_author_the_lab_and_the_settings_and_none_of_it_is_markup() -> None:
    name = "<script>alert(1)</script> & Co"
    row = {"setting": "relayhost", "original": "o", "value": name, "verdict": "fail", "reason": name, "remedy": name}
    lab = {"name": name, "project": "p", "owner": "o", "engine": "e", "containers": {"sender": "abc"}}
    left_out = [{"id": "outside", "title": name, "reason": name}]
    shown = page.render({**DOCUMENT, "author": name, "lab": lab, "settings": [row], "left_out": left_out})
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; Co") == 7
    assert 'href="experiment.json"' in shown
    assert 'href="experiment.json"' not in page.render(DOCUMENT, alone=True)


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("also", [("--keep",), ("-f", os.devnull)])
def test_options_of_a_separate_lab_are_refused_with_on(also: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["experiment", "--on", "lab", *also])
    assert isinstance(done.exception, InputError) and "exclude each other" in done.exception.message


def test_each_host_has_a_pdf_file_of_its_own() -> None:
    argv = ["experiment", "--out", "reports/mine.pdf"]
    assert host_argv(argv, "ssh://a", "a")[:3] == ["experiment", "--out", "reports/mine-a.pdf"]


# ── the file ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_replaces_an_earlier_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.PDF"
    for data in (b"%PDF-1.4\nfirst, and longer\n%%EOF\n", b"%PDF-1.4\nsecond\n%%EOF\n"):
        assert pdf_file.is_pdf(file)
        pdf_file.require_usable(file)
        pdf_file.write(file, data)
        assert file.read_bytes().startswith(data.rstrip())
        assert [each.name for each in tmp_path.iterdir()] == ["report.PDF"]


@pytest.mark.parametrize("kind", ["a file", "a link", "a directory", "nowhere"])
def test_nothing_else_is_replaced(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "thesis.pdf"
    if kind == "a file":
        file.write_bytes(b"%PDF-1.4\nmine\n%%EOF\n")
    elif kind == "a directory":
        file.mkdir()
    elif kind == "a link":
        pdf_file.write(tmp_path / "other.pdf", b"%PDF-1.4\n%%EOF\n")
        file.symlink_to(tmp_path / "other.pdf")
    else:
        file = tmp_path / "no" / "thesis.pdf"
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=str(file)):
        pdf_file.require_usable(file)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


# ── the browser ────────────────────────────────────────────────────────────────────────────────────────────────────


class Browser:
    """A browser that prints `data` to the file that it is told, or nothing."""

    def __init__(self, data: bytes) -> None:
        self.data, self.page = data, ""

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        (out,) = [word.partition("=")[2] for word in command.argv if word.startswith("--print-to-pdf=")]
        self.page = Path(command.argv[-1].removeprefix("file://")).read_text()
        if self.data:
            Path(out).write_bytes(self.data)
        return Result(0, "", "\nit cannot open a display\n")


def test_a_browser_prints_the_page_and_its_files_are_removed() -> None:
    browser = Browser(b"%PDF-1.7\n")
    assert pdf.printed("<p>Zoë", "/usr/bin/chromium", browser) == b"%PDF-1.7\n"
    assert browser.page == "<p>Zoë"


@pytest.mark.parametrize("data", [b"", b"<html>"])
def test_a_browser_that_prints_nothing_is_reported_with_its_own_words(data: bytes) -> None:
    with pytest.raises(HostError, match="did not print the report") as caught:
        pdf.printed("<p>", "/usr/bin/chromium", Browser(data))
    assert caught.value.details == "it cannot open a display"


def test_without_a_browser_that_is_said_before_anything_is_performed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(cli, ["experiment", "--on", "no-such-lab", "--out", str(tmp_path / "report.pdf")])
    assert isinstance(done.exception, HostError), done.exception
    assert "no browser" in done.exception.message and "--out DIR" in done.exception.remedy
    assert list(tmp_path.iterdir()) == []
