"""Bringing a lab up: to its definition, and proven."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mailstack import claims, compose, definition, elsewhere, files, hint, home, hosting, images, labfile, needs, state
from mailstack.down import LOCK_SECONDS, Progress, remove
from mailstack.engine import Engine, engine_url, own_engine
from mailstack.errors import (
    CheckFailed,
    DeadlinePassed,
    HostError,
    InputError,
    MailstackError,
)
from mailstack.model import Countdown, Deadline, Endpoint, Json, Lab, Network, Relay
from mailstack.resolve import read_definition, resolve
from mailstack.roles import Role
from mailstack.runner import Local, Runner, last_lines, must
from mailstack.running import RunningLab, endpoints_json, project
from mailstack.secret import Secret
from mailstack.services import Endings, Starts
from mailstack.users import Watch

# How long a part may take before it is given up, in seconds: many times what a slow machine needs.
UP_SECONDS = 120.0
READY_SECONDS = 30.0
ENSURE_SECONDS = 900.0  # somebody else's `up`, with images that are built

_WAITING = "waiting for another command on this lab"


@dataclass(frozen=True, slots=True)
class Request:
    """What `up` was asked for."""

    name: str = "lab"
    overlays: tuple[Path, ...] = ()
    relay: Relay | None = None
    credentials: Path | None = None
    relay_ca: Path | None = None
    keep: bool = False
    ttl: float | None = None  # seconds
    patience: float = READY_SECONDS  # how long, in seconds, the mail that proves it may take


@dataclass(frozen=True, slots=True)
class Verified:
    """The mail that proved the lab."""

    message_id: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What `up` has to say."""

    lab: str
    services: tuple[str, ...]
    endpoints: Mapping[str, Endpoint]
    ca_file: Path
    accounts: tuple[str, ...]
    verified: Verified
    seconds: Mapping[str, float]  # part → how long it took, `total` among them
    notes: tuple[str, ...] = ()

    def json(self) -> Json:
        """The document of `mailstack up --json`; its shape is in docs/json.md."""
        return {
            "lab": self.lab,
            "services": list(self.services),
            "endpoints": endpoints_json(self.endpoints),
            "ca_file": str(self.ca_file),
            "accounts": list(self.accounts),
            "verified": {
                "message_id": self.verified.message_id,
                "milliseconds": round(self.verified.milliseconds, 1),
            },
            "seconds": {part: round(seconds, 3) for part, seconds in self.seconds.items()},
        }


def up(request: Request, progress: Progress) -> Report:
    """Bring a lab to its definition, and prove it with a mail; if that fails, remove what was made (see `keep`)."""
    report = _up(request, progress, LOCK_SECONDS, lambda: progress(_WAITING))
    assert report is not None
    return report


def _lead(wanted: state.State) -> None:
    """Have the lab's ports lead to it, where it is on another host. Raises HostError."""
    if lost := hosting.forward(wanted.ports.values()):
        addresses = ", ".join(f"127.0.0.1:{port}" for port in lost)
        raise HostError(
            f"{addresses} of this machine should lead to the lab, and is taken",
            remedy=f"end what listens there, or `{hint.line('down', lab=wanted.lab)}`: a new lab chooses others",
        )


