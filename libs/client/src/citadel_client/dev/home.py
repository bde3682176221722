"""The directory of a stack: data, logs, state kept between runs, and the lock that allows one stack at a time."""

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
class State:
    """State kept between runs.

    Attributes:
        password: Password of both Redis servers, which keeps other users of the machine out.
        ports: Ports of the servers, by name; used again if they are free.
        pids: Process ids of the last run's children, by name.
        url: URL of the last run's API.
        owner: Process id of the last run.
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
        """File with the addresses of the stack, for shells; it exists while the stack is ready."""
        return self.path / "env"

    @property
    def models(self) -> Path:
        """Directory of the local model in converted form."""
        return self.path / "models"

    @property
    def logs(self) -> Path:
        """Directory of the children's output."""
        return self.path / "logs"

    @property
    def database(self) -> Path:
        """Data directory of PostgreSQL, with symbolic links resolved."""
        return (self.path / "data" / "postgres").resolve()

    @property
    def vectors(self) -> Path:
        """Data directory of the embedded Qdrant."""
        return self.path / "data" / "qdrant"

    def data(self, name: str) -> Path:
        """Return the data directory of a server, created if missing."""
        found = self.path / "data" / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    def create(self) -> None:
        """Create the directory, for this user only, and keep it out of version control.

        Raises:
            DevError: It cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
            write_private(self.path / ".gitignore", "*\n")
        except OSError as error:
            raise DevError(f"cannot use {self.path}: {error.strerror}; set CITADEL_HOME") from error

    def lock(self) -> int | None:
        """Take the lock and return its descriptor; None if another process holds it.

        The guardian inherits the descriptor, so the lock lasts until all children have ended.
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
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def state(self) -> State:
        """Return the state that the last run left; a fresh one if there is none."""
        try:
            return State(**json.loads((self.path / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return State()

    def update_state(self, **changes: object) -> None:
        """Change some of the state."""
        state = replace(self.state(), **changes)  # type: ignore[arg-type]
        write_private(self.path / "state.json", json.dumps(asdict(state)))

    def write_env(self, variables: Mapping[str, str]) -> None:
        """Write `NAME='value'` lines that a shell can source."""
        lines = [f"{name}={_quoted(value)}\n" for name, value in variables.items()]
        write_private(self.env_file, "".join(lines))

    def remove_env(self) -> None:
        """Remove the env file, since the stack is not ready."""
        self.env_file.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    return f"'{value}'" if "'" not in value else shlex.quote(value)


def write_private(path: Path, content: str) -> None:
    """Replace a file atomically; only this user can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    draft.replace(path)
