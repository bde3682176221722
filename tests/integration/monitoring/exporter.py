"""The exporter as a process, and its scrapes."""

import urllib.request
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.worker import ServiceProcess

TIMEOUT_S = 60


class Scrape:
    """The answer to one scrape; it must parse, and must not contain a row twice."""

    def __init__(self, text: str) -> None:
        self._rows: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                row = (sample.name, frozenset(sample.labels.items()))
                assert row not in self._rows, row
                self._rows[row] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Return a row's value."""
        return self._rows[f"citadel_{name}", frozenset(labels.items())]

    def has(self, name: str) -> bool:
        """Return whether the metric has rows."""
        return any(row == f"citadel_{name}" for row, _ in self._rows)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Return the values of the rows with these labels, by one more."""
        return dict(self._by(label, f"citadel_{name}", set(labels.items())))

    def _by(self, label: str, name: str, wanted: set[tuple[str, str]]) -> Iterator[tuple[str, float]]:
        for (found, labels), value in self._rows.items():
            if found == name and wanted <= labels:
                yield dict(labels)[label], value

    @property
    def up(self) -> dict[str, float]:
        """1 for each source that answered, else 0."""
        return self.by("source", "exporter_up")


class Exporter(ServiceProcess):
    """`python -m citadel_monitoring.exporter` on a free port; it listens when the constructor returns."""

    def __init__(self, redis_url: str, dsn: str = "postgresql://nobody@127.0.0.1:1/none", **settings: Any) -> None:
        stores = {"BROKER_URL": redis_url, "POSTGRES_DSN": dsn}
        # DEAD_AFTER as for the tests' workers; the timeout is long because the machine may be busy
        fast = {"WORKER__DEAD_AFTER": "1.5", "EXPORTER__PORT": 0, "EXPORTER__TIMEOUT": 20}
        super().__init__("citadel_monitoring.exporter", stores | fast | settings, wait=False)
        self.wait_for("exporter_ready")
        self.port = self._metrics_port = self.events("exporter_ready")[0]["port"]

    def get(self, path: str) -> str:
        """Return the body of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT_S) as answer:
            return answer.read().decode()

    def scrape(self) -> Scrape:
        """Return a scrape."""
        return Scrape(self.get("/metrics"))
