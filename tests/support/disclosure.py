"""Searches what processes tell (logs, metrics, spans) for what was planted, and for vectors of whatever text.

Every piece is searched once, when the test that made it ends.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.planted import SEAL
from tests.support.web import web

SCRAPE_S = 5.0
"""For the last metrics of a process, which may be frozen."""
SHOWN = 200
"""Characters shown of what stands before and behind a finding."""
_NUMBER = rb"-?\d*\.?\d+(?:[eE]-?\d+)?"
FORBIDDEN = {
    "planted": re.compile(SEAL.encode() + rb"-[a-z0-9-]+"),
    "a vector as numbers": re.compile(rb"-?\d\.\d{4,}(?:e-?\d+)?(?:,\s*" + _NUMBER + rb"){5}"),
    "a vector as base64": re.compile(rb"[A-Za-z0-9+/]{400}"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was told.

    Attributes:
        source: The process, and whether it was its log, its metrics or a span.
        what: The marker, or the kind of what was found.
        line: Where it stands.
    """

    source: str
    what: str
    line: str


class Disclosures:
    """What processes have told so far, searched piece by piece."""

    def __init__(self) -> None:
        self._logs: dict[Path, tuple[str, int]] = {}
        self._findings: list[Finding] = []

    def watch(self, source: str, log: Path) -> None:
        """Search what is written to a log from now on; what another process wrote there is searched before."""
        self.end(log)
        self._logs[log] = (f"log of {source}", 0)

    def end(self, log: Path) -> None:
        """Search the rest of a log, which may then be removed."""
        self._read(log, to_the_end=True)
        self._logs.pop(log, None)

    def scrape(self, source: str, url: str) -> None:
        """Search the metrics of a process that still serves them."""
        with contextlib.suppress(httpx.HTTPError):
            self.search(f"metrics of {source}", web.get(url, timeout=SCRAPE_S).content)

    def search(self, source: str, told: bytes, *, secrets: Iterable[str] = ()) -> None:
        """Search what a source has told; `secrets` are those that were not planted, but made up by the product."""
        made_up = [("a made-up secret", re.compile(re.escape(secret.encode()))) for secret in secrets]
        for kind, pattern in [*FORBIDDEN.items(), *made_up]:
            for found in pattern.finditer(told):
                what = found.group().decode() if kind == "planted" else kind
                self._findings.append(Finding(source=source, what=what, line=_surroundings(told, found)))

    def taken(self) -> list[Finding]:
        """Return what was found since the last call, in all that is watched."""
        for log in list(self._logs):
            self._read(log)
        found, self._findings = self._findings, []
        return found

    def _read(self, log: Path, *, to_the_end: bool = False) -> None:
        source, read = self._logs.get(log, ("", 0))
        if not source or not log.exists() or log.stat().st_size == read:
            return
        with log.open("rb") as file:
            file.seek(read)
            told = file.read()
        # a line that is only half written is read again when it is whole
        whole = len(told) if to_the_end else told.rfind(b"\n") + 1
        self.search(source, told[:whole])
        self._logs[log] = (source, read + whole)


DISCLOSURES = Disclosures()
"""Those of this test process."""


def _surroundings(told: bytes, found: "re.Match[bytes]") -> str:
    begin, end = max(told.rfind(b"\n", 0, found.start()) + 1, found.start() - SHOWN), found.end() + SHOWN
    return told[begin:end].partition(b"\n")[0].decode("utf-8", "backslashreplace")
