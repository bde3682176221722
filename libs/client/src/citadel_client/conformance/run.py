"""One conformance run."""

from collections.abc import Callable

from citadel_client.conformance.detection import Kind, subject
from citadel_client.conformance.embedding_checks import EmbeddingChecks
from citadel_client.conformance.findings import Finding, Report
from citadel_client.conformance.fitting import settings_for
from citadel_client.conformance.llm_checks import LlmChecks
from citadel_client.conformance.protocols import Style
from citadel_client.conformance.server import Server


def check(
    server: Server,
    *,
    style: Style | None = None,
    kind: Kind | None = None,
    model: str | None = None,
    long_words: int = 9000,
    name: str = "main",
    progress: Callable[[Finding], None] = lambda _: None,
) -> Report:
    """Run all checks of a server and return what they found.

    Args:
        server: The server.
        style: Its protocol; None to find out.
        kind: What it does; None to find out.
        model: The model to ask; None for the only one.
        long_words: Words of the text that is too long; 0 leaves it out.
        name: Name of the backend or endpoint in the settings.
        progress: Called with each finding.

    Raises:
        NoAnswer: The server cannot be reached.
        Undetected: It cannot be found out what to ask.
    """
    found = subject(server, style=style, kind=kind, model=model)
    checks = EmbeddingChecks(found, long_words) if found.kind == "embedding" else LlmChecks(found, long_words)
    findings = list(found.findings)
    for finding in findings:
        progress(finding)
    for finding in checks.run():
        progress(finding)
        findings.append(finding)
    size = checks.size if isinstance(checks, EmbeddingChecks) else 0
    by_name = {finding.check: finding for finding in findings}
    return Report(
        url=server.shown,
        kind=found.kind,
        style=found.wire.style,
        model=found.model,
        findings=findings,
        settings=settings_for(found, by_name, size=size, name=name),
        calls=server.calls,
    )
