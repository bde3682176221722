"""What a benchmark says: a value beside its baseline's."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the results; the name is stable.

    Attributes:
        name: Its name.
        value: What Citadel does.
        unit: Of both values.
        baseline: What it is held against.
        baseline_value: What that does.
        ratio: value / baseline_value; the median over rounds where there are several.
        ratios: The rounds' own ratios, in order.
    """

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float
    ratios: list[float] = field(default_factory=list)

    @classmethod
    def single(cls, name: str, value: float, unit: str, *, baseline: str, baseline_value: float) -> "Figure":
        """A figure that is measured once."""
        ratio = value / baseline_value
        return cls(name=name, value=value, unit=unit, baseline=baseline, baseline_value=baseline_value, ratio=ratio)

    @classmethod
    def of_rounds(cls, name: str, unit: str, *, baseline: str, rounds: "list[tuple[float, float]]") -> "Figure":
        """A figure of several rounds, each (value, baseline's value): medians."""
        ratios = [value / base for value, base in rounds]
        return cls(
            name=name,
            value=statistics.median(value for value, _ in rounds),
            unit=unit,
            baseline=baseline,
            baseline_value=statistics.median(base for _, base in rounds),
            ratio=statistics.median(ratios),
            ratios=ratios,
        )

    def as_json(self) -> dict[str, Any]:
        """The written form."""
        return {
            "name": self.name,
            "value": round(self.value, 2),
            "unit": self.unit,
            "baseline": self.baseline,
            "baseline_value": round(self.baseline_value, 2),
            "ratio": round(self.ratio, 3),
            "ratios": [round(ratio, 3) for ratio in self.ratios],
        }


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Figures that one set-up gives; they are measured together."""

    names: tuple[str, ...]
    measure: "Callable[[Any], list[Figure]]"
