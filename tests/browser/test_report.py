"""The report as a reader has it: in a real browser, offline, in the light, in the dark, on a phone, on paper."""

from __future__ import annotations

import copy
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe

from mailstack.model import Deadline, Json
from mailstack.report import page
from tests.browser.conftest import Open, Opened, chromium

pytestmark = pytest.mark.browser

DATA = Path(__file__).parents[1] / "data"
EXPERIMENT: Json = json.loads((DATA / "experiment.json").read_text(encoding="utf-8"))
# Dovecot's LMTP listened on another port.
FAILED = json.loads((DATA / "experiment-failing.json").read_text(encoding="utf-8"))
REASON = "the map of credentials is readable by everybody: 0644"
NARROW = (320, 390)  # px
A4 = (595, 842)  # points
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


# One step with evidence of each kind: enough where it is not about the whole.
KINDS = {found["kind"]: step for step in EXPERIMENT["steps"] for found in step["evidence"]}
SHORT: Json = EXPERIMENT | {"steps": [step for step in EXPERIMENT["steps"] if step in KINDS.values()]}


def passing() -> str:
    return page.render(EXPERIMENT)


def short() -> str:
    return page.render(SHORT)


def failing(document: Json = EXPERIMENT) -> str:
    """Two rows failed."""
    made = copy.deepcopy(document)
    made |= {"verdict": "fail", "passed": len(made["steps"]) - 2, "failed": 2}
    for step in (made["steps"][1], made["steps"][-1]):
        step |= {"verdict": "fail", "reason": REASON}
    return page.render(made)


def with_text(hostile: str) -> Json:
    """The experiment with a text in each place where a mail or a log could bring it in."""
    made = copy.deepcopy(SHORT)
    step = made["steps"][0]
    step |= {"title": hostile, "reason": hostile, "verdict": "fail", "done": hostile}
    step["evidence"] = [
        {"kind": "text", "title": hostile, "text": hostile},
        {"kind": "table", "title": hostile, "headings": [hostile] * 4, "rows": [[hostile] * 4]},
        {"kind": "image", "title": hostile, "name": hostile, "type": hostile, "base64": hostile},
    ]
    for event in made["journeys"]["store-and-forward"]["events"]:
        event |= {"what": hostile, "reply": hostile, "peer": hostile}
    for exchange in made["dialogue"]["exchanges"]:
        exchange |= {"lines": [hostile], "meaning": hostile}
    return made


def violations(opened: Opened, *rules: str) -> list[str]:
    """What axe-core finds, by its rules for WCAG 2 A and AA and its best practices, or by some: `rule: element`."""
    found: Any = Axe().run(opened.page, options={"runOnly": rules} if rules else None).response
    return [f"{rule['id']}: {node['target']}" for rule in found["violations"] for node in rule["nodes"]]


def overflow(opened: Opened) -> int:
    """By how many px the page is wider than the window."""
    return int(opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_where_there_is_no_browser_these_tests_are_skipped_but_never_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is no Chromium"):
        chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="there is no Chromium"):
        chromium()


def test_the_page_opens_offline_asks_for_nothing_and_the_browser_has_no_complaint(opened: Open) -> None:
    for html in (passing(), page.render(FAILED)):
        report = opened(html)
        assert (report.asked, report.complaints, report.dialogs) == ([], [], [])


def test_a_page_that_asks_for_something_is_noticed_and_the_policy_forbids_it(opened: Open) -> None:
    outside = short().replace("</main>", '<img src="http://192.0.2.1/pixel.png" alt=""></main>')
    forbidden = opened(outside)
    assert forbidden.asked == [] and any("Content Security Policy" in line for line in forbidden.complaints)
    assert opened(POLICY.sub("", outside)).asked == ["http://192.0.2.1/pixel.png"]


