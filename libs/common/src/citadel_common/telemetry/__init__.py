"""Telemetry: metrics (`metrics`, `names`), spans (`spans`, `tracing`), and the export of both (`pipeline`)."""

from citadel_common.telemetry.metrics import NULL_METRICS, Metrics, NullMetrics

__all__ = ["NULL_METRICS", "Metrics", "NullMetrics"]
