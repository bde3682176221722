"""What a conformance run has found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Grade = Literal["good", "note", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: Name of the check.
        result: The outcome in a few words, the same for all servers that behave alike.
        grade: `bad` if Citadel cannot work with it, `note` if a setting or a caller should know it.
        detail: Numbers and the server's own words.
    """

    check: str
    result: str
    grade: Grade = "good"
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that the run has made; `status` is None where no answer came."""

    purpose: str
    method: str
    path: str
    status: int | None
    milliseconds: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        url: The server, without credentials.
        kind: What it does.
        style: Its protocol.
        model: The model that was asked.
        findings: In order of the checks.
        settings: Lines for an environment file.
        calls: Every call made.
    """

    url: str
    kind: Literal["embedding", "llm"]
    style: Literal["openai", "ollama"]
    model: str
    findings: Sequence[Finding]
    settings: Sequence[str]
    calls: Sequence[Call]

    @property
    def fits(self) -> bool:
        """Whether Citadel can work with the server."""
        return all(finding.grade != "bad" for finding in self.findings)

    def table(self) -> dict[str, str]:
        """Return the results by check."""
        return {finding.check: finding.result for finding in self.findings}


def counted(value: Any) -> bool:
    """Return whether a value is a count of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
