"""Whether the retrieved passages answer the question at all: a calibrated probability and the threshold for refusing.

Owns the decision to refuse. Does not own the choice of quotes. A reader that cannot refuse is worse than none: its quotes
look like answers.

The model is a logistic regression on four or five features of the best unit. Two sets of weights: with the cosine of that
unit when the encoder knows the question's language, and without. The intercepts are set so that one threshold means the
same in both.

Provenance: fitted on XQuAD English and Russian (1,190 questions each, one index of both), answerable = as it is,
unanswerable = the same question with its passage removed from the index, once with and once without the translation of
that passage; classes balanced; rounded. Cross-validated over eight folds of articles at 80 % refusals: the right span is quoted for
91.5 % (English) and 84.5 % (Russian) of answerable questions; weights fitted on one language without cosine serve the
other as well (85.2 % for Russian). `python -m bench.reader_quality` measures it. The intercepts put the threshold of 0.5
where about 86 % / 83 % of the unanswerable are refused.
Deliberately unused: the lead of the best passage over the second. It helps on that collection (+1 %) but fails where two
versions of one document say the same thing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.llm.reader.selection import ScoredUnit


@dataclass(frozen=True, slots=True)
class AnswerabilityWeights:
    """Logistic weights; features are in [0, 1] except `length`, the natural logarithm of the number of terms asked."""

    intercept: float
    near: float
    whole: float
    names: float
    cosine: float
    length: float


WITH_DENSE: Final = AnswerabilityWeights(intercept=-9.8, near=3.0, whole=5.0, names=0.7, cosine=7.5, length=0.6)
WITHOUT_DENSE: Final = AnswerabilityWeights(intercept=-8.5, near=6.0, whole=4.0, names=1.4, cosine=0.0, length=1.4)
THRESHOLD: Final = 0.5
"""Answer when the probability reaches this."""


def probability(units: Sequence[ScoredUnit], terms: int) -> float:
    """Probability that the passages answer the question, in [0, 1].

    Args:
        units: from `selection.score_units`, best first.
        terms: number of terms in the question.
    """
    if not units or terms == 0:
        return 0.0
    best = units[0]
    w = WITHOUT_DENSE if best.cosine is None else WITH_DENSE
    logit = (
        w.intercept
        + w.near * best.evidence.near
        + w.whole * best.evidence.whole
        + w.names * best.evidence.names
        + w.cosine * (best.cosine or 0.0)
        + w.length * math.log(terms)
    )
    return 1 / (1 + math.exp(-logit))
