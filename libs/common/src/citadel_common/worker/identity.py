"""Who a worker process is, and whether a process of the same machine still lives."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """One worker process.

    Attributes:
        id: Unique over all time.
        queue: The queue it serves.
        host: Host name.
        pid: Process id on that host.
        machine: Names the process table that `pid` is in; empty where that is unknown.
        born: The process's start time there, so that a reused pid is told apart.
    """

    id: str
    queue: str
    host: str
    pid: int
    machine: str
    born: str

    @classmethod
    def of_this_process(cls, queue: str) -> "WorkerIdentity":
        """The identity of the calling process."""
        host, pid = socket.gethostname(), os.getpid()
        return cls(
            id=f"{queue}@{host}:{pid}:{uuid.uuid4().hex[:8]}",
            queue=queue,
            host=host,
            pid=pid,
            machine=_machine(),
            born=_born(pid),
        )


def surely_dead(*, machine: str, pid: int, born: str) -> bool:
    """Whether that process was on this machine and is gone; False where it cannot be told."""
    return bool(machine) and machine == _machine() and _born(pid) != born


def _machine() -> str:
    """Boot id and process-id namespace (Linux): equal just where pids mean the same processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Field 22 of /proc/PID/stat, the start time in ticks; empty for no process or a zombie.

    A zombie whose threads still end lives: its sockets are open, and Redis may yet hand a message to one of them.
    """
    process = Path(f"/proc/{pid}")
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
        threads = len(list((process / "task").iterdir()))
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" and threads <= 1 else fields[18]
