"""Metrics: what code may count (`seam`, `names`), the spans it makes (`spans`, `tracing`), and where both go."""

from citadel_common.telemetry.metrics import NULL_METRICS, Metrics, NullMetrics

__all__ = ["NULL_METRICS", "Metrics", "NullMetrics"]
