"""A logistic function of a few features, fitted to tell two kinds apart. Owns fitting (Newton's method) and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_ROUNDS: Final = 50
_PENALTY: Final = 1.0
_ENOUGH: Final = 1e-8
_LARGEST: Final = 30.0  # of a log-odds: beyond, exp() says nothing more

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Logistic:
    """``sigmoid(features @ weights + bias)``."""

    weights: tuple[float, ...]
    bias: float

    def log_odds(self, features: Array) -> Array:
        """Of one row of features, or of many."""
        found: Array = np.clip(features @ np.asarray(self.weights) + self.bias, -_LARGEST, _LARGEST)
        return found

    def probability(self, features: Array) -> float:
        """Of one row."""
        return float(1 / (1 + np.exp(-self.log_odds(features))))


def fit_logistic(features: Array, is_positive: Array, shares: Array) -> Logistic:
    """Weighted ridge logistic regression; the penalty is on standardised weights, the bias is free.

    Args:
        features: (n, features), finite.
        is_positive: (n,) of bool; both kinds must be there.
        shares: (n,) weights of the rows.
    """
    mean = np.average(features, axis=0, weights=shares)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=shares)) + 1e-9
    columns = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    penalty = np.diag([_PENALTY] * features.shape[1] + [1e-6])
    solution = np.zeros(columns.shape[1])
    for _ in range(_ROUNDS):
        chances = 1 / (1 + np.exp(-np.clip(columns @ solution, -_LARGEST, _LARGEST)))
        slope = columns.T @ (shares * (chances - is_positive)) + penalty @ solution
        curve = (columns * (shares * chances * (1 - chances))[:, None]).T @ columns + penalty
        step = np.linalg.solve(curve, slope)
        solution -= step * min(1.0, 5.0 / (float(np.abs(step).max()) + _ENOUGH))
        if float(np.abs(step).max()) < _ENOUGH:
            break
    weights = solution[:-1] / spread
    return Logistic(tuple(map(float, weights)), float(solution[-1] - weights @ mean))
