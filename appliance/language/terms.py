"""Text analysis shared by the text index, the reranker and the reader: from any Unicode string to index terms.

Owns tokenising, folding and stemming (`analyse`) and the term list that is kept beside a chunk (`PassageTerms`).
Does not own what a question asks for: that is `query_analysis`. Pure, no I/O; the only state is a bounded stem cache.

Invariants:
    1. `analyse` never raises, whatever the string, and costs time linear in its length.
    2. A term holds no white space, so a white-space-joined list is a faithful encoding of it.
    3. The same function analyses documents and questions; the stemmer is picked by the script of each token, so mixed
       Russian/English text needs no language label.
"""

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import Stemmer

PREFIX_LENGTH: Final = 5
"""Letters kept by the fallback field: it joins derivations that Snowball keeps apart (`договорный`, `договор`)."""
_LONGEST_TOKEN: Final = 64
_STEM_CACHE_ENTRIES: Final = 200_000

_INVISIBLE: Final = re.compile("[\u0300-\u036f\u00ad\u200b-\u200f\u2060\ufeff]")
_VULGAR_FRACTION: Final = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_TOKEN: Final = re.compile(
    r"(?<![.,])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:[.,]\d{1,2})?(?![.,]?\d)"  # 1,500  1 500 000,50
    r"|(?<![.,])\d+[.,]\d+(?![.,]?\d)"  # 3.5  0,1  but not the parts of 31.12.2027
    r"|[\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces: one character is one term
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff]+"
)
_ENGLISH_GROUPS: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_CYRILLIC: Final = re.compile("[\u0400-\u04ff]")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])[\"'»”)\]]*\s+(?=[\"'«“(\[]?[^\W_a-zа-яё])|\n\s*\n|\n(?=\s*(?:[-*•|#]|\d+[.)]))")
_russian = Stemmer.Stemmer("russian", 0)
_english = Stemmer.Stemmer("english", 0)


def _number_term(token: str) -> str:
    """One spelling per number: `1,500`, `1 500` and `1500` are `1500`; `3,5` is `3.5`."""
    token = token.replace(" ", "")
    return token.replace(",", "" if _ENGLISH_GROUPS.fullmatch(token) else ".")


def _stem(token: str) -> str:
    token = token[:_LONGEST_TOKEN]
    if token[0].isdigit():
        return _number_term(token)
    if _CYRILLIC.search(token):
        return str(_russian.stemWord(token))
    if not token.isascii():
        folded = unicodedata.normalize("NFKD", token)
        token = "".join(c for c in folded if not unicodedata.combining(c)) or token
    return str(_english.stemWord(token))


class _StemCache(dict[str, str]):
    """token → term; emptied when full, which costs one pass of stemming and bounds the memory (about 30 MB)."""

    def __missing__(self, token: str) -> str:
        if len(self) >= _STEM_CACHE_ENTRIES:
            self.clear()
        term = self[token] = sys.intern(_stem(token))
        return term


_stems = _StemCache()


