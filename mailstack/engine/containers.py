"""The containers of an engine: run programs in them, send signals, and connect networks."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any

from mailstack.engine import streams
from mailstack.engine.client import Client, mapped, sdk
from mailstack.model import Result


class Containers(Client):
    """Operations on containers."""

    @mapped
    def execute(
        self, container: str, argv: Sequence[str], *, user: str = "", input: bytes | Iterable[bytes] | None = None
    ) -> Result:
        """Run a program in a container to its end. Pass secret or large data by `input`."""
        instance = self._quick.exec_create(container, list(argv), user=user, stdin=input is not None)
        stream = self._raw(self._quick.exec_start(instance["Id"], socket=True))
        outputs: dict[int, list[bytes]] = {1: [], 2: []}
        with stream:
            if input is not None:
                streams.feed(stream, [input] if isinstance(input, bytes) else input)
            for channel, data in streams.frames(stream):
                outputs[channel].append(data)
        code = self._quick.exec_inspect(instance["Id"])["ExitCode"]
        return Result(
            -1 if code is None else int(code),
            b"".join(outputs[1]).decode(errors="replace"),
            b"".join(outputs[2]).decode(errors="replace"),
        )

    @mapped
    def stream(self, container: str, argv: Sequence[str], *, user: str = "") -> socket.socket:
        """Start a program in a container and return a socket: write its standard input, read its standard output."""
        instance = self._quick.exec_create(container, list(argv), user=user, stdin=True, stderr=False)
        stream = self._raw(self._quick.exec_start(instance["Id"], socket=True))
        return streams.plain(stream)

    @mapped
    def stop(self, container: str, *, seconds: int = 10) -> None:
        """Stop a container: SIGTERM, then SIGKILL after `seconds`."""
        self._api.stop(container, timeout=seconds)

    @mapped
    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's first process."""
        self._api.kill(container, signal=name)

    @mapped
    def start(self, container: str) -> None:
        """Start a stopped container."""
        self._api.start(container)

    @mapped
    def unpause(self, container: str) -> None:
        """Let the processes of a paused container run again."""
        self._api.unpause(container)

    # ── a listener outside of the lab, to check that the lab is closed ─────────────────────────────────────────────

    @mapped
    def make_network(self, name: str, labels: dict[str, str], subnet: str) -> bool:
        """Create an ordinary network. Return False when one of this name exists already."""
        types = sdk().types

        if self._api.networks(names=[name]):
            return False
        self._api.create_network(name, labels=labels, ipam=types.IPAMConfig(pool_configs=[types.IPAMPool(subnet)]))
        return True

    @mapped
    def join(self, network: str, container: str, alias: str) -> None:
        """Connect a container to a network, where other containers resolve it as `alias`."""
        self._api.connect_container_to_network(container, network, aliases=[alias])

    @mapped
    def listen(self, name: str, image: str, network: str, labels: dict[str, str], port: int) -> tuple[str, str]:
        """Start a container on `network` that accepts connections. Return its id and its address."""
        created = self._api.create_container(
            image,
            ["-c", f"exec nc -lk -p {port} </dev/null >/dev/null"],
            entrypoint=["/bin/sh"],
            name=name,
            labels=labels,
            healthcheck={"test": ["NONE"]},
            host_config=self._api.create_host_config(network_mode=network, cap_drop=["ALL"]),
        )
        self._api.start(created["Id"])
        networks = self._api.inspect_container(created["Id"])["NetworkSettings"]["Networks"]
        return created["Id"], str(networks[network]["IPAddress"])

    @mapped
    def published(self, containers: Sequence[str]) -> list[str]:
        """Return every published port of some containers, as ADDRESS:PORT on the host."""
        addresses = []
        for container in containers:
            settings = self._quick.inspect_container(container)["NetworkSettings"]["Ports"] or {}
            addresses += [f"{b['HostIp']}:{b['HostPort']}" for bindings in settings.values() for b in bindings or ()]
        return sorted(addresses)

    @mapped
    def users_of(self, volume: str) -> set[str]:
        """Return the ids of all containers that mount a volume, running or not."""
        return {str(each["Id"]) for each in self._quick.containers(all=True, filters={"volume": [volume]})}

    @staticmethod
    def _raw(stream: Any) -> socket.socket:
        # Over a Unix socket the SDK wraps the socket in a file object (SocketIO); over SSH and TLS it does not. The
        # file object would keep the connection open after a close, so return a duplicate of the socket.
        raw = stream
        if (wrapped := getattr(stream, "_sock", None)) is not None:
            raw = wrapped.dup()
            stream._response.close()
            stream.close()
            wrapped.close()
        raw.settimeout(None)
        return raw  # type: ignore[no-any-return]
