"""Telemetry: what code may count (`seam`, `names`), the spans it makes (`spans`, `tracing`), and where both go."""

from citadel_common.telemetry.seam import NULL_TELEMETRY, NullTelemetry, Telemetry

__all__ = ["NULL_TELEMETRY", "NullTelemetry", "Telemetry"]
