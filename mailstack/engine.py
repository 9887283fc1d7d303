"""The Docker engine, seen through the Docker SDK: the only module that imports it.

Compose starts and stops; the engine is asked here what there is, runs programs inside containers, and gives logs.
The SDK takes a fifth of a second to import, so it is imported when it is needed: an engine on this machine is asked the
most common questions without it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from mailstack import following, foreign, hint, hosting, jsonfile, layers, streams
from mailstack.errors import EngineError, HostError, Interrupted, MailstackError
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Deadline, Network, Result, ServiceState
from mailstack.unixapi import Refused, Silent, UnixApi

P = ParamSpec("P")
T = TypeVar("T")

_DEFAULT = "unix:///var/run/docker.sock"


def engine_url() -> str:
    """The engine's address as Docker's own command would choose it: DOCKER_HOST, the current context, the default."""
    return os.environ.get("DOCKER_HOST") or _of_context()


def over_ssh() -> str:
    """The host over SSH that DOCKER_HOST, or a context, leads to; "" where there is none, or no such context."""
    with contextlib.suppress(EngineError):  # who needs an engine says so
        if (url := engine_url()).startswith("ssh://"):
            return url
    return ""


def own_engine() -> Engine | None:
    """This machine's own engine, which may not be there, while another host's is worked on; else None."""
    if hosting.current() is None:
        return None
    try:
        url = hosting.chosen() or _of_context()
    except EngineError:
        url = ""
    return Engine(url if url.startswith("unix://") else _DEFAULT)


def _of_context() -> str:
    home = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    name = os.environ.get("DOCKER_CONTEXT", "")
    name = name or jsonfile.read(home / "config.json", own=False).get("currentContext", "")
    if not name or name == "default":
        return _DEFAULT
    for meta in (home / "contexts" / "meta").glob("*/meta.json"):
        context = jsonfile.read(meta, own=False)
        if context.get("Name") == name:
            with contextlib.suppress(KeyError, TypeError):
                return str(context["Endpoints"]["docker"]["Host"])
    raise EngineError(f"the Docker context “{name}” is not known", remedy="see `docker context ls`")


def _mapped(function: Callable[P, T]) -> Callable[P, T]:
    """Turn errors of the SDK, and of the libraries below it, into EngineError: those in `ERRORS`, and no others."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except MailstackError:
            raise
        except Exception as error:
            if (mapped := _told(error)) is error:
                raise
            raise mapped from None

    return inner


def _told(error: Exception) -> Exception:
    """An error as the user is told of it; itself, where it is none of the engine's."""
    # What the SDK does before its first question makes an error of its own of whatever happens meanwhile.
    if type(error).__name__ == "DockerException" and isinstance(error.__context__, Interrupted):
        return error.__context__
    return ERRORS.of(error) or error


def _refused(error: Exception) -> EngineError:
    return EngineError(f"the Docker engine {where()} refused: {getattr(error, 'explanation', '') or error}")


def _unusable(error: Exception) -> HostError:
    if "Error while fetching server API version" in str(error):
        return _silent(error)
    return EngineError(
        f"no Docker engine answers {where()}: {error}",
        remedy="see DOCKER_HOST, `docker context ls` and ~/.docker/config.json",
    )


def _silent(error: Exception) -> HostError:
    said = str(error)
    if "timed out" in said and "connect timeout" not in said and hosting.current() is None:
        return EngineError(
            f"the Docker engine {where()} takes connections, and does not answer",
            remedy="see its log, or start it again",
        )
    return _denied() if "Permission denied" in said else _absent()


ERRORS = foreign.Table(
    {
        _refused: foreign.DOCKER_REFUSED,
        _unusable: foreign.DOCKER_UNUSABLE,
        _silent: foreign.DOCKER_SILENT,
    }
)

_IMPORTING = threading.Lock()


def _sdk() -> Any:
    """The SDK, imported by one thread at a time: its modules import each other in circles."""
    with _IMPORTING:
        import docker

        return docker


