"""Query and document → token ids of one input, as the model's own tokenizer joins them. For any strings that Python can hold.

Invariants:
1. Both texts are cut to :data:`CHARACTERS_PER_TOKEN` × max_context characters before they are tokenised.
2. A pair has at most max_context ids; what is too long loses tokens from the end of whichever text is the longer one (``longest_first``, as the
   published cross-encoders were trained).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

CHARACTERS_PER_TOKEN: Final = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """One input: ids and, for each, which text it belongs to (0 query, 1 document)."""

    ids: Sequence[int]
    types: Sequence[int]


class PairPieces:
    """Thread-safe: nothing of the tokenizer changes after the start. Raises ``ValueError`` for one that cannot join two texts."""

    def __init__(self, tokenizer_json: bytes, max_context: int) -> None:
        self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_context, strategy="longest_first")
        self._most_characters = max_context * CHARACTERS_PER_TOKEN
        self.padding_id = next((found for token in ("[PAD]", "<pad>") if (found := self._tokenizer.token_to_id(token)) is not None), 0)
        if self._tokenizer.post_processor is None:
            self._tokenizer.post_processor = self._as_bert()

    def join(self, query: str, documents: Sequence[str]) -> list[Pair]:
        """One pair per document."""
        question = self._cut(query)
        encodings = self._tokenizer.encode_batch([(question, self._cut(document)) for document in documents])
        return [Pair(encoding.ids, encoding.type_ids) for encoding in encodings]

    def _cut(self, text: str) -> str:
        return text[: self._most_characters].encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _as_bert(self) -> TemplateProcessing:
        first, last = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        if first is None or last is None:
            raise ValueError("the tokenizer does not say how two texts are joined, and has no [CLS] and [SEP]")
        return TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", first), ("[SEP]", last)])
