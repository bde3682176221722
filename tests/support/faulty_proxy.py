"""A TCP proxy in front of servers, as a process: it delays, resets, truncates, and loses connections without a word.

Run as `python -m tests.support.faulty_proxy NAME=PORT ...`, it prints one line of JSON with the port of each name, then
takes commands as lines of JSON, `{"name": ..., "mode": ..., ...}`, and answers each with a line. It ends when its
standard input closes.

Modes:
    ok           passes bytes on
    slow         passes each piece on `delay_s` seconds later
    reset        resets all connections, and each new one
    half_open    loses what arrives on any connection, for good; the server hears of it when the client gives up
    vanished     the same, but the server never hears of the client again, as of a host that has lost its power
    truncate     resets each connection after `bytes` further bytes of its answers
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvloop

from tests.support.child import ROOT

MODES = frozenset({"ok", "slow", "reset", "half_open", "vanished", "truncate"})
LOST = frozenset({"half_open", "vanished"})
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class _Listener:
    """One listener's server, its mode and its open connections."""

    port: int
    mode: str = "ok"
    delay_s: float = 0.2
    bytes: int = 100
    links: "set[_Link]" = field(default_factory=set)

    def change(self, wanted: dict[str, Any]) -> None:
        if wanted["mode"] not in MODES:
            raise ValueError(f"unknown mode {wanted['mode']!r}; one of {sorted(MODES)}")
        for name, value in wanted.items():
            setattr(self, name, value)
        for link in list(self.links):
            link.apply_mode()


class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, listener: _Listener) -> None:
        self.listener = listener
        self.near, self.far = _End(self), _End(self)
        self.lost = ""
        self.left: int | None = None
        listener.links.add(self)

    def opened(self) -> None:
        """Connect to the server."""
        self.apply_mode()
        self._opening = asyncio.ensure_future(self._open_far())

    async def _open_far(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, "127.0.0.1", self.listener.port)
        except OSError:
            self.reset()
        if self.near.is_over:
            self.ended(self.near)

    def apply_mode(self) -> None:
        """Do to this connection what the mode does to all that are open."""
        mode = self.listener.mode
        if mode == "reset":
            self.reset()
        elif mode in LOST:
            self.lost = mode
        self.left = self.listener.bytes if mode == "truncate" else None

    def pass_on(self, source: "_End", data: bytes) -> None:
        """Send what has come from one end to the other, as the mode has it."""
        if self.lost:
            return
        if source is self.far and self.left is not None:
            data, self.left = data[: self.left], self.left - len(data)
        self._other(source).send(data, self.listener.delay_s if self.listener.mode == "slow" else 0.0)
        if self.left is not None and self.left <= 0:
            self.reset()

    def ended(self, source: "_End") -> None:
        """End the other half too; a server is not told that its client has vanished."""
        if source is self.near and self.lost == "vanished":
            return
        self._other(source).finish()
        self.listener.links.discard(self)

    def reset(self) -> None:
        """End both halves at once."""
        self.listener.links.discard(self)
        for end in (self.near, self.far):
            end.abort()

    def _other(self, source: "_End") -> "_End":
        return self.far if source is self.near else self.near


class _End(asyncio.Protocol):
    """One half of a connection; it keeps what is to be sent until it is open, and until its time has come."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._transport: Any = None
        self._early: list[bytes] = []
        self._last_due = 0.0
        self.is_over = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data in self._early:
            transport.write(data)
        if self is self._link.near:
            self._link.opened()

    def data_received(self, data: bytes) -> None:
        self._link.pass_on(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_over = True
        self._link.ended(self)

    def send(self, data: bytes, delay_s: float) -> None:
        """Write, but never before what was to be written earlier."""
        if self._transport is None:
            self._early.append(data)
            return
        loop = asyncio.get_running_loop()
        due = max(loop.time() + delay_s, self._last_due)
        if due > loop.time():
            self._last_due = due
            loop.call_at(due, self._write, data)
        else:
            self._transport.write(data)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def finish(self) -> None:
        """Close after what is still to be written."""
        if self._transport is not None:
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._last_due), self._transport.close)

    def abort(self) -> None:
        """Reset."""
        if self._transport is not None and not self._transport.is_closing():
            found = self._transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()


async def _serve(targets: dict[str, int]) -> None:
    loop, listeners, ports = asyncio.get_running_loop(), {}, {}
    for name, port in targets.items():
        listeners[name] = listener = _Listener(port)
        server = await loop.create_server(lambda listener=listener: _Link(listener).near, "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        wanted = json.loads(line)
        listeners[wanted.pop("name")].change(wanted)
        print(json.dumps(wanted), flush=True)


class FaultyProxy:
    """A running proxy; it ends with the block, or with this process."""

    def __init__(self, **targets: int) -> None:
        command = [sys.executable, "-m", __name__, *(f"{name}={port}" for name, port in targets.items())]
        self._child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._ports: dict[str, int] = self._answer()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def port(self, name: str) -> int:
        """Return the port that leads to a server."""
        return self._ports[name]

    def mode(self, name: str, mode: str = "ok", **parameters: Any) -> None:
        """Change what becomes of the connections to a server, those that are open and those to come."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"name": name, "mode": mode, **parameters}) + "\n")
        self._child.stdin.flush()
        self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy has ended with code {self._child.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End it, connections and all."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if __name__ == "__main__":
    uvloop.run(_serve({name: int(port) for name, _, port in (each.partition("=") for each in sys.argv[1:])}))