class Engine:
    """One engine. Its connection is made with the first question; safe to use from several threads."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url

    @functools.cached_property
    def _api(self) -> Any:
        # Negotiated: engines from 29 on refuse what 20.10 speaks.
        url = self._url or engine_url()
        try:
            return _sdk().APIClient(base_url=url, version="auto", timeout=60)
        except ValueError as error:  # a port that is no number, say
            if (mapped := _told(error)) is not error:
                raise mapped from None
            raise EngineError(f"no Docker engine answers at {url}: {error}", remedy="see DOCKER_HOST") from None

    @functools.cached_property
    def _quick(self) -> Any:
        """What every `up` and `down` asks is put to this: the SDK only where the engine is on another machine."""
        url = self._url or engine_url()
        return UnixApi(url.removeprefix("unix://")) if url.startswith("unix://") else self._api

    # ── what there is ──────────────────────────────────────────────────────────────────────────────────────────

    @_mapped
    def version(self) -> dict[str, Any]:
        """The engine's version document."""
        return dict(self._quick.version(api_version=False))

    @_mapped
    def info(self) -> dict[str, Any]:
        """The engine's description of its host."""
        return dict(self._quick.info())

    @_mapped
    def services(self, project: str, name: str = "") -> list[ServiceState]:
        """The containers of a Compose project, one per service, in any state; of one service, where it is named."""
        wanted = [f"com.docker.compose.project={project}", *([f"com.docker.compose.service={name}"] if name else [])]
        states = []
        for summary in self._quick.containers(all=True, filters={"label": wanted}):
            service = summary["Labels"].get("com.docker.compose.service", "")
            if not service or summary["Labels"].get("com.docker.compose.oneoff") == "True":
                continue
            with _gone():  # between the two questions
                states.append(_state(service, self._quick.inspect_container(summary["Id"])))
        return sorted(states, key=lambda state: state.name)

    @_mapped
    def labs(self, owner: str | None = None) -> dict[str, str]:
        """Every lab that has anything on this engine: name → owner. With `owner`, that owner's alone."""
        found = self._labels(f"{LABEL_OWNER}={owner}" if owner else LABEL_LAB)
        return {labels[LABEL_LAB]: labels.get(LABEL_OWNER, "") for labels in found if labels.get(LABEL_LAB)}

    @_mapped
    def expires(self, lab: str, owner: str) -> str | None:
        """When a lab expires: seconds of the epoch, or "never"; None when it has nothing on this engine."""
        found = self._labels(f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}")
        return next((labels[LABEL_EXPIRES] for labels in found if LABEL_EXPIRES in labels), "never" if found else None)

    @_mapped
    def owners(self, lab: str, networks: Sequence[Network] | None = None) -> set[str]:
        """Whose labs of this name are on the engine, of which all `networks` may be known already."""
        filters = {"label": [f"{LABEL_LAB}={lab}"]}
        found = [each["Labels"] for each in self._quick.containers(all=True, filters=filters)]
        found += [each["Labels"] or {} for each in self._quick.volumes(filters=filters)["Volumes"] or []]
        known = self.networks() if networks is None else networks
        found += [network.labels for network in known if network.labels.get(LABEL_LAB) == lab]
        # An overlay's own network, say, need not be labelled with an owner: that makes it nobody else's.
        return {str(labels[LABEL_OWNER]) for labels in found if labels.get(LABEL_OWNER)}

    @_mapped
    def networks(self) -> list[Network]:
        """All networks."""
        return [
            Network(
                each["Name"],
                each["Labels"] or {},
                tuple(pool["Subnet"] for pool in each["IPAM"]["Config"] or () if "Subnet" in pool),
            )
            for each in self._quick.networks()
        ]

    @_mapped
    def claim(self, volume: str, labels: Mapping[str, str]) -> str:
        """Make a volume, unless there is one of this name; whose it is, by its label. Several may ask: one makes it."""
        made = self._quick.create_volume(volume, labels=dict(labels))
        return str((made["Labels"] or {}).get(LABEL_OWNER, ""))

    def _labels(self, *wanted: str) -> list[dict[str, str]]:
        """The labels of every container, network and volume that has the `wanted` ones."""
        filters = {"label": list(wanted)}
        labels: list[dict[str, str]] = [c["Labels"] for c in self._quick.containers(all=True, filters=filters)]
        labels += [n["Labels"] for n in self._quick.networks(filters=filters)]
        labels += [v["Labels"] or {} for v in self._quick.volumes(filters=filters)["Volumes"] or []]
        return labels

    @_mapped
    def leftovers(self, lab: str, owner: str) -> list[str]:
        """Whatever carries this lab's and this owner's labels: `container NAME`, `network NAME`, `volume NAME`."""
        wanted = {"label": [f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}"]}
        found = [f"container {c['Names'][0].lstrip('/')}" for c in self._quick.containers(all=True, filters=wanted)]
        found += [f"network {n['Name']}" for n in self._quick.networks(filters=wanted)]
        found += [f"volume {v['Name']}" for v in self._quick.volumes(filters=wanted)["Volumes"] or []]
        return found

    @_mapped
    def sources(self, lab: str, owner: str) -> set[str]:
        """Where on the engine's host the files are that the containers of a lab are handed."""
        wanted = {"label": [f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}"]}
        mounts = [m for c in self._quick.containers(all=True, filters=wanted) for m in c.get("Mounts") or ()]
        return {str(mount["Source"]) for mount in mounts if mount.get("Type") == "bind"}

    @_mapped
    def remove(self, thing: str) -> None:
        """Remove one of `leftovers`, by force; one that has gone in the meantime is fine."""
        kind, name = thing.split(" ", 1)
        try:
            if kind == "container":
                self._api.remove_container(name, force=True, v=True)
            elif kind == "network":
                # Whoever else has joined the network (an application under test, say) is let go of.
                for guest in self._api.inspect_network(name)["Containers"] or {}:
                    self._api.disconnect_container_from_network(guest, name, force=True)
                self._api.remove_network(name)
            else:
                self._api.remove_volume(name, force=True)
        except _sdk().errors.NotFound:
            pass

    # ── images ─────────────────────────────────────────────────────────────────────────────────────────────────

    def has_image(self, reference: str) -> bool:
        """Whether the engine holds this image."""
        return bool(self.image_id(reference))

    def image_id(self, reference: str) -> str:
        """The digest by which the engine knows an image; "" when it does not hold it."""
        return str(self._image(reference).get("Id", ""))

    def image_base(self, reference: str) -> str:
        """The digest of an image's lowest layer, which is its base's; "" when the engine does not hold it."""
        return str(next(iter(self._image(reference).get("RootFS", {}).get("Layers") or []), ""))

    def image_platform(self, reference: str) -> str:
        """The processor that an image is for, in Go's words (amd64, arm64); "" when the engine does not hold it."""
        return str(self._image(reference).get("Architecture", ""))

    @_mapped
    def _image(self, reference: str) -> dict[str, Any]:
        with _gone():
            return dict(self._quick.inspect_image(reference))
        return {}

    @_mapped
    def pull(self, reference: str) -> None:
        """Pull an image from its registry. Raises EngineError when that is not possible."""
        # Only the SDK knows the user's registries; `mailstack.base` runs where it is not installed.
        api = self._api if importlib.util.find_spec("docker") else self._quick
        repository, _, tag = reference.partition(":")
        for line in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"{reference}: {line['error']}")

    @_mapped
    def import_image(self, tarball: Path, reference: str) -> None:
        """Make an image of one layer from a root file system's tar archive."""
        repository, _, tag = reference.partition(":")
        answer = self._quick.import_image_from_file(
            str(tarball), repository=repository, tag=tag or "latest", changes=['CMD ["bash"]']
        )
        if '"error"' in str(answer):
            raise EngineError(f"{reference}: the engine did not take the image: {answer}")

    @_mapped
    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        """The layers of an image, lowest first, as (identity, bytes)."""
        digests = self._quick.inspect_image(reference)["RootFS"]["Layers"]
        sizes = layers.sizes(list(reversed(self._quick.history(reference))), len(digests))
        return [("/".join(digests[: n + 1]), size) for n, size in enumerate(sizes)]

    @_mapped
    def image_files(self, reference: str, paths: Sequence[str], labels: Mapping[str, str]) -> list[bytes]:
        """The contents of files of an image. A container with `labels` is made for that, never started, and removed."""
        made = self._api.create_container(reference, ["true"], labels=dict(labels))["Id"]
        try:
            return [self._file(made, path) for path in paths]
        finally:
            self._api.remove_container(made, force=True, v=True)

    def _file(self, container: str, path: str) -> bytes:
        import tarfile

        pieces, _ = self._api.get_archive(container, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            return file.read() if file else b""

    @_mapped
    def platform(self) -> str:
        """The processor that its containers are for, in Go's words: amd64, arm64."""
        return str(self._quick.version(api_version=False)["Arch"])

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        """Images as one archive, piece by piece. Raises EngineError."""
        api = self._quick
        try:
            yield from api.save(references) if isinstance(api, UnixApi) else _saved(api, references)
        except (Refused, Silent) as error:
            place = self._url or engine_url()
            raise EngineError(f"the Docker engine at {place} does not give the images: {error}") from None

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the images of an archive, which may be compressed. Raises HostError."""
        api = self._quick
        try:
            api.load(archive) if isinstance(api, UnixApi) else _loaded(api, archive)
        except (Refused, Silent) as error:
            there = hosting.current()
            if there:
                there.look()  # raises what is to be said when the host has gone
            raise EngineError(
                f"the Docker engine {where()} does not take the images: {error}",
                remedy=f"`{hint.line('doctor')}` says how much room its disk has",
            ) from None

    # ── inside containers ──────────────────────────────────────────────────────────────────────────────────────

    @_mapped
    def execute(
        self, container: str, argv: Sequence[str], *, user: str = "", input: bytes | Iterable[bytes] | None = None
    ) -> Result:
        """Run a program in a container to its end. What no one may see, or is large, goes in by `input`."""
        made = self._quick.exec_create(container, list(argv), user=user, stdin=input is not None)
        stream = self._raw(self._quick.exec_start(made["Id"], socket=True))
        outputs: dict[int, list[bytes]] = {1: [], 2: []}
        with stream:
            if input is not None:
                streams.feed(stream, [input] if isinstance(input, bytes) else input)
            for channel, data in streams.frames(stream):
                outputs[channel].append(data)
        code = self._quick.exec_inspect(made["Id"])["ExitCode"]
        return Result(
            -1 if code is None else int(code),
            b"".join(outputs[1]).decode(errors="replace"),
            b"".join(outputs[2]).decode(errors="replace"),
        )

    @_mapped
    def stream(self, container: str, argv: Sequence[str], *, user: str = "") -> socket.socket:
        """Start a program in a container: what is written to the socket is its input, what is read is its output."""
        made = self._quick.exec_create(container, list(argv), user=user, stdin=True, stderr=False)
        stream = self._raw(self._quick.exec_start(made["Id"], socket=True))
        return streams.plain(stream)

    @_mapped
    def logs(
        self, container: str, *, tail: int | None = None, since: float | None = None, timestamps: bool = False
    ) -> str:
        """What the container's first process has printed; `since` is in seconds of the epoch."""
        options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": timestamps}
        if tail is not None:
            options["tail"] = tail
        if since is not None:
            options["since"] = since
        return bytes(self._api.logs(container, **options)).decode(errors="replace")

    @_mapped
    def says(self, container: str, text: str, seconds: float) -> bool:
        """Whether the container prints this within so many seconds, or has since its last start; False at its end."""
        # Since it ended before: the time of its start is taken when it has been started, and that may be so late that
        # it has printed what is waited for.
        ended = self._quick.inspect_container(container)["State"]["FinishedAt"]
        since = max(0.0, datetime.fromisoformat(ended).timestamp())  # of the year 1, where it never has
        with contextlib.closing(self._quick.logs(container, stream=True, follow=True, since=since)) as log:
            watch = threading.Timer(seconds, log.end)
            watch.daemon = True
            watch.start()
            try:
                return any(text.encode() in piece for piece in log)
            finally:
                watch.cancel()

    def follow(
        self, containers: Mapping[str, str], *, since: float | None = None, deadline: Deadline
    ) -> Generator[tuple[str, str] | None, None, None]:
        """What containers (service → id) print, line by line as they do, each line with its service.

        Lines begin with their time, as in `logs(timestamps=True)`. What was printed since `since` (seconds of the
        epoch; None: ever) comes first, and what a container prints when it is started again is not missed. When the
        deadline passes, None is the last to come; an end without it means that all containers have been removed.
        Closing the generator closes its connections. Raises EngineError.
        """
        with contextlib.ExitStack() as followed:
            logs = {}
            for service, container in containers.items():
                logs[service] = followed.enter_context(contextlib.closing(following.Log(self, container, since)))
            yield from following.merged(logs, deadline.remaining)

    @_mapped
    def open_log(self, container: str) -> Any:
        """A container's last line, and what it prints until it stops, with times: to be iterated over, and closed."""
        return _Pieces(self._api.logs(container, stream=True, follow=True, timestamps=True, tail=1))

    @_mapped
    def read_log(self, container: str, since: float | None) -> Any:
        """What a container has printed, with times, as far as its log has it: to be iterated over."""
        return _Pieces(self._api.logs(container, stream=True, follow=False, timestamps=True, since=since))

    @_mapped
    def last_of_log(self, container: str) -> bytes:
        """The last line of a container's log, with its time; empty when there is none."""
        return bytes(self._api.logs(container, timestamps=True, tail=1))

    @_mapped
    def open_events(self, container: str) -> Any:
        """When a container is started or removed from now on: to be iterated over, and closed."""
        return _Pieces(self._api.events(filters={"container": [container], "event": ["start", "destroy"]}))

    @_mapped
    def runs(self, container: str) -> bool:
        """Whether a container runs."""
        return bool(self._api.inspect_container(container)["State"]["Running"])

    def copy_logs(self, container: str, into: IO[bytes], since: float | None = None) -> None:
        """Write what the container's first process has printed to a file, with times, however much it is.

        Raises EngineError; HostError when the file cannot be written.
        """
        for chunk in self.read_log(container, since):
            with _written(into):
                into.write(chunk)
        with _written(into):
            into.flush()

    @_mapped
    def log_options(self, container: str) -> tuple[str, dict[str, str]]:
        """The driver of a container's log, and its options."""
        found = self._quick.inspect_container(container)["HostConfig"]["LogConfig"]
        return str(found["Type"]), dict(found["Config"] or {})

    @_mapped
    def stop(self, container: str, *, seconds: int = 10) -> None:
        """Stop a container (SIGTERM, then SIGKILL after `seconds`)."""
        self._api.stop(container, timeout=seconds)

    @_mapped
    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's first process."""
        self._api.kill(container, signal=name)

    @_mapped
    def start(self, container: str) -> None:
        """Start a stopped container."""
        self._api.start(container)

    # ── the listener outside, for the check that a lab is closed ───────────────────────────────────────────────

    @_mapped
    def make_network(self, name: str, labels: dict[str, str], subnet: str) -> bool:
        """Make an ordinary network; False when there is one of this name already."""
        types = _sdk().types

        if self._api.networks(names=[name]):
            return False
        self._api.create_network(name, labels=labels, ipam=types.IPAMConfig(pool_configs=[types.IPAMPool(subnet)]))
        return True

    @_mapped
    def join(self, network: str, container: str, alias: str) -> None:
        """Connect a container to a network, where others find it by `alias`."""
        self._api.connect_container_to_network(container, network, aliases=[alias])

    @_mapped
    def listen(self, name: str, image: str, network: str, labels: dict[str, str], port: int) -> tuple[str, str]:
        """Start a container on `network` that accepts connections: its id and its address."""
        made = self._api.create_container(
            image,
            ["-c", f"exec nc -lk -p {port} </dev/null >/dev/null"],
            entrypoint=["/bin/sh"],
            name=name,
            labels=labels,
            healthcheck={"test": ["NONE"]},
            host_config=self._api.create_host_config(network_mode=network, cap_drop=["ALL"]),
        )
        self._api.start(made["Id"])
        networks = self._api.inspect_container(made["Id"])["NetworkSettings"]["Networks"]
        return made["Id"], str(networks[network]["IPAddress"])

    @_mapped
    def published(self, containers: Sequence[str]) -> list[str]:
        """Every published port of some containers, as ADDRESS:PORT on the host."""
        found = []
        for container in containers:
            settings = self._quick.inspect_container(container)["NetworkSettings"]["Ports"] or {}
            found += [f"{b['HostIp']}:{b['HostPort']}" for bindings in settings.values() for b in bindings or ()]
        return sorted(found)

    @_mapped
    def users_of(self, volume: str) -> set[str]:
        """Return the ids of all containers that mount a volume, whether they run or not."""
        return {str(each["Id"]) for each in self._quick.containers(all=True, filters={"volume": [volume]})}

    @staticmethod
    def _raw(stream: Any) -> socket.socket:
        # Over a Unix socket the SDK wraps the socket in a file object (SocketIO); over SSH and TLS it does not.
        # Which would keep it open when it is closed: so it is another one of the same connection that is given.
        raw = stream
        if (wrapped := getattr(stream, "_sock", None)) is not None:
            raw = wrapped.dup()
            stream._response.close()
            stream.close()
            wrapped.close()
        raw.settimeout(None)
        return raw  # type: ignore[no-any-return]


def _saved(api: Any, references: Sequence[str]) -> Iterator[bytes]:
    """Images as one archive, by the SDK, whose own method takes one image only. Raises Silent."""
    with (
        _by_sdk(),
        api.get(api._url("/images/get"), params={"names": list(references)}, stream=True) as answer,
    ):
        api._raise_for_status(answer)
        yield from answer.iter_content(1 << 20)


def _loaded(api: Any, archive: Iterable[bytes]) -> None:
    """Have an engine take the images of an archive, by the SDK. Raises Refused, Silent."""
    with _by_sdk():
        for line in api.load_image(archive):
            if "error" in line:
                raise Refused(200, str(line["error"]))


@contextlib.contextmanager
def _by_sdk() -> Iterator[None]:
    """Raise Silent for what the SDK raises of the engine's."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Refused) or _told(error) is error:
            raise
        raise Silent(str(error)) from error


class _Pieces:
    """What comes piece by piece; reading it fails as any question does, whatever is done with it is not ours."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self

    @_mapped
    def __next__(self) -> Any:
        return next(self._stream)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


@contextlib.contextmanager
def _written(into: IO[bytes]) -> Iterator[None]:
    """Tell what goes wrong with a file of ours as that."""
    try:
        yield
    except OSError as error:
        name = into.name if isinstance(into.name, str) else f"a file in {tempfile.gettempdir()}"
        raise HostError(
            f"{name}: the logs cannot be written there: {error.strerror}",
            remedy="make room there, or name another directory by TMPDIR",
        ) from None


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """What is no longer there is not asked about."""
    try:
        yield
    except Exception as error:
        if (getattr(error, "status", None) or getattr(error, "status_code", None)) != 404:
            raise


def where() -> str:
    """Where the engine is that this process works on, for people."""
    there = hosting.current()
    return f"on {there.host}" if there else f"at {engine_url()}"


def _denied() -> EngineError:
    who = there.about["user"] if (there := hosting.current()) else "this user"
    return EngineError(
        f"{who} may not use the Docker engine {where()}",
        remedy="add the user to the group `docker` and log in again, or use sudo",
    )


def _absent() -> HostError:
    if there := hosting.current():
        if there.look()["way"] == "denied":  # raises what is to be said when the host has gone
            return _denied()
        return EngineError(f"no Docker engine answers {where()}", remedy=hint.line("provision"))
    return EngineError(
        f"no Docker engine answers at {engine_url()}",
        remedy=f"start it, or run `{hint.line('provision')}`; `{hint.line('doctor')}` says what else is missing",
    )


def _state(service: str, details: dict[str, Any]) -> ServiceState:
    state, settings = details["State"], details["NetworkSettings"]
    return ServiceState(
        name=service,
        image=details["Config"]["Image"],
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        container=details["Id"],
        addresses={name: network["IPAddress"] for name, network in settings["Networks"].items()},
        ports={
            int(key.partition("/")[0]): int(bindings[0]["HostPort"])
            for key, bindings in (settings["Ports"] or {}).items()
            if bindings
        },
        exit_code=state["ExitCode"],
    )
