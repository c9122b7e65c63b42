"""What every cross-encoder here has in common: the bound on a call, and the score from a logit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from appliance.kit.errors import ApplianceError
from services.rerank.settings import RerankSettings


def check_documents(documents: Sequence[str], settings: RerankSettings) -> None:
    """Raise ``too_large`` for more documents than a call may have."""
    if len(documents) > settings.max_documents:
        hint = "send them in several calls; scores of the same query compare"
        raise ApplianceError("too_large", f"{len(documents)} documents in one call, at most {settings.max_documents}", hint=hint)


def logistic(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + e^-x), for x cut to ±30 so that it never overflows nor reaches 0 or 1."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))))
