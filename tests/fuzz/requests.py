"""Requests that schemathesis makes up from the OpenAPI document, with the links between operations."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.config import ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.schemas import BaseSchema

from tests.fuzz.definitions import BODIES

DOCUMENTED_FAILURES = frozenset({502, 503, 504})
"""Statuses of 5xx that an answer may have where its operation documents them."""
EXAMPLES = 30
"""Generated requests of one operation in a round; a round goes through all operations and scenarios of links."""
SCENARIOS = 3
"""Scenarios of links for each generated request of an operation."""
WORTH_COVERAGE = 10_000
"""Requests from which on the first round enumerates the boundaries of each schema, always the same: some 3,000."""
GENERATION = {"no-shrink": True, "database": "none", "with-security-parameters": False}
NOT_CHECKED = (
    # The API takes more than its document says: null for what is absent, other servers' fields. It documents what
    # it refuses in words, not in schemas: expressions, models, collections.
    "negative_data_rejection",
    "positive_data_acceptance",
    # `/v1/dead-letters/requeue` is also the path of a dead letter named "requeue".
    "allow_header_conformance",
)


@dataclass(kw_only=True)
class Found:
    """What a run of requests found.

    Attributes:
        requests: Requests sent.
        statuses: Answers by operation and status.
        failures: Failed checks by their text, with the command that repeats one of them.
        linked: Requests that followed a link.
    """

    requests: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    linked: int = 0

    @property
    def report(self) -> str:
        """Return the figures of the run."""
        by_status = Counter[int]()
        for (_, status), count in self.statuses.items():
            by_status[status] += count
        return f"{self.requests} requests, {self.linked} by a link; answers {dict(sorted(by_status.items()))}"

    def count(self, status: int) -> int:
        """Return the number of answers with that status."""
        return sum(count for (_, found), count in self.statuses.items() if found == status)


def send(
    url: str, *, key: str, requests: int, seed: int, progress: Callable[[int], None], timeout: float = 30.0
) -> Found:
    """Send about that many requests to an API.

    Args:
        url: Its base URL.
        key: A key with all scopes.
        requests: Number of requests; the last scenario may go beyond it.
        seed: Makes the same requests again, as far as the answers are the same.
        progress: Called with the number of requests so far.
        timeout: Seconds for one answer.
    """
    found, rounds = Found(), 0
    while found.requests < requests:
        before = found.requests
        whole = rounds == 0 and requests >= WORTH_COVERAGE
        examples = max(1, min(EXAMPLES, (requests - before) // 80))
        schema = _schema(url, key, seed + rounds, timeout=timeout, examples=examples, coverage=whole)
        _round(schema, found, requests, progress)
        rounds += 1
        assert found.requests > before, "no request was sent"
    return found


def _round(schema: BaseSchema, found: Found, requests: int, progress: Callable[[int], None]) -> None:
    stream = from_schema(schema).execute()
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            _note(event, found)
            progress(found.requests)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            name = getattr(event, "label", "engine")
            found.failures.setdefault(f"{name}: {type(event).__name__}", str(event.info.format()))
        if found.requests >= requests:
            stream.stop()


def _note(event: events.ScenarioFinished, found: Found) -> None:
    recorder = event.recorder
    for case_id, interaction in recorder.interactions.items():
        found.requests += 1
        node = recorder.cases[case_id]
        found.linked += node.transition is not None
        if interaction.response is not None:
            found.statuses[node.value.operation.label, interaction.response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                label = recorder.cases[case_id].value.operation.label
                text = f"{label}: {check.name}: {check.failure_info.failure.title}"
                found.failures.setdefault(text, f"{check.failure_info.failure}\n{check.failure_info.code_sample}")


def _schema(url: str, key: str, seed: int, *, timeout: float, examples: int, coverage: bool) -> BaseSchema:
    checks: dict[str, Any] = {name: {"enabled": False} for name in NOT_CHECKED}
    # These streams would last as long as their runs.
    events_so_far = {"include-path": "/v1/runs/{run_id}/events", "headers": {"accept": "application/json"}}
    results_so_far = {"include-path": "/v1/runs/{run_id}/results", "parameters": {"query.follow": False}}
    project = {
        "auth": {"openapi": {"bearer": {"bearer": key}}},
        "operations": [events_so_far, results_so_far],
        "request-timeout": timeout,
        "continue-on-failure": True,
        "workers": 1,
        "generation": GENERATION | {"max-examples": examples},
        "phases": {
            "examples": {"enabled": False},
            "coverage": {"enabled": coverage},
            "stateful": {"generation": GENERATION | {"max-examples": examples * SCENARIOS}},
        },
        "checks": checks,
        "warnings": False,
    }
    config = SchemathesisConfig(seed=seed, projects=ProjectsConfig(default=ProjectConfig.from_dict(project)))
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    schema.hook(before_generate_body)
    schema.hook(filter_failure)
    return schema


def before_generate_body(context: Any, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate bodies that the operation accepts beside those that its schema describes (schemathesis's hook)."""
    known = BODIES.get(context.operation.label)
    return strategy if known is None else st.one_of(known, strategy)


def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failed check counts: a documented outage is an answer as any other (schemathesis's hook)."""
    documented = case.operation.definition.raw["responses"]
    expected = response.status_code in DOCUMENTED_FAILURES and str(response.status_code) in documented
    return not (expected and type(failure).__name__ == "ServerError")
