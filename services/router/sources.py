"""The sources of one answer: which numbers may be cited, and the citation event of each that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.contracts.llm.v1.api import Quote
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.router.v1.api import CitationEvent


class Sources:
    """Turns used numbers into citation events, each once. Passages are numbered from 1; quotes, when a model names them, take their place."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = dict(enumerate(passages, 1))
        self._shown = 0
        self._quotes: dict[int, Quote] | None = None

    @property
    def numbers(self) -> frozenset[int]:
        """What may be cited now."""
        return frozenset(self._passages if self._quotes is None else self._quotes)

    def quote(self, quotes: Sequence[Quote]) -> None:
        """The model has named its own quotes."""
        self._quotes = {quote.number: quote for quote in quotes}

    def keep(self, passages: int) -> None:
        """Only the first ``passages`` were offered."""
        self._passages = {number: passage for number, passage in self._passages.items() if number <= passages}

    def add(self, passages: Mapping[int, Passage]) -> None:
        """Passages that tools have found, by the number under which they may be cited."""
        self._passages |= passages

    def new(self, used: Sequence[int]) -> list[CitationEvent]:
        """Events for the numbers of ``used`` that were not shown yet."""
        fresh, self._shown = used[self._shown :], len(used)
        return [self._event(number) for number in fresh]

    def _event(self, number: int) -> CitationEvent:
        if self._quotes is None:
            passage, start, end = self._passages[number], 0, len(self._passages[number].text)
        else:
            quote = self._quotes[number]
            passage, start, end = self._passages[quote.passage], quote.start, quote.end
        return CitationEvent(
            number=number, document_id=passage.document_id, document_name=passage.document_name, space=passage.space,
            version=passage.version, page=passage.page, heading_path=passage.heading_path,
            start=passage.start + start, end=passage.start + end, quote=passage.text[start:end],
        )  # fmt: skip