def test_the_verdicts_the_steps_the_versions_and_the_pictures_are_on_the_page(opened: Open) -> None:
    report = opened(passing()).page
    assert report.title().startswith("Passed")
    assert f"All {EXPERIMENT['passed']} rows" in report.locator(".verdict").inner_text()
    assert report.locator("table.summary tbody tr").count() == len(EXPERIMENT["steps"])
    shown = report.locator("body").inner_text()
    for step in EXPERIMENT["steps"]:
        assert report.get_by_role("heading", name=step["title"]).is_visible()
    facts = EXPERIMENT["facts"]
    for value in (*facts["images"].values(), *(value for value in facts.values() if isinstance(value, str))):
        assert value in shown
    for picture in report.locator("svg").all():
        assert picture.get_attribute("role") == "img" and picture.is_visible()
        assert (box := picture.bounding_box()) and box["width"] > 300
    assert report.locator("svg.topology").count() == 1
    assert report.locator("svg.timeline").count() == len(EXPERIMENT["journeys"])
    for image in report.locator("figure img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")


def test_what_failed_is_told_first_with_its_reason_and_a_way_to_it(opened: Open) -> None:
    report = opened(page.render(FAILED)).page
    assert report.title().startswith("Failed")
    assert (
        f"{FAILED['failed']} of {FAILED['failed'] + FAILED['passed']} rows" in report.locator(".verdict").inner_text()
    )
    told = report.locator(".failures")
    failed = [step for step in FAILED["steps"] if step["verdict"] == "fail"]
    assert sorted(told.get_by_role("link").all_inner_texts()) == sorted(step["title"] for step in failed)
    assert sorted(told.locator(".reason").all_inner_texts()) == sorted({step["reason"] for step in failed})
    top = told.bounding_box()
    assert top and top["y"] < 600  # on the first screen
    assert report.locator("tr.failed").count() == len(failed)
    assert "✗ fail" in report.locator("tr.failed").first.inner_text()  # and not by colour alone
    for step in failed:
        report.locator(".failures").get_by_role("link", name=step["title"], exact=True).click()
        there = report.locator("article:target")
        assert step["reason"] in there.inner_text() and "✗ fail" in there.inner_text()


def test_the_keyboard_gets_past_the_contents_and_to_each_step(opened: Open) -> None:
    report = opened(passing()).page
    report.keyboard.press("Tab")
    skip = report.locator(":focus")
    box = skip.bounding_box()
    assert skip.inner_text() == "Skip to the report" and box and box["x"] >= 0
    report.keyboard.press("Enter")
    assert report.evaluate("document.activeElement.id") == "main"
    for step in EXPERIMENT["steps"]:
        for _ in range(4):
            report.keyboard.press("Tab")
            if report.evaluate("document.activeElement.closest('table.summary') !== null"):
                break
        assert report.locator(":focus").inner_text() == step["title"]
        assert report.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    report.keyboard.press("Enter")
    last = report.locator("article:target")
    assert last.get_by_role("heading").first.inner_text().endswith(EXPERIMENT["steps"][-1]["title"])


def test_whatever_scrolls_can_be_scrolled_by_keyboard(opened: Open) -> None:
    report = opened(passing(), width=320).page
    unreachable = report.evaluate(
        """[...document.querySelectorAll('main *')].filter(element =>
            ['auto', 'scroll'].includes(getComputedStyle(element).overflowX)
            && element.scrollWidth > element.clientWidth && element.tabIndex < 0).length"""
    )
    assert unreachable == 0
    region = report.locator("#topology .scroll")
    region.focus()
    report.keyboard.press("ArrowRight")
    # Frame by frame: waiting for a function would have the page evaluate text, which its policy forbids.
    deadline = Deadline.after(10)
    while report.evaluate("document.activeElement.scrollLeft") == 0:
        assert not deadline.passed()
        report.evaluate("() => new Promise(requestAnimationFrame)")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("light", 320), ("dark", 1200), ("dark", 320)])
def test_axe_finds_nothing_to_complain_about(opened: Open, scheme: str, width: int) -> None:
    # The one that fails has everything that the other has, and more.
    html = failing(EXPERIMENT if (scheme, width) == ("light", 1200) else SHORT)
    assert violations(opened(html, scheme=scheme, width=width)) == []


