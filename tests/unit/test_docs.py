"""The documents match the code: commands, options, JSON shapes, keys of the definition."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import click.testing
import pytest

from mailstack import plugin
from mailstack.cli.main import COMMANDS, cli
from mailstack.definition import schema
from mailstack.definition.bundled import compose_file
from mailstack.host import doctor

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
JSON = (ROOT / "docs" / "json.md").read_text()
DEFINITION = (ROOT / "docs" / "definition.md").read_text()


# Documents with options of curl, docker, apt-get and others.
OTHER_PROGRAMS = {"architecture.md", "decisions.md", "ci.md", "environment.md", "remote.md"}


def _command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def _leaves() -> list[tuple[str, click.Command]]:
    """Return every command that is not a group."""
    found = []
    for name in COMMANDS:
        command = _command(name)
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", each) for sub, each in command.commands.items()]
        else:
            found.append((name, command))
    return found


def test_the_readme_s_table_has_every_command_and_says_of_it_what_help_does() -> None:
    rows = re.findall(r"^\| `mailstack (\w+)` \| (.*) \|$", README, re.MULTILINE)
    assert [(name, f"{text}.") for name, text in rows] == [(name, text) for name, (_, text) in COMMANDS.items()]


def test_every_command_and_every_option_is_explained_by_its_help() -> None:
    for name, command in _leaves():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name}: {parameter.name}"


def test_every_command_that_answers_takes_json() -> None:
    without = {name for name, command in _leaves() if not any(p.name == "as_json" for p in command.params)}
    assert without == {"shell", "provision"}


def test_every_answer_s_document_is_written_down() -> None:
    for name, _ in _leaves():
        word = name.split()[-1]
        if word not in ("shell", "provision"):
            assert re.search(rf"(mailstack|`){' ' if name == word else ''}{word}\b", JSON) or f"`{word}`" in JSON, name


def test_the_examples_in_the_documents_are_json() -> None:
    for block in re.findall(r"```json\n(.*?)```", JSON, re.DOTALL):
        json.loads(block)


def test_options_named_in_the_documents_exist() -> None:
    known = {option for _, command in _leaves() for p in command.params for option in p.opts}
    known |= {"--version", "--help", "--volumes", "--requirement"}
    for document in (path for path in DOCUMENTS if path.name not in OTHER_PROGRAMS):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", document.read_text()):
            assert option in known or option.startswith("--mailstack-"), f"{document.name}: {option}"


def test_every_option_of_the_plugin_is_in_its_table() -> None:
    plugin = (ROOT / "mailstack" / "plugin.py").read_text()
    table = (ROOT / "docs" / "pytest.md").read_text().partition("## Options")[2]
    options = re.findall(r'"(--mailstack-[a-z]+)"[,\s]*(?:metavar|action)', plugin)
    assert options == re.findall(r"^\| `(--mailstack-[a-z]+)", table, re.MULTILINE) and len(options) == 4


def test_every_key_of_the_definition_is_written_down() -> None:
    for key in ("mailname", "domains", "accounts", "aliases", "limits.message_size", "limits.mailbox_quota"):
        assert f"| `{key}` |" in DEFINITION
    for key in ("relay.host", "relay.port", "blank", "settings.postfix", "settings.sender", "settings.dovecot"):
        assert f"`{key}`" in DEFINITION


def test_the_lab_of_the_definition_is_the_one_in_the_documents() -> None:
    import yaml

    lab = schema.parse(yaml.safe_load(compose_file("lab.yaml").read_text()))
    assert (lab.mailname, lab.limits.message_size) == ("example.com", 10 * 1024**2)
    assert [domain.name for domain in lab.domains] == ["example.com", "example.org"]


def test_the_readme_s_overlay_is_a_valid_one() -> None:
    import yaml

    overlay = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    base = yaml.safe_load(compose_file("lab.yaml").read_text())
    for key, value in overlay[schema.BLOCK].items():
        base[schema.BLOCK][key] = {**base[schema.BLOCK].get(key, {}), **value}
    lab = schema.parse(base)
    assert "dora@example.com" in lab.addresses() and lab.settings.dovecot == "mail_debug = yes\n"


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", document.read_text()):
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name}: {target}"
            assert not heading or heading in _headings(path.read_text()), f"{document.name}: {target}#{heading}"


def _headings(text: str) -> list[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_readme_leads_to_every_document() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", README))
    assert {str(document.relative_to(ROOT)) for document in DOCUMENTS[1:]} <= linked


def test_exit_codes_are_in_the_document() -> None:
    from mailstack import errors

    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")}
    table = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert set(map(int, table)) == codes | {0}


def test_each_option_of_the_plugin_is_in_its_document_and_no_other() -> None:
    text = (ROOT / "docs" / "pytest.md").read_text()
    parser = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    (group,) = [group for group in parser._groups if group.name == "mailstack"]
    options = {(option.names()[0], option.attrs().get("metavar")) for option in group.options}
    told = re.findall(r"^\| `(--mailstack-\S+?)(?: (\S+))?` \|", text, re.MULTILINE)
    assert {(name, metavar or None) for name, metavar in told} == options


def test_help_fits_eighty_columns() -> None:
    for words in (["--help"], *([*name.split(), "--help"] for name, _ in _leaves())):
        shown = click.testing.CliRunner().invoke(cli, words, prog_name="mailstack").output
        assert all(len(line) <= 80 for line in shown.splitlines()), words


def test_each_room_of_the_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.stem for path in (ROOT / "mailstack").glob("*.py") if not path.stem.startswith("__")}
    folders = {f"{path.parent.name}/" for path in (ROOT / "mailstack").glob("*/__init__.py")}
    assert {room for room in modules | folders if f"`{room}`" not in text} == set()


def test_doctor_s_findings_carry_a_remedy_where_something_is_missing() -> None:
    finding = doctor.Finding("engine", False, "no", "do this")
    assert not doctor.is_ready([finding]) and doctor.is_ready([doctor.Finding("images", False, "no", required=False)])


@pytest.mark.parametrize("variable", ["", "1"])
@pytest.mark.process
def test_output_in_a_pipe_has_no_colour(variable: str) -> None:
    code = "from mailstack.cli.output import table; table(('a', 'b'), [('pass', 'fail')])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"NO_COLOR": variable}
    ).stdout
    assert "\x1b" not in shown and "pass" in shown


_RIDDLE = re.compile(r"(?:^|[.:;!?]\s+|^[-*|]\s*\**)((?:Who|Whoever|Whatever|What)\b[^.?!]*[.?!]?)", re.MULTILINE)


def _riddles(text: str) -> list[str]:
    """Return the sentences that begin with "Who" or "What" and ask nothing."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [sentence for sentence in _RIDDLE.findall(prose) if not sentence.endswith("?")]


def test_no_sentence_of_a_document_or_of_a_help_text_begins_with_who_or_what() -> None:
    texts = {path.name: path.read_text() for path in DOCUMENTS}
    texts |= {name: command.help or "" for name, command in _leaves()}
    assert {name: found for name, text in texts.items() if (found := _riddles(text))} == {}
    assert _riddles("It is so. Who has it keeps it. What is it?") == ["Who has it keeps it."]


def test_each_place_of_a_change_exists() -> None:
    text = (ROOT / "tests" / "data" / "places.md").read_text()
    places = re.findall(r"^\| .* \| `([^`]+)` \|$", text, re.MULTILINE)
    assert len(places) == 20 and [place for place in places if not (ROOT / place).is_file()] == []
