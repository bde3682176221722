"""The exporter's sources as a collector of Prometheus' client library."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from citadel_common.stores.redis import connect
from citadel_monitoring.exporter.db import DatabaseReader
from citadel_monitoring.exporter.metrics import empty_families, families
from citadel_monitoring.exporter.settings import ExporterSettings
from citadel_monitoring.exporter.sources import Source, read_all
from citadel_monitoring.exporter.stores import BrokerReader, CacheReader, ResultReader


class PlatformCollector(Collector):
    """Collector that reads the sources at each scrape."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Family]:
        """Return the samples of the sources that answered; `citadel_exporter_up` names the others."""
        return families(read_all(self._sources))

    def describe(self) -> Iterable[Family]:
        """Return all possible metrics, without reading a source."""
        return empty_families()


def sources_of(settings: ExporterSettings) -> list[Source]:
    """Return the stores that the settings name; connections open at the first scrape."""
    timeout = settings.exporter.timeout
    stores = settings.stores.model_copy(
        update={"timeout": timeout, "connect_timeout": min(timeout, settings.stores.connect_timeout)}
    )
    broker = BrokerReader(connect(settings.broker_url, stores), dead_after=settings.worker.dead_after)
    results = ResultReader(connect(settings.results, stores))
    cache = CacheReader(connect(settings.cache_store, stores))
    database = DatabaseReader(
        settings.postgres_dsn, settings.postgres, timeout=timeout, max_bytes=settings.storage.max_bytes
    )
    return [
        Source("broker", broker.read, timeout=timeout),
        Source("results", results.read, timeout=timeout),
        Source("cache", cache.read, timeout=timeout),
        Source("postgres", database.read, timeout=timeout),
    ]
