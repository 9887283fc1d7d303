"""The experiment, run by the command: every row is a step, nothing is left, and no secret is shown."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailstack.config import files
from mailstack.engine import projects
from mailstack.experiment.performance import all_steps
from mailstack.lab import homes
from mailstack.report.failing import failures
from tests import engines
from tests.docker.bad import MAILSTACK, Traces, alone, run, until

pytestmark = pytest.mark.docker

SECONDS = 15.0  # how long it may take until nothing is left of one that was killed

# What the experiment says, row by row, and the steps that show it.
ROWS = {
    "1. Postfix, the SASL tools and mailutils are installed": {"install"},
    "2. an Internet Site with the system mail name": {"mailname"},
    "3. relayhost": {"relayhost"},
    "3. smtp_sasl_auth_enable": {"smtp_sasl_auth_enable"},
    "3. smtp_sasl_security_options": {"smtp_sasl_security_options"},
    "3. smtp_sasl_password_maps": {"smtp_sasl_password_maps"},
    "3. smtp_use_tls": {"smtp_use_tls"},
    "3. smtp_tls_CAfile": {"smtp_tls_CAfile"},
    "3. readme_directory": {"readme_directory"},
    "3. smtpd_tls_cert_file": {"smtpd_tls_cert_file"},
    "3. smtpd_tls_key_file": {"smtpd_tls_key_file"},
    "3. smtpd_use_tls": {"smtpd_use_tls"},
    "3. smtpd_tls_session_cache_database": {"smtpd_tls_session_cache_database"},
    "3. smtp_tls_session_cache_database": {"smtp_tls_session_cache_database"},
    "3. an authenticated relay, and TLS": {"tls-and-sasl"},
    "4. sasl_passwd, postmap, restart": {"credentials"},
    "5. a mail is sent from the terminal": {"send"},
    "6. it arrives, and can be answered": {"arrive", "answer"},
    "theory: the parts": {"parts"},
    "theory: two models": {"store-and-forward", "end-to-end"},
    "theory: the queue": {"queue"},
    "theory: the dialogue, and what a message is": {"dialogue", "message"},
    "theory: MIME": {"mime"},
    "theory: receiving": {"receiving"},
    "theory: many hops": {"hops"},
    "the roles of the machines": {"lab", "roles"},
    "with relay.yaml": {"outside"},
}


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """Yield an owner and a runtime directory for this module."""
    with alone("experiment") as found:
        yield found


@dataclass(frozen=True)
class Performed:
    """A run of the experiment: its document, its folder, and the secrets of its lab."""

    document: Any
    folder: Path
    secrets: dict[str, str]
    lab: str


@pytest.fixture(scope="module")
def performed(traces: Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performed]:
    """Run the experiment on the unchanged lab, which is kept until its secrets are known."""
    folder = tmp_path_factory.mktemp("report") / "lab"
    outcome = run(["experiment", "--json", "--keep", "--out", str(folder)])
    assert outcome.code == 0, [step["reason"] for step in json.loads(outcome.out)["steps"] if step["reason"]]
    found = re.search(r"the lab is kept: mailstack down -n (\S+) removes it", outcome.err)
    assert found, outcome.err
    there = homes.directory(engines.here(), found[1]).files
    secrets = {address: password.reveal() for address, password in files.passwords(there).items()}
    relay = files.read_relay(there)
    assert relay
    secrets["relay"] = relay[1].reveal()
    yield Performed(json.loads(outcome.out), folder, secrets, found[1])
    assert run(["down", "-n", found[1]]).code == 0
    assert traces.all() == set()


def test_every_step_passes_and_shows_evidence(performed: Performed) -> None:
    document = performed.document
    assert {step["id"]: step["reason"] for step in document["steps"] if step["verdict"] != "pass"} == {}
    assert (document["verdict"], document["failed"], document["passed"]) == ("pass", 0, len(document["steps"]))
    assert [step["id"] for step in document["steps"] if not step["evidence"]] == []
    print(f"the experiment took {document['seconds']} s")


def test_every_row_of_the_experiment_is_a_step_and_every_step_a_row(performed: Performed) -> None:
    covered = [id for steps in ROWS.values() for id in sorted(steps)]
    assert sorted(covered) == sorted(step["id"] for step in performed.document["steps"])
    assert [step["id"] for step in performed.document["steps"]] == [step.id for step in all_steps()]


def _shape(found: Any, written: Any, place: str = "") -> Iterator[str]:
    """Return where the keys or types of a document differ from the documented ones."""
    if isinstance(written, dict) and isinstance(found, dict):
        for key in written:
            if key not in found:
                yield f"{place}.{key} is not there"
            else:
                yield from _shape(found[key], written[key], f"{place}.{key}")
    elif isinstance(written, list) and isinstance(found, list):
        for each in found if written else ():
            yield from _shape(each, written[0], f"{place}[]")
    elif not isinstance(found, type(written)) and not (isinstance(found, int) and isinstance(written, float)):
        yield f"{place} is {found!r}, not like {written!r}"


def test_the_document_is_as_written_down(performed: Performed) -> None:
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    section = text.partition("## `mailstack experiment --json`")[2]
    written = json.loads(re.findall(r"```json\n(.*?)```", section, re.DOTALL)[0])
    for step in written["steps"]:
        del step["evidence"]
    assert list(_shape(performed.document, written)) == []
    kinds = {
        "text": {"title", "text"},
        "table": {"title", "headings", "rows"},
        "image": {"title", "name", "type", "base64"},
        "journey": {"title", "journey"},
        "dialogue": {"title", "dialogue"},
    }
    seen = set()
    for step in performed.document["steps"]:
        for evidence in step["evidence"]:
            kind = evidence["kind"]
            seen.add(kind)
            assert set(evidence) == {"kind", *kinds[kind]}, step["id"]
            if kind == "table":
                assert {len(row) for row in evidence["rows"]} == {len(evidence["headings"])}, step["id"]
    assert seen == set(kinds)


def test_the_report_is_a_folder_with_the_page_the_document_and_the_evidence(performed: Performed) -> None:
    assert {path.name for path in performed.folder.iterdir()} == {"index.html", "experiment.json", "evidence"}
    assert json.loads((performed.folder / "experiment.json").read_text()) == performed.document
    names = {path.name for path in (performed.folder / "evidence").iterdir()}
    assert names >= {"sender.log", "postfix.log", "dovecot.log", "dialogue.json", "dialogue.txt", "letter.png"}
    assert {f"journey-{model}.json" for model in performed.document["journeys"]} <= names
    assert set(performed.document["journeys"]) == {"store-and-forward", "end-to-end"}
    page = (performed.folder / "index.html").read_text()
    assert all(step["id"].lower().replace("_", "-") in page for step in performed.document["steps"])


def test_no_secret_is_in_the_report_in_any_form(performed: Performed) -> None:
    forms = {}
    for owner, secret in performed.secrets.items():
        assert len(secret) >= 20
        forms[owner] = secret
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + secret.encode()).decode()
            forms[f"{owner} in base64, from byte {before}"] = encoded[4:28]
        forms[f"{owner} in hexadecimal"] = secret.encode().hex()
        forms[f"{owner} backwards"] = secret[::-1]
    texts = {path: path.read_text(errors="replace") for path in performed.folder.rglob("*") if path.is_file()}
    assert len(texts) > 10
    found = [(form, path.name) for form, secret in forms.items() for path, text in texts.items() if secret in text]
    assert found == []
    assert not any("PRIVATE KEY" in text for text in texts.values())


def test_a_second_report_takes_the_place_of_the_first_and_of_nothing_else(traces: Traces, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    outcome = run(["experiment", "--out", str(tmp_path)])
    assert (outcome.code, len(outcome.messages), outcome.out) == (2, 1, "")
    assert "has something else in it" in outcome.messages[0]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("environment", "overlay", "code", "says"),
    [
        ({"DOCKER_HOST": "unix:///nowhere"}, "x-mailstack: {}", 3, "no Docker engine answers"),
        ({}, "x-mailstack: {colour: red}", 2, "x-mailstack.colour: is not allowed here"),
    ],
    ids=["no engine", "a wrong overlay"],
)
def test_what_cannot_even_begin_leaves_nothing(
    environment: dict[str, str], overlay: str, code: int, says: str, traces: Traces, tmp_path: Path
) -> None:
    before = traces.all()
    file = tmp_path / "overlay.yaml"
    file.write_text(overlay)
    outcome = run(["experiment", "-f", str(file), "--out", str(tmp_path / "report")], environment)
    assert (outcome.code, len(outcome.messages), outcome.out, outcome.rest) == (code, 1, "", [])
    assert says in outcome.messages[0]
    assert traces.all() == before
    assert not (tmp_path / "report").exists()


BROKEN = "x-mailstack:\n  settings:\n    dovecot: |\n      no_such_setting = yes\n"

# What can be shown without a Dovecot: what stands on the student's machine.
WITHOUT_DOVECOT = {"install", "credentials", "mailname"} | {
    id for row, ids in ROWS.items() for id in ids if row.startswith("3. ") and id != "tls-and-sasl"
} - {"smtp_tls_session_cache_database", "smtpd_tls_session_cache_database"}


def test_with_dovecot_broken_it_exits_with_1_and_names_the_rows_that_failed_and_why(
    traces: Traces, tmp_path: Path
) -> None:
    before = traces.all()
    overlay = tmp_path / "broken.yaml"
    overlay.write_text(BROKEN)
    outcome = run(["experiment", "-f", str(overlay), "--out", str(tmp_path / "report")])
    assert outcome.code == 1 and "Traceback" not in outcome.err, outcome
    document = json.loads((tmp_path / "report" / "experiment.json").read_text())
    failed = {step["id"]: step["reason"] for step in document["steps"] if step["verdict"] == "fail"}
    assert set(failed) == {step.id for step in all_steps()} - WITHOUT_DOVECOT
    assert (document["verdict"], document["failed"]) == ("fail", len(failed))
    assert "dovecot exited with code" in failed["lab"]
    assert all(failed.values())
    assert "no_such_setting" in (tmp_path / "report" / "evidence" / "dovecot.log").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    causes = failures(document["steps"])
    assert sum(1 + len(cause.same) for cause in causes) == len(failed)
    for cause in causes:
        assert f"\nrow {cause.number} failed: " in outcome.out
    for id in failed:
        assert f'href="#step-{id.lower().replace("_", "-")}"' in page
    assert failed["arrive"].startswith("it needs “A mail is sent from the terminal”, which failed: ")
    # How far the first mail came is shown all the same.
    assert document["journeys"]["store-and-forward"]["status"] == "waiting"
    assert "waits here" in (tmp_path / "report" / "evidence" / "topology.svg").read_text()
    assert [line for line in outcome.out.splitlines() if len(line) > 80 and not line.startswith("report ")] == []
    assert traces.all() == before


@pytest.mark.parametrize("moment", ["starting the containers", "A mail is sent from the terminal"])
def test_interrupted_half_way_it_leaves_nothing(moment: str, traces: Traces, tmp_path: Path) -> None:
    before = traces.all()
    report = tmp_path / "report"
    with subprocess.Popen(
        (MAILSTACK, "experiment", "--out", str(report)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if moment in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (130, ""), err
    assert "mailstack: interrupted" in err
    assert "Traceback" not in err
    assert traces.all() == before
    assert not report.exists()


@pytest.mark.parametrize(
    ("moment", "options"), [("starting the containers", ("--keep",)), ("second lab", ())], ids=["keep", "second lab"]
)
def test_killed_half_way_it_leaves_nothing_also_where_its_lab_was_to_be_kept(
    moment: str, options: tuple[str, ...], traces: Traces
) -> None:
    before = traces.all()
    with subprocess.Popen((MAILSTACK, "experiment", *options), stderr=-1, stdout=-3, text=True) as process:
        assert process.stderr
        if moment == "second lab":
            assert until(lambda: any(re.match(r"container .*-out-", thing) for thing in traces.engine()), 60)
        else:
            assert any(moment in line for line in process.stderr)
        process.kill()
    assert traces.all() > before
    until(lambda: traces.all() == before and not traces.processes(), SECONDS)
    assert (traces.all(), traces.processes()) == (before, {})


def test_a_lab_that_is_kept_is_guarded_by_nobody(traces: Traces) -> None:
    outcome = run(["experiment", "--keep", "--json"])
    assert outcome.code == 0, outcome
    name = re.search(r"mailstack down -n (\S+) removes it", outcome.err)
    assert name
    try:
        assert until(lambda: not traces.processes(), 2)
        assert sum(thing.startswith(f"container /{projects.project_name(name[1])}-") for thing in traces.engine()) == 3
        assert run(["down", "--stale"]).out == "nothing to remove\n"
    finally:
        assert run(["down", "-n", name[1]]).code == 0
