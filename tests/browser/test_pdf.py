"""The report as PDF, printed by the browser of this machine as `experiment --out FILE.pdf` does."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pypdf
import pytest

from mailstack.report import page, pdf
from mailstack.runner.local import Local
from tests.browser.conftest import chromium

pytestmark = pytest.mark.browser

DOCUMENT = json.loads((Path(__file__).parents[1] / "data" / "experiment.json").read_text(encoding="utf-8"))


def test_the_report_is_printed_with_its_author_and_leads_to_no_file_of_this_machine() -> None:
    chromium()
    row = {"setting": "relayhost", "original": "[the provider]:587", "value": "[postfix]:25", "verdict": "fail"}
    document = DOCUMENT | {
        "author": "Zoë <b>Přík</b>",
        "settings": [row | {"reason": "port 25", "remedy": "postconf"}],
    }
    printed = pypdf.PdfReader(io.BytesIO(pdf.printed(page.render(document, alone=True), pdf.browser(), Local())))
    texts = [each.extract_text() for each in printed.pages]
    assert "Zoë <b>Přík</b>" in texts[0]
    assert "[postfix]:25" in "".join(texts)
    links = [
        each.get_object().get("/A", {}).get("/URI", "") for sheet in printed.pages for each in sheet.get("/Annots", ())
    ]
    assert [link for link in links if link] == []
    print(f"{len(texts)} pages")
