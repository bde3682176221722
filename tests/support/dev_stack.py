"""`citadel dev` as a process of a test."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tests.support.disclosure import DISCLOSURES
from tests.support.exports import exports

T = TypeVar("T")
START_S = 150.0
STOP_S = 60.0


def eventually(look: Callable[[], T], within: float = START_S) -> T:
    """Return the first result of `look` that is true."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.05)
    return found


@dataclass
class Dev:
    process: subprocess.Popen[str]
    home: Path
    errors: Path

    @property
    def env(self) -> dict[str, str]:
        """Variables of the env file; empty while there is none."""
        try:
            words = shlex.split((self.home / "env").read_text())
        except FileNotFoundError:
            return {}
        return dict(word.split("=", 1) for word in words)

    @property
    def pids(self) -> dict[str, int]:
        pairs = (pair.split(":") for pair in self.env.get("CITADEL_PIDS", "").split())
        return {name: int(pid) for name, pid in pairs}

    def ready(self) -> dict[str, str]:
        def look() -> dict[str, str]:
            assert self.process.poll() is None, self.errors.read_text()
            return self.env

        return eventually(look)

    def search(self, secrets: set[str]) -> None:
        """Search its output and its children's logs for secrets."""
        for log in [self.errors, *(self.home / "logs").glob("**/*")]:
            if log.is_file():
                DISCLOSURES.search(f"{log.name} of citadel dev", log.read_bytes(), secrets=secrets)

    @property
    def passwords(self) -> set[str]:
        """Passwords in the URLs of the env file."""
        return {password for url in self.env.values() if "://" in url and (password := urlsplit(url).password)}

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextmanager
def dev(home: Path, *options: str, ready: bool = True) -> Iterator[Dev]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")} | exports()
    errors = home.with_name(home.name + ".errors")
    command = [sys.executable, "-m", "citadel_client", "dev", "--home", str(home), *options]
    with (
        errors.open("a") as file,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        started = Dev(process, home, errors)
        passwords: set[str] = set()
        try:
            if ready:
                started.ready()
            passwords |= started.passwords
            yield started
        finally:
            passwords |= started.passwords
            if process.poll() is None:
                started.stop(signal.SIGTERM)
            started.search(passwords)
