"""Text → token ids of the model, for any string that Python can hold.

Invariants:
1. A text is cut to :data:`CHARACTERS_PER_TOKEN` × max_context characters before it is tokenised: 10 MB cost as much as 16 kB.
2. Every result has 2 to max_context ids and begins and ends with the special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN: Final = 64  # English has about 4; only blanks and unknown words of 100 characters reach this
EXACT_COUNT_CHARACTERS: Final = 65_536


class WordPieces:
    """A tokenizer with the cutting done here, so that one object serves counting and encoding. Thread-safe; releases the GIL."""

    def __init__(self, tokenizer_json: bytes, max_context: int) -> None:
        self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        self.tokenizer_json = tokenizer_json
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._first, self._last = self._special("[CLS]", "<s>"), self._special("[SEP]", "</s>")
        self._max_context = max_context

    def cut(self, text: str) -> str:
        """See :func:`cut_text`."""
        return cut_text(text, self._max_context)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, cut at max_context."""
        keep = self._max_context - 2
        encodings = self._tokenizer.encode_batch_fast([self.cut(text) for text in texts], add_special_tokens=False)
        return [[self._first, *encoding.ids[:keep], self._last] for encoding in encodings]

    def count(self, text: str) -> int:
        """Tokens without the special ones; exact up to 65,536 characters, in proportion beyond (so that 10 MB cannot hold up the caller)."""
        sample = text[:EXACT_COUNT_CHARACTERS]
        counted = len(self._tokenizer.encode(encodable(sample), add_special_tokens=False).ids)
        return counted if len(sample) == len(text) else round(counted * len(text) / len(sample))

    def _special(self, *tokens: str) -> int:
        """The id of the first of ``tokens`` that there is: as BERT names it, as RoBERTa does."""
        for token in tokens:
            if (number := self._tokenizer.token_to_id(token)) is not None:
                return number
        raise ValueError(f"the tokenizer has no {' or '.join(tokens)}")


def cut_text(text: str, max_context: int) -> str:
    """The part of ``text`` that can matter to a model that reads ``max_context`` tokens, without lone surrogates."""
    return encodable(text[: max_context * CHARACTERS_PER_TOKEN])


def encodable(text: str) -> str:
    """``text`` as UTF-8 can hold it: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
