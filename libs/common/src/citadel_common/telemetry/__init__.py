"""The seam to telemetry: what code may count and time, and the form that does nothing."""

from citadel_common.telemetry.seam import NULL_TELEMETRY, NullTelemetry, Telemetry

__all__ = ["NULL_TELEMETRY", "NullTelemetry", "Telemetry"]
