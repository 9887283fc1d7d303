"""Directories that mailstack must not touch, and paths that a user may give by mistake; all created for a test."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LAB = f"thesis-{secrets.token_hex(3)}"  # a folder that is called like a lab
SOMEBODY = 61235  # another user, whom nobody has to know
UP, DOWN = ("up", "-n", LAB), ("down", "-n", LAB)
DOWNS = (("down", "--stale"), DOWN, ("down", "--all"))
LOOKS = (("status", "-n", LAB), ("version",), ("config",), *DOWNS)


@dataclass(frozen=True)
class World:
    """The context of a situation: directories and the user."""

    top: Path  # everything is below it, and nothing else is there
    uid: int  # who runs mailstack
    home: str  # the name of the directory of the engine's labs
    own: set[Path] = field(default_factory=set)  # what mailstack may remove

    @property
    def root(self) -> str:
        """Return the name of mailstack's own directory below the given one."""
        return f"mailstack-labs-{self.uid}"

    def folder(self, path: str, mode: int = 0o755, uid: int | None = None) -> Path:
        """Create a directory that belongs to a user."""
        made = self.top / path
        made.mkdir(parents=True, exist_ok=True)
        made.chmod(mode)
        os.chown(made, self.uid if uid is None else uid, -1)
        return made

    def thesis(self, path: str) -> Path:
        """Create a folder of a user's documents, with the names of a lab and its files."""
        made = self.folder(path)
        for name in ("chapter-1.tex", "accounts", "aliases", "lab.json", "files/ca.pem", f"{LAB}/notes"):
            file = made / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{name}: a year's work\n")
            file.chmod(0o644)
        for each in made.rglob("*"):
            os.chown(each, self.uid, -1)
        return made

    def link(self, path: str, to: Path, uid: int | None = None) -> Path:
        """Create a symbolic link."""
        made = self.top / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.symlink_to(to)
        os.chown(made, self.uid if uid is None else uid, -1, follow_symlinks=False)
        return made

    def marked(self, path: str, kind: str, **more: str) -> Path:
        """Create a directory as mailstack does, with a marker."""
        made = self.folder(path, 0o700)
        (made / ".mailstack").write_text(json.dumps({"kind": kind, "format": 1, **more}))
        os.chown(made / ".mailstack", self.uid, -1)
        self.own.update((made, made / ".mailstack"))
        return made

    def engine(self, path: str) -> Path:
        """Create the directory of the engine's labs, below a root of mailstack."""
        self.folder(path)
        self.marked(f"{path}/{self.root}", "root")
        return self.marked(f"{path}/{self.root}/{self.home}", "engine")


@dataclass(frozen=True)
class Situation:
    """A directory for MAILSTACK_RUNTIME_DIR, and the commands to run with it."""

    name: str
    prepare: Callable[[World], Path]
    commands: tuple[tuple[str, ...], ...] = (*LOOKS, UP, DOWN)
    works: bool = False  # whether a lab comes up there


def _beside(path: str, make: Callable[[World, Path], object]) -> Callable[[World], Path]:
    """Return a function that creates a user's directory, with something in the place of mailstack's own directory."""

    def prepare(world: World) -> Path:
        world.thesis("home")
        named = world.folder("named")
        make(world, named / path.format(root=world.root, home=world.home))
        return named

    return prepare


def _inside(name: str, make: Callable[[World, Path], object]) -> Callable[[World], Path]:
    """Return a function that creates the same in a directory of labs that mailstack has created."""

    def prepare(world: World) -> Path:
        world.thesis("home")
        make(world, world.engine("named") / name)
        return world.top / "named"

    return prepare


def _to_home(world: World, path: Path) -> None:
    world.link(str(path.relative_to(world.top)), world.top / "home")


def _to_file(world: World, path: Path) -> None:
    world.link(str(path.relative_to(world.top)), world.top / "home/chapter-1.tex")


def _foreign(world: World, path: Path) -> None:
    world.thesis(str(path.relative_to(world.top)))


def _file(world: World, path: Path) -> None:
    path.write_text("a file\n")
    os.chown(path, world.uid, -1)


def _hard_link(world: World, path: Path) -> None:
    path.hardlink_to(world.top / "home/chapter-1.tex")


def _no_marker(world: World, path: Path) -> None:
    _file(world, world.folder(str(path)) / ".mailstack")


def _pipe(world: World, path: Path) -> None:
    os.mkfifo(path)
    os.chown(path, world.uid, -1)


def _state(world: World, owner: str = "somebody@here") -> str:
    return json.dumps(
        {"lab": LAB, "owner": owner, "expires": "1", "tag": "t", "files": [], "ports": {}, "engine": "", "stays": False}
    )


def _with_lab_json(world: World) -> Path:
    """Write lab.json as the version before markers did, for a lab that the engine does not have."""
    named = world.thesis("named")
    (named / LAB / "lab.json").write_text(_state(world, os.environ["MAILSTACK_OWNER"]))
    (named / LAB / "files").mkdir()
    (named / f"{LAB}.lock").touch()
    for each in named.rglob("*"):
        os.chown(each, world.uid, -1)
    return named


def _ancestor(world: World) -> Path:
    world.thesis("home")
    return world.link("through", world.top / "home", SOMEBODY) / "named"


