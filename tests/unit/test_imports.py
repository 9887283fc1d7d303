"""Imports point one way: from the command line down to the errors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mailstack

PACKAGE = Path(mailstack.__file__).parent

# From the ground up; a module imports only from those before it. One line, one floor: no imports within it.
FLOORS = (
    ("stdio", "errors", "model", "addresses", "definition", "durations", "hint", "streams", "replies", "fields"),
    ("hypertext", "faults.entry", "jsonfile"),
    ("following", "layers", "unixapi", "news", "hosts", "printed", "foreign"),
    ("imap",),
    ("child",),
    ("faults.local", "faults.login", "faults.network", "faults.refusals", "faults.tls"),
    ("storage", "ports", "subnets", "runner", "labfile", "report", "dialer", "faults", "dialogue"),
    ("secret", "remote.transport", "remote.execution"),
    ("state",),
    ("remote.login",),
    ("remote",),
    ("control",),
    ("hosting",),
    ("tunnel", "engine"),
    ("home", "elsewhere"),
    ("mime", "outgoing", "attachments", "transfer", "machine"),
    ("figures", "figures.svg", "figures.path"),
    ("figures.sequence", "figures.timeline", "figures.topology"),
    ("page",),
    ("base",),
    ("pki", "render", "compose", "images", "mail", "places", "message"),
    ("trace", "trace.lines", "load", "load.plan"),
    (
        "files",
        "provision",
        "versions",
        "archive",
        "mailboxes",
        "users",
        "guests",
        "claims",
        "trace.events",
        "trace.rotation",
    ),
    ("trace.collect", "trace.journey", "trace.stations"),
    ("trace.described",),
    ("trace.outcomes",),
    ("trace.assemble", "load.ledger"),
    ("running", "needs", "services"),
    ("doctor",),
    ("credentials", "prove", "outside", "resolve", "down", "queues", "load.arrivals", "load.sending"),
    ("tracing", "accounts", "looks", "environment", "checks", "checks.bench"),
    ("post",),
    ("answering", "recording"),
    ("checks.listeners",),
    (
        *("checks.auth", "checks.tls", "checks.delivery", "checks.relay", "checks.queue", "checks.closed"),
        *("checks.smuggling", "checks.exposure"),
    ),
    ("lab", "load.performance", "experiment", "experiment.evidence", "experiment.folder"),
    ("experiment.scene",),
    ("experiment.step",),
    ("experiment.machine", "experiment.first_mail", "experiment.settings", "experiment.queue", "experiment.talk"),
    ("experiment.facts", "experiment.theory", "experiment.models", "experiment.mailbox"),
    ("experiment.roles",),
    ("experiment.performance",),
    ("reaper", "prepare", "cli.output"),
    ("cli.several",),
    ("cli.where",),
    ("cli.several",),
    ("cli.where",),
    ("cli.lifecycle", "cli.account", "cli.mailboxes", "cli.checking", "cli.host", "cli.images", "cli.queue"),
    ("cli.access", "cli.messages", "cli.dialogue", "cli.env", "cli.experiment", "cli.explain", "cli.trace", "cli.load"),
    ("cli",),
    ("testing.received", "testing.settings"),
    ("testing.criteria",),
    ("testing.mailbox",),
    ("testing.factory", "testing.evidence"),
    ("testing",),
    ("plugin",),
    ("__main__",),
)
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}

# `all_checks` gathers the families, which are written with what the package itself gives.
FAMILIES = next(floor for floor in FLOORS if "checks.auth" in floor)
ALLOWED = {("checks", family) for family in FAMILIES} | {("checks", "checks.bench"), ("checks.bench", "checks")}


def modules() -> dict[str, Path]:
    """Every module of the package, by its name below `mailstack`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and "_data" not in parts:
            found[name] = path
    return found


def imported(path: Path) -> set[str]:
    """The package's own modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mailstack"):
            below = node.module.removeprefix("mailstack").lstrip(".")
            for alias in node.names:
                full = f"{below}.{alias.name}".lstrip(".")
                names.add(full if full in FLOOR else below)
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("mailstack.") for alias in node.names if "mailstack." in alias.name}
    return {name for name in names if name}


def test_every_module_has_a_floor() -> None:
    assert set(modules()) == set(FLOOR)


def test_imports_point_downwards_only() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in modules().items()
        for other in sorted(imported(path))
        if FLOOR[other] >= FLOOR[module] and (module, other) not in ALLOWED
    ]
    assert not wrong


def test_only_the_runner_starts_processes() -> None:
    users = [name for name, path in modules().items() if "subprocess" in path.read_text()]
    assert users == ["child"]
    starters = {name for name, path in modules().items() if "Child" in path.read_text()}
    assert starters == {"child", "runner"}


def test_only_the_engine_imports_the_docker_sdk() -> None:
    users = [
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "docker" for alias in node.names)
    ]
    assert set(users) == {"engine"}


def test_only_remote_imports_fabric_and_what_is_below_it() -> None:
    users = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and {each.name.split(".")[0] for each in node.names} & {"fabric", "paramiko"}
    }
    assert users == {"remote.login", "remote.transport"}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from mailstack.cli import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"docker", "fabric", "rich", "yaml", "cryptography", "imap_tools", "requests", "ssl", "jinja2", "paramiko"}
    assert not heavy & set(loaded)
