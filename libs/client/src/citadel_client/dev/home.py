"""The directory that a stack lives in: what it keeps between runs, and the lock that makes it the only one."""

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from citadel_client.dev.errors import DevError


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is the same in the next run.

    Attributes:
        password: Of both Redis servers, so that other users of the machine cannot use them.
        ports: Ports of the servers, by name; taken again where they are free.
        pids: Children of the run that wrote this, by name.
        url: The API of the run that wrote this.
        owner: Process id of that run.
    """

    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    url: str = ""
    owner: int = 0


class Home:
    """`CITADEL_HOME`, by default `.citadel` in the current directory."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get("CITADEL_HOME") or ".citadel").absolute()
        self._lock: int | None = None

    @property
    def env_file(self) -> Path:
        """Variables of the running stack, for shells; there while it is ready."""
        return self.path / "env"

    @property
    def models(self) -> Path:
        """The local model's converted form."""
        return self.path / "models"

    @property
    def logs(self) -> Path:
        """What the children print."""
        return self.path / "logs"

    @property
    def database(self) -> Path:
        """Data directory of PostgreSQL, which makes it itself; the same by whichever name home is called."""
        return (self.path / "data" / "postgres").resolve()

    @property
    def vectors(self) -> Path:
        """Data directory of the embedded Qdrant, which makes it itself."""
        return self.path / "data" / "qdrant"

    def data(self, name: str) -> Path:
        """Data directory of a server."""
        found = self.path / "data" / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    def create(self) -> None:
        """Make the directory, for this user only, and keep it out of version control.

        Raises:
            DevError: It cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
            write_private(self.path / ".gitignore", "*\n")
        except OSError as error:
            raise DevError(f"cannot use {self.path}: {error.strerror}; set CITADEL_HOME") from error

    def lock(self) -> int | None:
        """Take the lock; its descriptor, or None where another process has it.

        The guardian inherits the descriptor, so the lock lasts until all children are gone.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        self._lock = descriptor
        return descriptor

    def unlock(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kept(self) -> Kept:
        """What an earlier run left; fresh values where there was none."""
        try:
            return Kept(**json.loads((self.path / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return Kept()

    def keep(self, kept: Kept) -> None:
        """Write down what the next run should know."""
        write_private(self.path / "state.json", json.dumps(asdict(kept)))

    def remember(self, **changes: object) -> None:
        """Change some of what is kept."""
        self.keep(replace(self.kept(), **changes))  # type: ignore[arg-type]

    def write_env(self, variables: Mapping[str, str]) -> None:
        """Write `NAME='value'` lines that a shell can source."""
        lines = [f"{name}={_quoted(value)}\n" for name, value in variables.items()]
        write_private(self.env_file, "".join(lines))

    def remove_env(self) -> None:
        """The stack is not ready, or no more."""
        self.env_file.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    return f"'{value}'" if "'" not in value else shlex.quote(value)


def write_private(path: Path, content: str) -> None:
    """Replace a file at once, readable by this user only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    draft.replace(path)