def ensure(request: Request, progress: Progress, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Bring a lab up unless it is: of several processes that ask at once, one does it while the others wait.

    Those call `meanwhile` before they do, for what is to be done anyway.
    """

    def waits() -> None:
        progress(_WAITING)
        meanwhile()

    try:
        _up(request, progress, ENSURE_SECONDS, waits, unless_up=True)
    except MailstackError as error:
        raise hosting.explained(error) from None


def _up(
    request: Request, progress: Progress, patience: float, waits: Callable[[], None], *, unless_up: bool = False
) -> Report | None:
    started = time.monotonic()
    directory = home.directory(request.name)
    outside = files.read_credentials(request.credentials) if request.credentials else None
    relay_ca = files.read_authorities(request.relay_ca) if request.relay_ca else ""
    watch = Watch(directory.home, request.name, Local())
    work = None
    try:
        with directory.locked(Deadline.after(patience), waits) as lock:
            if unless_up and (found := directory.load()) is not None and found.stays:
                return None
            work = _Up(request, directory, Local((lock,)), outside, relay_ca, progress, started)
            return work.run()
    finally:
        if work and work.watched:
            watch.leave()
        else:
            watch.dismiss()


class _Up:
    """One `up`, step by step; each step is a method, and leaves what the next needs."""

    def __init__(
        self,
        request: Request,
        directory: state.LabDirectory,
        runner: Runner,
        outside: Secret | None,
        relay_ca: str,
        progress: Progress,
        started: float,
    ) -> None:
        self.request = request
        self.directory = directory
        self.runner = runner
        self.outside = outside
        self.relay_ca = relay_ca
        self.progress = progress
        self.started = started
        self.engine = Engine()
        self.before = directory.load()
        self.notes: list[str] = []
        self.endings = Endings(self.engine, request.name)
        self.starts = Starts(compose.project_name(request.name))
        self.proof: tuple[Future[tuple[str, float]], Future[str]] | None = None
        self.countdown = Countdown(request.patience)  # of the proof
        self.seconds: dict[str, float] = {}  # part → how long it took
        self.watched = False  # whether there is, or may be, something to take down now or later

    def run(self) -> Report:
        from mailstack import pki

        with ThreadPoolExecutor(max_workers=3) as pool:
            wanted = self._wanted()
            self.progress("reading the definition")
            paths = [Path(name) for name in wanted.files]
            # Done while Compose reads: certificates, and what the engine is asked. Begun now, and not sooner, since
            # Python computes one thing at a time. Heavy imports are left for when Compose starts the containers.
            fresh = None
            if not files.certificates_hold(self.directory.files):
                fresh = pool.submit(pki.make, files.SERVER_NAMES)
            around = pool.submit(self._around)
            document = resolve(self.runner, project(self.runner, wanted, self.directory), paths)
            lab = read_definition(document, paths)
            networks, owners = around.result()
            _refuse_anothers(wanted, owners)
            kept = self.before.subnets if self.before else {}
            chosen = claims.of_subnets(self.directory.home, wanted, document, networks, kept)
            wanted = dataclasses.replace(
                wanted, document=document[labfile.BLOCK], services=lab.services, subnets=chosen
            )
            self._done("definition")
            made_here = self.before is None
            handed = {} if made_here else files.kept(self.directory.files)
            self.watched = made_here
            try:
                claimed = pool.submit(claims.of_name, self.engine, compose.project_name(wanted.lab), document)
                return self._make(wanted, lab, document, pool, fresh.result() if fresh else None, claimed)
            except BaseException as error:
                self.countdown.cancel()
                if isinstance(error, HostError | DeadlinePassed | CheckFailed):
                    error.message += needs.short_of_disk(self.engine)
                if made_here and not self.request.keep:
                    self.progress("removing what was made")
                    with contextlib.suppress(HostError):  # what went wrong first is what the user is told
                        remove(self.directory, self.runner, self.engine, late=self.starts.being_made())
                        self.watched = False
                elif self.before is not None and not self.request.keep:
                    self._go_back(self.before, handed)
                elif isinstance(error, MailstackError):
                    error.remedy = error.remedy or f"it was kept: {hint.line('logs', lab=wanted.lab)}"
                raise

    def _around(self) -> tuple[list[Network], set[str]]:
        """What the engine has of others: all networks, and whose labs of this name."""
        needs.refuse_old(self.engine)
        networks = self.engine.networks()
        owners = self.engine.owners(self.request.name, networks)
        if self.before is None and state.owner() in owners:
            self._refuse_elsewhere()
        return networks, owners

    def _refuse_elsewhere(self) -> None:
        """Raise InputError where the lab has files that this command would not find again: its secrets would stay."""
        if found := elsewhere.find(self.engine, self.directory):
            name = self.request.name
            raise InputError(
                f"lab “{name}” is on this engine already, and its files are in {found[0]}",
                remedy=f"`{hint.line('down', lab=name)}` removes it",
            )

    def _go_back(self, before: state.State, kept: Mapping[str, Secret]) -> None:
        """What was to take the place of a lab that is up does not come up: the lab is made what it was."""
        self.progress("putting the lab back as it was")
        changed = files.put_back(self.directory.files, kept)
        self.directory.save(before)
        there = project(self.runner, before, self.directory)
        result = self.runner.run(there.up(), deadline=Deadline.after(UP_SECONDS))
        if stale := files.readers(changed, before.services):
            self.runner.run(there.restart(stale), deadline=Deadline.after(UP_SECONDS))
        if result.code != 0:
            self.progress(f"it could not be put back: {hint.line('down', lab=before.lab)}, then up, makes it anew")

    def _wanted(self) -> state.State:
        """The lab's state as it should be: what a running one has, it keeps."""
        request, before = self.request, self.before
        paths = [definition.compose_file("lab.yaml")]
        if request.relay:
            paths.append(definition.compose_file("relay.yaml"))
        paths += [path.absolute() for path in request.overlays]
        expires = before.expires if before else "never"
        if request.ttl is not None:
            if before is None:
                expires = str(int(time.time() + request.ttl))
            else:
                self.notes.append("the lab keeps the expiry it was made with: --ttl counts when a lab is made")
        return state.State(
            lab=request.name,
            owner=state.owner(),
            expires=expires,
            tag=images.content_tag(definition.stack()),
            files=tuple(str(path) for path in paths),
            ports=before.ports if before else claims.of_ports(self.directory.home, request.name),
            relay=f"{request.relay.host}:{request.relay.port}" if request.relay else "",
            engine=engine_url(),
            stays=before.stays if before else request.keep,
        )

    def _make(
        self,
        wanted: state.State,
        lab: Lab,
        document: Json,
        pool: ThreadPoolExecutor,
        fresh: object,
        claimed: Future[set[str]],
    ) -> Report:
        from mailstack.pki import Pki

        directory = self.directory
        directory.make()
        directory.save(wanted)
        changed = files.write(
            directory.files,
            lab,
            fresh=fresh if isinstance(fresh, Pki) else None,
            outside=self.outside,
            relay_ca=self.relay_ca,
        )
        _refuse_anothers(wanted, claimed.result())
        _lead(wanted)
        self._done("files")
        self.progress("starting the containers")
        warm = pool.submit(_warm_up)
        if self.before is None:
            # Whoever answers at the lab's ports is new: the proof is begun beside Compose.
            self._begin_proof(pool)
        try:
            wanted = self._start(wanted, document, changed if self.before else set())
        finally:
            self.starts.finish()
        self._done("compose")
        warm.result()
        self.progress("sending the mail that proves it")
        verified = self._prove(lab, pool)
        self._done("ready")
        if not wanted.stays:
            directory.save(dataclasses.replace(wanted, stays=True))
        self.watched = self.before is None and wanted.expires != "never"
        return Report(
            lab=wanted.lab,
            services=tuple(service.name for service in lab.services),
            endpoints={name: Endpoint("127.0.0.1", number) for name, number in wanted.ports.items()},
            ca_file=directory.ca_file,
            accounts=tuple(lab.addresses()),
            verified=verified,
            seconds={**self.seconds, "total": sum(self.seconds.values())},
            notes=tuple(filter(None, (*self.notes, needs.clock()))),
        )

    def _done(self, part: str) -> None:
        """A part of the work is done: it took what has not been put down to those before it."""
        self.seconds[part] = time.monotonic() - self.started - sum(self.seconds.values())

    def _start(self, wanted: state.State, document: Json, changed: set[str]) -> state.State:
        """Start the containers; gives the lab's state, with other ports and subnets where those wanted were lost."""
        there = project(self.runner, wanted, self.directory, document)
        result = self.runner.run(there.up(), deadline=Deadline.after(UP_SECONDS), on_line=self.starts.hear)
        if result.code != 0:
            self.countdown.cancel()
            self.proof = None
            # Not taken apart by its text: what the engine has tells why.
            references = list(definition.images(wanted.tag).values())
            if images.ensure_images(
                self.engine, self.runner, there.build(), references, self.progress, here=own_engine()
            ):
                self.progress("starting the containers")
                # Anew: what the first attempt made before it failed may lack a network, and Compose does not see that.
                result = self.runner.run(there.up(anew=True), deadline=Deadline.after(UP_SECONDS))
        for _ in range(claims.CLAIMS):
            if result.code == 0 or self.before or needs.disk_is_full(self.engine):  # a lab that is up keeps what it has
                break
            lost = claims.lost_ports(wanted, document, self._idle(document))
            refused = claims.lost_subnets(self.engine, wanted, document)
            if not lost and not refused:
                break
            self.progress(f"somebody else was faster at {', '.join(lost + refused)}")
            self.runner.run(there.down(), deadline=Deadline.after(UP_SECONDS))
            hosting.close(wanted.ports.values())
            wanted = dataclasses.replace(wanted, ports=claims.of_ports(self.directory.home, wanted.lab), subnets={})
            paths = [Path(name) for name in wanted.files]
            document = resolve(self.runner, project(self.runner, wanted, self.directory), paths)
            chosen = claims.of_subnets(self.directory.home, wanted, document, self.engine.networks(), refused=refused)
            wanted = dataclasses.replace(wanted, subnets=chosen)
            self.directory.save(wanted)
            _lead(wanted)
            self.progress("starting them again, elsewhere")
            there = project(self.runner, wanted, self.directory, document)
            result = self.runner.run(there.up(), deadline=Deadline.after(UP_SECONDS))
        if result.code != 0:
            idle = self._idle(document)
            taken = "".join(f"; {address} is taken" for address in claims.taken_ports(document, idle))
            remedy = f"`{needs.look()}` says what is missing"
            if self.before and claims.lost_ports(wanted, document, idle):
                remedy = f"end what listens there, or `{hint.line('down', lab=wanted.lab)}`: a new lab chooses others"
            raise HostError(
                f"lab “{wanted.lab}” could not be started" + self.endings.told() + taken,
                details=self._blot(self.endings.logs() or last_lines(compose.complaints(result.stderr), 6)),
                remedy=remedy,
            )
        if stale := files.readers(changed, wanted.services):
            self.progress(f"starting {', '.join(stale)} again with the changed definition")
            must(self.runner, there.restart(stale), deadline=Deadline.after(UP_SECONDS))
        return wanted

    def _idle(self, document: Json) -> list[str]:
        """The services that do not run."""
        running = {each.name for each in self.endings.states() if each.state == "running"}
        return sorted(set(document["services"]) - running)

    def _begin_proof(self, pool: ThreadPoolExecutor) -> None:
        """Prove the lab as soon as its services have been started, beside whatever else is done."""
        from mailstack import prove

        self.countdown = Countdown(self.request.patience)
        lab = RunningLab(self.request.name, self.engine)

        def started(role: Role) -> None:
            for name in lab.defined.names(role):
                self.starts.wait(name)

        self.proof = (
            pool.submit(prove.transaction, lab, self.countdown, self.endings.any, started),
            pool.submit(prove.sender, lab, self.countdown, started),
        )

    def _prove(self, lab: Lab, pool: ThreadPoolExecutor) -> Verified:
        if self.proof is None:
            self._begin_proof(pool)
        assert self.proof
        mail, sender = self.proof
        self.countdown.start()
        try:
            verified = Verified(*mail.result())
            container = sender.result()
            if lab.relay and self.outside:
                from mailstack import outside

                self.progress(f"logging in to {lab.relay.host}:{lab.relay.port}")
                outside.log_in(self.engine, container, lab.relay, self.outside)
            return verified
        except (CheckFailed, DeadlinePassed) as error:
            error.message = self._blot(error.message) + self.endings.told()
            logs = self.endings.logs() or self.endings.all_logs()
            error.details = self._blot("\n".join(filter(None, (error.details, logs))))
            raise

    def _blot(self, text: str) -> str:
        """What servers have said, without the lab's secrets: a relay outside may have repeated one."""
        return files.blot(self.directory.files, text)


def _refuse_anothers(wanted: state.State, owners: set[str]) -> None:
    """Another user's lab of this name on the same engine is not ours to touch: Compose would take it for this one."""
    if others := sorted(owners - {wanted.owner}):
        raise InputError(
            f"a lab “{wanted.lab}” of {', '.join(others)} is on this engine", remedy="choose another name with -n"
        )


def _warm_up() -> None:
    """Import what the proof needs, while Compose works."""
    import email.message
    import smtplib

    import imap_tools

    del email, smtplib, imap_tools