def _composed(text: str) -> str:
    """Composed characters, no accents or soft hyphens; keeps letter case."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", _VULGAR_FRACTION.sub(" ", text))
    return _INVISIBLE.sub("", text) if _INVISIBLE.search(text) else text


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else _INVISIBLE.sub("", text.casefold()).replace("ё", "е")


def tokenise(text: str) -> list[str]:
    """Casefolded tokens of `text` in order, `ё` written `е`, numbers and words apart from punctuation."""
    return _TOKEN.findall(_folded(_composed(text)))


def stem(token: str) -> str:
    """Return the index term of one token of `tokenise`."""
    return _stems[token]


def analyse(text: str) -> list[str]:
    """Index terms of `text`, in order, duplicates kept. Feeds the `stem` field and every query."""
    stems = _stems
    return [stems[token] for token in tokenise(text)]


def prefixes(terms: list[str] | tuple[str, ...]) -> list[str]:
    """Terms cut to `PREFIX_LENGTH`: the fallback field for Russian derivation; the same length and order as `terms`."""
    return [term[:PREFIX_LENGTH] for term in terms]


_MONTHS: Final = frozenset(
    """january february march april june july august september october november december
    январь января январе февраль февраля феврале март марта марте апрель апреля апреле мая мае июнь июня июне июль июля
    июле август августа августе сентябрь сентября сентябре октябрь октября октябре ноябрь ноября ноябре декабрь декабря
    декабре""".split()  # noqa: SIM905  a word list reads better as text
)
_NUMBER_WORDS: Final = frozenset(
    """two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty ninety hundred
    thousand million billion half third quarter dozen once twice daily weekly monthly annually
    два две двух двумя три трех тремя четыре четырех пять пяти шесть шести семь семи восемь восьми девять девяти десять
    десяти пятнадцать двадцать двадцати тридцать тридцати сорок сорока пятьдесят шестьдесят сто ста двести триста сотни
    сотен тысяча тысячи тысяч миллион миллиона миллионов миллиард миллиарда миллиардов половина половины треть трети
    четверть дважды трижды ежедневно еженедельно ежемесячно ежегодно""".split()  # noqa: SIM905  a word list reads better as text
)


def _kind(token: str, folded: str, *, first: bool) -> str:
    if token[0].isdigit():
        return "y" if len(token) == 4 and token.isdecimal() and "1000" <= token < "2100" else "n"
    if folded in _MONTHS:
        return "m"
    if folded in _NUMBER_WORDS:
        return "w"
    if token[0].isupper():
        return "C" if first else "c"
    return "-"


@dataclass(frozen=True, slots=True)
class PassageTerms:
    """What the reranker knows of a chunk without reading its text again.

    Attributes:
        terms: the terms of `analyse`, in order.
        kinds: one letter per term: `y` year, `n` number, `w` number word, `m` month, `c` capitalised, `C` capitalised
            first word of a sentence, `-` anything else.
        starts: index into `terms` of the first term of each sentence, ascending, first is 0.
        joined: the terms joined and wrapped by single spaces, for substring tests.
    """

    terms: tuple[str, ...]
    kinds: str
    starts: tuple[int, ...]
    joined: str


def passage_terms(text: str) -> PassageTerms:
    """Analyse a chunk once, at ingest."""
    composed = _composed(text)
    terms: list[str] = []
    kinds: list[str] = []
    starts: list[int] = []
    stems = _stems
    for sentence in _SENTENCE_END.split(composed):
        first, begin = True, len(terms)
        for token in _TOKEN.findall(sentence):
            folded = _folded(token)
            terms.append(stems[folded] if folded else token[:_LONGEST_TOKEN])
            kinds.append(_kind(token, folded, first=first))
            first = False
        if not first:  # a sentence without a term begins nowhere
            starts.append(begin)
    return PassageTerms(tuple(terms), "".join(kinds), tuple(starts or [0]), f" {' '.join(terms)} ")


def encode_passage_terms(passage: PassageTerms) -> bytes:
    """Return the blob stored beside a chunk: three UTF-8 lines; about the size of the text."""
    starts = " ".join(map(str, passage.starts))
    return f"1\n{passage.kinds}\n{starts}\n{passage.joined}".encode()


@lru_cache(maxsize=2048)
def decode_passage_terms(blob: bytes) -> PassageTerms:
    """Return the inverse of `encode_passage_terms`; the newest 2,048 (about 10 MB for 200-word chunks) stay decoded.

    Raises:
        ValueError: the blob was not written by this version.
    """
    version, kinds, starts, joined = blob.decode().split("\n", 3)
    terms = tuple(joined.split())
    if version != "1" or len(terms) != len(kinds):
        message = "the term list of a chunk is damaged or of another version: index the document again"
        raise ValueError(message)
    return PassageTerms(terms, kinds, tuple(map(int, starts.split())), joined)
