"""Figures: a value of Citadel beside the value of a baseline."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

FAR_BELOW = 2.0
"""How many times worse than in its other rounds a baseline may be in one."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the results.

    Attributes:
        name: Stable name.
        value: Citadel's value.
        unit: Unit of both values; of rates it ends in "/s", and all others are better when they are smaller.
        baseline: Name of the baseline.
        baseline_value: Value of the baseline.
        ratio: value / baseline_value; the median over rounds where there are several.
        ratios: Ratio of each round, in order.
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
        """Return a figure that is measured once."""
        ratio = value / baseline_value
        return cls(name=name, value=value, unit=unit, baseline=baseline, baseline_value=baseline_value, ratio=ratio)

    @classmethod
    def of_rounds(cls, name: str, unit: str, *, baseline: str, rounds: "list[tuple[float, float]]") -> "Figure":
        """Return a figure of several rounds, each (value, baseline's value): their medians.

        Raises:
            RuntimeError: The baseline was far worse in one round than in the others.
        """
        _check_baseline(name, [base for _, base in rounds], rate=unit.endswith("/s"))
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
        """Return the written form."""
        return {
            "name": self.name,
            "value": round(self.value, 2),
            "unit": self.unit,
            "baseline": self.baseline,
            "baseline_value": round(self.baseline_value, 2),
            "ratio": round(self.ratio, 3),
            "ratios": [round(ratio, 3) for ratio in self.ratios],
        }


def _check_baseline(name: str, values: list[float], *, rate: bool) -> None:
    for number, value in enumerate(values):
        others = values[:number] + values[number + 1 :]
        usual = statistics.median(others or [value])
        if (usual / value if rate else value / usual) > FAR_BELOW:
            raise RuntimeError(
                f"{name}: the baseline measured {value:,.1f} in round {number + 1} and {usual:,.1f} in the others; "
                "measure again on an idle machine, or look for what failed in the baseline's log"
            )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Figures that are measured together."""

    names: tuple[str, ...]
    measure: "Callable[[Any], list[Figure]]"
