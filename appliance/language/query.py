"""What a question is made of: language, weighted content terms and the kind of answer it expects.

Owns the reading of questions. Does not own index terms (`analysis`) or how a candidate is scored (`services.rerank`).
The patterns are closed lists of question words and of nouns that name a quantity, a date, a person or a place.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from appliance.language.stop_words import ENGLISH, FOREIGN_LATIN, RUSSIAN, STOP_WORDS
from appliance.language.terms import stem, tokenise


class Language(StrEnum):
    """Languages that analysis tells apart; an encoder declares which of them it knows."""

    RU = "ru"
    EN = "en"
    OTHER = "other"


class AnswerType(StrEnum):
    """What the answer should contain, judged by the words of the question alone."""

    DATE = "date"
    NUMBER = "number"
    PERSON = "person"
    PLACE = "place"
    EXPLANATION = "explanation"
    ANY = "any"


class DocumentFrequencies(Protocol):
    """Collection-wide term statistics; used only to order and to weigh, never shown, so no ACL applies to them."""

    @property
    def documents(self) -> int:
        """Chunks in the index."""

    def document_frequency(self, term: str) -> int:
        """Chunks that hold `term` in the stem field; 0 when none does."""


@dataclass(frozen=True, slots=True)
class AnalysedQuery:
    """A question after analysis.

    Attributes:
        text: as it was asked.
        language: of the question.
        terms: distinct content terms in order of first use; all terms when the question has only function words.
        expects: the answer type.
        names: for each term, whether it was written as a number or a proper name (capitalised, not the first word).
    """

    text: str
    language: Language
    terms: tuple[str, ...]
    expects: AnswerType
    names: tuple[bool, ...]


_LETTERS: Final = re.compile(r"[^\W\d_]")
_UKRAINIAN_AND_OTHERS: Final = re.compile("[іїєґўјљњћђџқғүұһө]", re.IGNORECASE)
_LONGEST_QUESTION: Final = 4_000

_QUANTITY_EN: Final = (
    "percent|percentage|number|amount|portion|fraction|proportion|price|cost|fee|salary|rate|penalty|limit|length|"
    "height|weight|width|size|distance|temperature|pressure|voltage|power|capacity|duration|term|period|deadline|"
    "budget|discount|speed|age|population|area|depth|frequency|warranty"
)
_QUANTITY_RU: Final = (
    "процент|дол[яиюе]|числ|количеств|сумм|част|размер|цен|стоимост|срок|период|штраф|пен[яиюе]|лимит|длин|высот|"
    "ширин|вес|масс|расстояни|температур|давлени|напряжени|мощност|[её]мкост|скидк|ставк|зарплат|оклад|тариф|"
    "продолжительност|длительност|скорост|возраст|площад|глубин|населени|гарантийн"
)
_PATTERNS: Final = (
    (
        AnswerType.DATE,
        (
            r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century|decade)\b|\buntil what\b|\bкогда\b|\bсо? како(?:го|й)\b|"
            r"\bдо како(?:го|й)\b|\bкак(?:ом|ой|ого|ая|ое|ие|их) (?:год|дат|день|дня|месяц|век|столети|десятилети|числа)\w*"
        ),
    ),
    (
        AnswerType.NUMBER,
        (
            r"\bhow (?:many|much|long|old|far|tall|large|big|fast|often|high|deep|wide|heavy)\b|"
            rf"\bwhat (?:is|are|was|were)? ?(?:the|a)? ?(?:\w+ ){{0,2}}(?:{_QUANTITY_EN})\b|"
            r"\bсколько\b|\bскольк(?:о|их|им|ими)\b|\bкак (?:долго|часто|много|далеко|быстро|высоко)\b|\bнасколько\b|"
            rf"\bкак(?:ой|ая|ое|ие|ов|ова|ово|овы|им|ую|ого|ом) (?:\w+ ){{0,2}}(?:{_QUANTITY_RU})\w*"
        ),
    ),
    (
        AnswerType.PERSON,
        (
            r"\b(?:who|whom|whose)\b|\b(?:what|which) (?:person|people|man|woman|author|company|team|group|party)\b|"
            r"\b(?:кто|кого|кому|кем|чей|чья|чье|чьё|чьи|чьего|чьей)\b"
        ),
    ),
    (
        AnswerType.PLACE,
        (
            r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|river|region|town|island|continent|building|street)\b|"
            r"\b(?:где|куда|откуда)\b|\bкак(?:ом|ой|их|ая|ое) (?:город|стран|штат|мест|регион|област|район|улиц|здани)\w*"
        ),
    ),
    (
        AnswerType.EXPLANATION,
        (
            r"\bwhy\b|^\s*how\b|\bexplain\b|\bdescribe\b|\bdefine\b|\bwhat happens\b|\bсписок\b|\blist\b|"
            r"\bпочему\b|\bзачем\b|^\s*как\b(?! назыв| зов| зв)|\bчто такое\b|\bобъясни\w*|\bопиши\w*|\bперечисли\w*|\bчто происходит\b"
        ),
    ),
)
_COMPILED: Final = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS)


def detect_language(text: str) -> Language:
    """Return the language of a question: script first, then function words to tell English from its Latin neighbours."""
    letters = _LETTERS.findall(text[:_LONGEST_QUESTION])
    if not letters:
        return Language.OTHER
    cyrillic = sum("\u0400" <= c <= "\u04ff" for c in letters)
    latin = sum(c < "\u0250" for c in letters)
    tokens = tokenise(text[:_LONGEST_QUESTION])
    if 2 * cyrillic > len(letters) or any(token in RUSSIAN for token in tokens):
        return Language.OTHER if _UKRAINIAN_AND_OTHERS.search(text) else Language.RU
    if 2 * latin <= len(letters):
        return Language.OTHER
    english = sum(token in ENGLISH for token in tokens)
    foreign = sum(token in FOREIGN_LATIN for token in tokens)
    return Language.OTHER if foreign > english else Language.EN


def expected_answer(text: str) -> AnswerType:
    """Return the first pattern that matches wins: dates before quantities before names, explanations last."""
    for kind, pattern in _COMPILED:
        if pattern.search(text):
            return kind
    return AnswerType.ANY


def _is_name(word: str, position: int) -> bool:
    return word[0].isdigit() or (position > 0 and word[0].isupper()) or (len(word) > 1 and word.isupper())


def analyse_query(text: str) -> AnalysedQuery:
    """Analyse a question; text past 4,000 characters is ignored."""
    text = text[:_LONGEST_QUESTION]
    tokens = tokenise(text)
    content = [token for token in tokens if token not in STOP_WORDS] or tokens
    words = re.findall(r"\w+", text)
    named = {stem(t) for i, word in enumerate(words) if _is_name(word, i) for t in tokenise(word)}
    terms = tuple(dict.fromkeys(stem(token) for token in content))
    names = tuple(term in named for term in terms)
    return AnalysedQuery(text, detect_language(text), terms, expected_answer(text), names)


def term_weights(terms: Sequence[str], statistics: DocumentFrequencies) -> list[float]:
    """Robertson/Spärck Jones weight of each term, `ln(1 + (N - df + 0.5) / (df + 0.5))`, never below 0.2.

    The formula is the one inside Lucene's and tantivy's BM25. The floor keeps a word that all twelve documents of a
    small collection share from counting for nothing.
    """
    total = max(statistics.documents, 1)
    weights = []
    for term in terms:
        frequency = min(statistics.document_frequency(term), total)
        weights.append(max(0.2, math.log(1 + (total - frequency + 0.5) / (frequency + 0.5))))
    return weights
