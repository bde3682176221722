"""The health probe: `python -m citadel_common.probe [worker|beat|api|exporter] [--path /readyz]`.

Containers' health checks run it. It asks the process itself and no store, imports next to nothing, and exits with 0, or
with 1 and the reason. Without a name it reads the command line of the container's first process; a command that ends by
itself, such as the migrations, is healthy as long as it runs.

It reads these variables, as the processes do: `CITADEL_WORKER__HEALTH_FILE`, `CITADEL_BEAT__HEALTH_FILE` and
`CITADEL_WORKER__DEAD_AFTER`, the age in seconds from which those files are too old; `CITADEL_API__HOST` and `…__PORT`,
`CITADEL_EXPORTER__HOST` and `…__PORT`.
"""

import argparse
import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

FIRST_PROCESS = Path("/proc/1/cmdline")
TIMEOUT = 3.0
"""Seconds that an answer may take."""
PORTS = {"api": "8080", "exporter": "9808"}
FILES = ("worker", "beat")
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  (told apart, not listened on)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status, and print the problem."""
    parser = argparse.ArgumentParser(prog="probe", description="Whether a process of this container is well")
    parser.add_argument("process", nargs="?", choices=(*FILES, *PORTS))
    parser.add_argument("--path", default="/livez", help="what the API or the exporter is asked")
    given = parser.parse_args(arguments)
    name = given.process or process_of(FIRST_PROCESS.read_bytes())
    reason = why_unwell(name, given.path, os.environ) if name else None
    print(reason or "ok")  # noqa: T201  (the engine keeps what a check prints)
    return 1 if reason else 0


def process_of(command: bytes) -> str | None:
    """Return the kind of process that a command line (words that end in NUL) runs; None if it has no probe."""
    words = command.decode(errors="replace").split("\0")
    module = next((word for option, word in itertools.pairwise(words) if option == "-m"), "")
    package, _, part = module.partition(".")
    if not package.startswith("citadel_"):
        return None
    return part if part in (*FILES, *PORTS) else ("worker" if not part else None)


def why_unwell(name: str, path: str, environment: Mapping[str, str]) -> str | None:
    """Return the problem of a process, or None."""
    setting = f"CITADEL_{name.upper()}__"
    try:
        if name in FILES:
            longest = float(environment.get("CITADEL_WORKER__DEAD_AFTER") or 30)
            return _why_old(environment.get(f"{setting}HEALTH_FILE", ""), longest)
        host = environment.get(f"{setting}HOST", "")
        port = int(environment.get(f"{setting}PORT") or PORTS[name])
        return _why_no_answer("127.0.0.1" if host in WILDCARDS else host, port, path)
    except ValueError as error:
        return f"wrong setting: {error}"


def _why_old(file: str, longest: float) -> str | None:
    if not file:
        return "no health file is set"
    try:
        age = _age_of(Path(file))
    except OSError as error:
        return f"{file}: {error.strerror}"
    return f"{file} was touched {age:.0f} s ago" if age > longest else None


def _age_of(file: Path) -> float:
    """Return the seconds since the touch, by the clock that nobody sets; by the file's time if it holds none of it."""
    written = file.read_text(encoding="ascii", errors="replace")
    with contextlib.suppress(ValueError):
        age = time.monotonic() - float(written)
        if age >= 0:  # else the machine was started since
            return age
    return time.time() - file.stat().st_mtime


def _why_no_answer(host: str, port: int, path: str) -> str | None:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), TIMEOUT) as connection:
            connection.sendall(request.encode())
            status = connection.makefile("rb").readline(200).decode(errors="replace").strip()
    except OSError as error:
        return f"{host}:{port}{path}: {error.strerror or error}"
    return None if status[9:12] == "200" else f"{host}:{port}{path}: {status or 'no answer'}"


if __name__ == "__main__":
    sys.exit(main())
