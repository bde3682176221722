"""Grafana dashboards in Python; `python -m compose.observability.dashboards` writes their JSON."""
