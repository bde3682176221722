"""Parts of a dashboard: panels with queries, laid out in rows, rendered as Grafana's JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PROMETHEUS = {"type": "prometheus", "uid": "citadel-prometheus"}
COLUMNS = 24
SCHEMA = 41
"""Version of Grafana's dashboard model."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL; Grafana fills in `$__rate_interval`.
        legend: Name of its series; Grafana fills in `{{label}}`.
        exemplars: Whether to show points that link to traces.
    """

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: Its heading.
        description: How to read it, and what is normal.
        unit: Grafana's name of the values' unit.
        queries: Its series.
        kind: A number with its history, lines, bars of the current values, or a table.
        width: Columns of 24.
        stacked: Whether to stack the lines.
        bounds: Values from which it turns yellow and red.
        limits: Minimum and maximum of the axis.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "timeseries", "bargauge", "table"] = "timeseries"
    width: int = 8
    stacked: bool = False
    bounds: tuple[float, float] | None = None
    limits: tuple[float | None, float | None] = (0, None)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading, side by side and wrapped, all of the same height in Grafana's units."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A selector at the top: values of a label; all are selected at first."""

    name: str
    query: str


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """One dashboard; `uid` is its address and the name of its file."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def render(dashboard: Dashboard) -> Json:
    """Return the dashboard as Grafana's JSON model."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["citadel"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts()]},
        "links": [_siblings()],
        "templating": {"list": [_variable(variable) for variable in dashboard.variables]},
        "panels": list(_panels(dashboard.rows)),
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Yield the panels with their positions: left to right, row below row, numbered in order."""
    number, top = 1, 0
    for row in rows:
        yield _heading(row.title, number, top)
        number, top, left = number + 1, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left = top + row.height, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": row.height})
            number, left = number + 1, left + panel.width
        top += row.height


def _heading(title: str, number: int, top: int) -> Json:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.kind),
        "targets": [_target(query, index, panel.kind) for index, query in enumerate(panel.queries)],
    }


def _target(query: Query, index: int, kind: str) -> Json:
    now = kind in {"bargauge", "table"}
    return {
        "refId": chr(ord("A") + index),
        "datasource": PROMETHEUS,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "exemplar": query.exemplars,
        "instant": now,
        "range": not now,
        "format": "table" if kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    least, greatest = panel.limits
    known = {"unit": panel.unit, "min": least, "max": greatest, "thresholds": _thresholds(panel.bounds)}
    if panel.kind == "timeseries":
        known["custom"] = _lines(panel)
    elif panel.bounds:
        known["color"] = {"mode": "thresholds"}
    return {name: value for name, value in known.items() if value is not None}


def _lines(panel: Panel) -> Json:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.bounds else "off"},
    }


def _thresholds(bounds: tuple[float, float] | None) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if bounds:
        steps += [{"color": "yellow", "value": bounds[0]}, {"color": "red", "value": bounds[1]}]
    return {"mode": "absolute", "steps": steps}


def _options(kind: str) -> Json:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match kind:
        case "stat":
            return {"reduceOptions": last, "graphMode": "area", "colorMode": "value", "textMode": "value_and_name"}
        case "bargauge":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": True}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
    legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.name,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": variable.query, "refId": "variable", "qryType": 1},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
    }


def _alerts() -> Json:
    """Return annotations that mark firing alerts."""
    return {
        "name": "Alerts",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Citadel.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "step": "30s",
    }


def _siblings() -> Json:
    """Return links to the other dashboards that keep the time range."""
    return {
        "type": "dashboards",
        "title": "Citadel",
        "tags": ["citadel"],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
    }
