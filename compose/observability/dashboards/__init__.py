"""The Grafana dashboards, as Python; `python -m compose.observability.dashboards` writes their JSON."""
