"""The compose files, with their templates and limits merged as compose does."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "compose"
LAYERS = ("stores", "services", "edge", "models", "observability")
JOBS = {"migrate", "ollama-models"}
OWN = {"migrate", "api", "embeddings", "orchestration", "monitoring", "exporter", "maintenance", "beat"}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::?[-?]([^}]*))?\}")


def load(name: str) -> dict[str, Any]:
    """Return the content of a file in compose/, without compose's own tags."""
    found: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text().replace("!reset ", ""))
    return found


def services() -> dict[str, dict[str, Any]]:
    """Return all services, merged with their templates and limits."""
    templates, limits = load("templates.yaml")["services"], load("limits.yaml")["services"]
    found: dict[str, dict[str, Any]] = {}
    for layer in LAYERS:
        for name, service in load(f"{layer}.yaml")["services"].items():
            extended = templates[service["extends"]["service"]] if "extends" in service else {}
            found[name] = extended | service | limits[name]
    return found


def images() -> dict[str, str]:
    """Return the images of the stack by variable."""
    lines = (COMPOSE / "images.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def defaults(text: str) -> dict[str, str]:
    """Return the variables in a text, with their defaults."""
    return dict(VARIABLE.findall(text))


def seconds(duration: str) -> float:
    """Return the seconds of a duration such as `45s`."""
    return float(duration.removesuffix("s"))
