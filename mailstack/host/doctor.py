"""Check the requirements of a lab on its host one by one, with a remedy for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailstack.definition import bundled
from mailstack.engine import compose
from mailstack.engine.engine import Engine
from mailstack.errors import MailstackError
from mailstack.host import requirements
from mailstack.images import base, build
from mailstack.model import PORTS, Command, Json
from mailstack.network import ports
from mailstack.runner.local import Runner
from mailstack.storage import directories
from mailstack.target.target import Target


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True  # True: `up` fails without it. False: `up` creates it, and takes longer

    def json(self) -> Json:
        """Return it in the form of `mailstack doctor --json`."""
        return {
            "name": self.name,
            "ok": self.ok,
            "required": self.required,
            "found": self.found,
            "remedy": "" if self.ok else self.remedy,
        }


def examine(runner: Runner, engine: Engine) -> list[Finding]:
    """Check all requirements of a lab, without changing anything."""
    info, target = _engine(engine), engine.target
    findings = [info if isinstance(info, Finding) else Finding("engine", True, target.description)]
    if isinstance(info, dict):
        findings += [_version(info), _kernel(target, info), _disk(target, info), _base(engine), _images(engine)]
    findings += [_compose(runner), _free_ports(), _secrets()]
    if target.host:
        findings += [_remote_secrets(target), _clock(target)]
    return findings


def _engine(engine: Engine) -> dict[str, Any] | Finding:
    try:
        return engine.info()
    except MailstackError as error:
        return Finding("engine", False, error.happened(), error.remedy)


def _version(info: dict[str, Any]) -> Finding:
    version = str(info.get("ServerVersion", ""))
    remedy = f"install Docker Engine {requirements.oldest()} or newer"
    return Finding("engine version", requirements.new_enough(version), version, remedy)


def _kernel(target: Target, info: dict[str, Any]) -> Finding:
    """Check for bridge networks, system call filters, and the sysctl that keeps packets on this host (ip(7))."""
    missing = []
    if "bridge" not in info.get("Plugins", {}).get("Network", []):
        missing.append("bridge networks")
    if not any("seccomp" in option for option in info.get("SecurityOptions", [])):
        missing.append("seccomp")
    if (
        target.shares_kernel
        and Path("/proc/sys/net").is_dir()
        and not Path("/proc/sys/net/ipv4/ip_default_ttl").exists()
    ):
        missing.append("net.ipv4.ip_default_ttl")
    if not info.get("MemoryLimit", True):
        missing.append("memory limits")
    kernel = f"{info.get('KernelVersion')}, {info.get('Driver')}, cgroup v{info.get('CgroupVersion', '1')}"
    found = kernel + (f"; without {', '.join(missing)}" if missing else "")
    return Finding("kernel", not missing, found, "use a kernel and an engine that support them")


def _disk(target: Target, info: dict[str, Any]) -> Finding:
    root, free = requirements.disk(target, info)
    return Finding(
        "disk",
        free >= requirements.FREE_BYTES,
        f"{free / 1024**3:.1f} GiB free at {root}",
        "free unused space: docker system prune",
    )


def _base(engine: Engine) -> Finding:
    present = engine.has_image(base.BASE)
    otherwise = "sends the images" if engine.target.host else "makes it from Debian's packages"
    note = "" if present else f"not there; `up` pulls it, or {otherwise}"
    return Finding(
        "base image", present, base.BASE + (f": {note}" if note else ""), engine.target.line("up"), required=False
    )


def _images(engine: Engine) -> Finding:
    tag = build.content_tag(bundled.stack())
    missing = [name for name, image in bundled.images(tag).items() if not engine.has_image(image)]
    found = f"mailstack/…:{tag}" + (f": {', '.join(missing)} not built yet" if missing else "")
    how = f"{engine.target.line('up')} builds them" + (", or sends them there" if engine.target.host else "")
    return Finding("images", not missing, found, how, required=False)


def _compose(runner: Runner) -> Finding:
    try:
        binary = compose.find(runner)
    except MailstackError as error:
        return Finding("Compose", False, error.happened(), error.remedy)
    return Finding("Compose", True, f"{'.'.join(map(str, compose.version_of(runner, binary)))} ({binary})")


def _free_ports() -> Finding:
    try:
        numbers = ports.choose("lab", len(PORTS))
    except MailstackError as error:
        return Finding("ports", False, error.happened(), "stop what listens there")
    return Finding("ports", True, f"127.0.0.1:{numbers[0]} and {len(numbers) - 1} more are free")


def _secrets() -> Finding:
    try:
        directory = directories.base()
    except MailstackError as error:
        return Finding("secrets", False, error.happened(), error.remedy)
    remedy = "set MAILSTACK_RUNTIME_DIR to a private directory on tmpfs"
    return _on_tmpfs("secrets", str(directory), _file_system(directory), remedy)


def _remote_secrets(target: Target) -> Finding:
    directory = target.secrets_directory
    kind = target.runner.run(Command(("stat", "-f", "-c", "%T", directory))).stdout.strip()
    return _on_tmpfs("secrets there", directory, kind, "mount a tmpfs on /dev/shm there")


def _on_tmpfs(name: str, directory: str, kind: str, remedy: str) -> Finding:
    return Finding(
        name,
        kind in ("tmpfs", "ramfs"),
        f"{directory} on {kind or 'a file system of unknown kind'}",
        f"{remedy}; elsewhere secrets would be written to a disk",
        required=False,
    )


def _clock(target: Target) -> Finding:
    target.look()
    same = abs(target.clock_ahead) < requirements.SKEW_SECONDS
    return Finding(
        "clock there",
        same,
        "as here" if same else requirements.difference(target.clock_ahead),
        "set both by NTP: times in traces and mails are the host's, and its servers look at certificates made here",
        required=False,
    )


def _file_system(directory: Path) -> str:
    """Return the type of a directory's file system: that of the longest mount point above it in /proc/mounts."""
    best = ("", "")
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind = line.split()[:3]
        if directory.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def is_ready(findings: list[Finding]) -> bool:
    """Return whether a lab can be brought up."""
    return all(finding.ok for finding in findings if finding.required)