@pytest.mark.parametrize(
    ("there", "instead", "rule"),
    [
        ("--muted: #555d66", "--muted: #aaaaaa", "color-contrast"),
        (' alt="', ' data-alt="', "image-alt"),
        ('<html lang="en">', "<html>", "html-has-lang"),
        ("<h2 ", "<h5 ", "heading-order"),
        ('tabindex="0" role="group"', 'role="group"', "scrollable-region-focusable"),
        (' role="img" aria-labelledby="', ' role="img" data-labelledby="', "svg-img-alt"),
    ],
)
def test_axe_sees_what_is_broken(opened: Open, there: str, instead: str, rule: str) -> None:
    html = short()
    assert there in html
    # The digest of a changed style is not in the policy; nor is this test about it.
    broken = POLICY.sub("", html.replace(there, instead))
    if rule == "svg-img-alt":
        broken = re.sub(r'<title id="[^"]*">[^<]*</title>', "", broken)
    assert violations(opened(broken, width=320), rule)


def test_on_a_phone_the_page_is_never_wider_than_the_window(opened: Open) -> None:
    for html in (failing(), page.render(with_text("x" * 3000))):
        report = opened(html)
        for width in NARROW:
            report.page.set_viewport_size({"width": width, "height": 800})
            assert overflow(report) == 0
    wide = short().replace("</main>", "<pre>" + "x" * 3000 + "</pre></main>")
    broken = POLICY.sub("", wide).replace("white-space: pre-wrap", "white-space: pre")
    assert overflow(opened(broken, width=NARROW[0])) > 0


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>document.title = 'owned'; alert(1)</script>",
        '"><img src=x onerror="document.title=\'owned\'; alert(1)">',
        "'><svg onload=alert(1)><style>*{display:none}</style>",
        "</title></style></pre></text></svg><script>alert(1)</script>",
        "javascript:alert(1)//{{ 7 * 7 }}{% include '/etc/passwd' %}",
    ],
)
def test_what_a_mail_brings_along_is_text_and_nothing_else(opened: Open, hostile: str) -> None:
    report = opened(POLICY.sub("", page.render(with_text(hostile))))  # even without the policy
    assert (report.asked, report.complaints, report.dialogs) == ([], [], [])
    assert "owned" not in report.page.title() and report.page.locator("script, main img[src=x]").count() == 0
    assert hostile in (report.page.locator("#steps").text_content() or "")


def test_text_that_came_through_unescaped_would_be_noticed_and_stopped_by_the_policy(opened: Open) -> None:
    script = "<script>document.title = 'owned'</script>"
    unescaped = short().replace("</main>", f"{script}</main>")
    stopped = opened(unescaped)
    assert "owned" not in stopped.page.title() and stopped.complaints
    assert opened(POLICY.sub("", unescaped)).page.title() == "owned"


def test_on_paper_there_are_pages_of_a4_and_none_without_words(opened: Open, artifacts: Path) -> None:
    report = opened(passing(), scheme="dark").page
    report.emulate_media(media="print")
    assert report.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not report.locator("nav").is_visible()
    printed = report.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=True)
    (artifacts / "report.pdf").write_bytes(printed)
    document = pypdf.PdfReader(io.BytesIO(printed))
    texts = [unicodedata.normalize("NFKC", sheet.extract_text()) for sheet in document.pages]  # ﬁ is two letters
    assert 4 <= len(texts) <= 3 + 2 * len(EXPERIMENT["steps"])
    assert {(round(s.mediabox.width), round(s.mediabox.height)) for s in document.pages} == {A4}
    assert all(len(text.split()) > 60 for text in texts[:-1]) and texts[-1].split()
    titles = [step["title"] for step in EXPERIMENT["steps"]]
    heads = [*titles, *(step["row"] for step in EXPERIMENT["steps"])]
    for text in texts:  # a heading never stands alone at the foot of a page
        assert not [head for head in heads if "".join(text.split()).endswith("".join(head.split()))]
    whole = "".join("".join(texts).split())
    assert [title for title in titles if "".join(title.split()) not in whole] == []


@pytest.mark.parametrize(("name", "width"), [("light", 1200), ("dark", 1200), ("phone", 390), ("failing", 1200)])
def test_pictures_of_the_report_are_kept(opened: Open, artifacts: Path, name: str, width: int) -> None:
    report = opened(
        passing() if name == "light" else failing(SHORT) if name == "failing" else short(),
        width=width,
        scheme="dark" if name == "dark" else "light",
    ).page
    report.screenshot(path=artifacts / f"report-{name}.png", full_page=True)
    ground = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (name != "dark")
    assert (artifacts / f"report-{name}.png").stat().st_size > 10_000