def _planted(world: World) -> Path:
    """Create a link of another user in a directory that all users share."""
    world.thesis("home")
    shared = world.folder("shared", 0o1777, 0)
    world.link(f"shared/{world.root}", world.top / "home", SOMEBODY)
    return shared


def _shared(world: World) -> Path:
    world.folder(f"shared/{LAB}", 0o755, SOMEBODY)
    (world.top / "shared" / f"{LAB}.lock").write_text("not empty\n")
    (world.top / "shared" / "other.users").touch()
    return world.folder("shared", 0o1777, 0)


def _read_only(world: World) -> Path:
    world.thesis("named")
    return world.folder("named", 0o555)


def _links(world: World, path: Path) -> None:
    world.marked(str(path.relative_to(world.top)), "lab", lab=LAB, owner=os.environ["MAILSTACK_OWNER"])
    world.link(str((path / "files").relative_to(world.top)), world.top / "home")
    world.link(str((path / "changes").relative_to(world.top)), world.top / "home")
    world.link(str((path / "lab.json").relative_to(world.top)), world.top / "home/lab.json")
    world.own.update(path.iterdir())


def _odd(name: str) -> Situation:
    commands = (UP, ("status", "-n", LAB), DOWN)
    return Situation(f"a name with {name!r}", lambda world: world.folder(name), commands, works=":" not in name)


SITUATIONS = (
    Situation("a home with folders named like labs", lambda world: world.thesis("home"), works=True),
    Situation("a folder with the lab.json of a lab that the engine does not have", _with_lab_json, works=True),
    Situation("a directory that all share", _shared, works=True),
    Situation("a home that is read-only", _read_only, LOOKS),
    Situation("a link to a home", lambda world: world.link("link", world.thesis("home"))),
    Situation("a link to nothing", lambda world: world.link("link", world.top / "nothing")),
    Situation("below another user's link", _ancestor),
    Situation("below a link of one's own", lambda world: world.link("l", world.thesis("home")) / "new", works=True),
    Situation("another user's link as the root", _planted),
    Situation("a link as the root", _beside("{root}", _to_home)),
    Situation("a folder as the root", _beside("{root}", _foreign)),
    Situation("a file as the root", _beside("{root}", _file)),
    Situation("another user's directory as the root", _beside("{root}", lambda w, p: w.folder(str(p), uid=SOMEBODY))),
    Situation("a root whose marker is a link", _beside("{root}/.mailstack", _to_file)),
    Situation("a root whose marker is no marker", _beside("{root}", _no_marker)),
    Situation("a link as the engine's directory", _inside("../{home}-x", _to_home), works=True),
    Situation("a link as the lab", _inside(LAB, _to_home)),
    Situation("a folder as the lab", _inside(LAB, _foreign)),
    Situation("a file as the lab", _inside(LAB, _file)),
    Situation("another lab's directory as the lab", _inside(LAB, lambda w, p: w.marked(str(p), "lab", lab="other"))),
    Situation("a link as the lock", _inside(f"{LAB}.lock", _to_file)),
    Situation("a hard link as the lock", _inside(f"{LAB}.lock", _hard_link)),
    Situation("a pipe as the lock", _inside(f"{LAB}.lock", _pipe)),
    Situation("a file with something in it as another lab's lock", _inside("other.lock", _file), works=True),
    Situation("a link as the users' file", _inside(f"{LAB}.users", _to_file), LOOKS),
    Situation("a file with something in it as the users' file", _inside(f"{LAB}.users", _file), LOOKS),
    Situation("links in the lab's directory", _inside(LAB, _links), DOWNS),
    Situation("another user's directory", lambda world: world.folder("others", 0o755, SOMEBODY)),
    Situation("a directory that all may write to", lambda world: world.folder("open", 0o777)),
    Situation("a file", lambda world: world.thesis("home") / "chapter-1.tex"),
    Situation("below a file", lambda world: world.thesis("home") / "chapter-1.tex/below"),
    *map(_odd, ("a space", "a:colon", "a$HOME", 'it\'s "quoted"', "a,b=c", "#hash", "ümlaut", "back\\slash", "-n")),
)


SECRETS = (
    Situation("nothing yet", lambda world: world.top / "new", works=True),
    Situation("an empty directory", lambda world: world.folder("empty"), works=True),
    Situation("a home", lambda world: world.thesis("home")),
    Situation("a link to a home", lambda world: world.link("link", world.thesis("home"))),
    Situation("a file", lambda world: world.thesis("home") / "accounts"),
    Situation("an empty directory that all share", lambda world: world.folder("shared", 0o1777)),
    Situation("an empty directory of another user", lambda world: world.folder("others", 0o777, SOMEBODY)),
    Situation("mailstack's own root", lambda world: world.engine("named").parent),
    Situation("a directory with a lab", lambda world: world.marked("lab", "lab", lab=LAB)),
    Situation("a name that the engine cannot mount", lambda world: world.top / "a:colon"),
)


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below a directory, with all attributes that a change would affect."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, files in os.walk(top):
        for name in (".", *folders, *files):
            path = Path(place) / name
            status = path.lstat()
            about: list[object] = [status.st_mode, status.st_uid, status.st_gid]
            if stat.S_ISLNK(status.st_mode):
                about.append(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                about += [status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()]
            found[os.path.normpath(path)] = tuple(about)
    return found
