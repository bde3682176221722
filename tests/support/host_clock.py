"""Hosts whose wall clocks are wrong, or are set while processes run; Redis and PostgreSQL keep the machine's."""

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = Path(__file__).parent / "programs" / "shifted_clock"
HOUR = 3600.0


class HostClock:
    """The wall clock of one host, `offset` seconds ahead of this machine's."""

    def __init__(self, offset: float = 0.0) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="citadel-clock-")  # noqa: SIM115
        self.offset = 0.0
        self.step(offset)

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back, for all processes of the host at once."""
        self.offset += seconds
        os.pwrite(self._file.fileno(), struct.pack("d", self.offset), 0)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a process that runs on that host."""
        return {"PYTHONPATH": str(PROGRAM), "SHIFTED_CLOCK": self._file.name}

    @contextlib.contextmanager
    def host(self) -> Iterator[None]:
        """Let processes that are started in the block, and their children, run on that host."""
        ours = self.variables
        before = {name: os.environ.get(name) for name in ours}
        os.environ |= ours
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
