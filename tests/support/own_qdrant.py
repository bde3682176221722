"""A Qdrant of a test's own, which it may kill: the double, or the real server's program."""

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import httpx
import pytest

from tests.doubles.process import QdrantProcess
from tests.support.child import free_port, spawn
from tests.support.planted import QDRANT_KEY
from tests.support.polling import eventually

PROGRAM = "CITADEL_REAL_QDRANT_BIN"


class OwnQdrant(Protocol):
    """A running server with a key, whose collections outlive a kill."""

    url: str

    def kill(self) -> None:
        """End it at once, connections and all."""

    def restart_same_port(self) -> None:
        """Start it again where it was; return when it answers."""


class RealQdrantProcess:
    """The program that CITADEL_REAL_QDRANT_BIN names, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        program = os.environ.get(PROGRAM)
        if not program:
            pytest.skip(f"{PROGRAM} names no program of Qdrant, and a server that others use cannot be killed")
        self._program = program
        self._directory = directory
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._start()

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        self._child.kill()
        self._child.wait()

    def restart_same_port(self) -> None:
        """Start it again; kills it first where it still runs."""
        self.kill()
        self._start()

    def _start(self) -> None:
        settings = {
            "SERVICE__HTTP_PORT": str(self._port),
            "SERVICE__GRPC_PORT": str(free_port()),
            "SERVICE__API_KEY": QDRANT_KEY,
            "STORAGE__STORAGE_PATH": str(self._directory / "storage"),
            "STORAGE__SNAPSHOTS_PATH": str(self._directory / "snapshots"),
            "TELEMETRY_DISABLED": "true",
        }
        marker = {"QDRANT_INIT_FILE_PATH": str(self._directory / "initialized")}
        environment = {**os.environ, **marker, **{f"QDRANT__{name}": value for name, value in settings.items()}}
        with (self._directory / "log").open("ab") as log:
            self._child: subprocess.Popen[bytes] = spawn([self._program], output=log, env=environment)
        eventually(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def double(stack: ExitStack) -> OwnQdrant:
    """Start the double."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(QdrantProcess(api_key=QDRANT_KEY, storage=directory))


def real(stack: ExitStack) -> OwnQdrant:
    """Start the real server."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(RealQdrantProcess(Path(directory)))
