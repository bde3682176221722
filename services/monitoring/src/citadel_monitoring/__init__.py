"""Monitoring: health checks, system metrics and the Prometheus exporter."""
