"""Cut a document into chunks that follow its structure; each is an exact slice of the document's text.

Rules, strongest first:
  1. ``text == document.text[start:end]``; chunks are in order, never overlap, and cover all that is not white space.
  2. No chunk is longer than ``most``.
  3. A heading stays with what follows it, a lead-in (``…:``, a table's caption) with its list or table.
  4. A major heading starts a new chunk, any other does once the chunk is half full, a page does unless a
     sentence runs over its edge. Chunks below ``least`` take in their neighbours instead.
  5. Blocks stay whole up to ``most``; longer ones are cut into equal parts between rows, items or sentences.

There is no overlap: a citation must point to one place, BM25 would count repeated words twice, and what overlap
is meant to give (context) comes from ``heading_path`` and, for the later parts of a table, from ``context``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.retrieval.chunk_blocks import Block, Span, goes_on, read_blocks, trimmed, units_of
from services.retrieval.parsing.document import DocumentText

_MAX_CONTEXT: Final = 600
_MAX_HEAD_SHARE: Final = 4  # a heading or lead-in longer than most / 4 is content


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Sizes in characters.

    Attributes:
        least: smaller chunks are merged with neighbours where the rules allow.
        target: a chunk takes in blocks up to this size (256 tokens are about 1,000 Latin letters).
        most: no chunk is longer.
    """

    least: int = 200
    target: int = 1_100
    most: int = 1_400


DEFAULT_SIZES: Final = ChunkSizes()


@dataclass(frozen=True, slots=True)
class ChunkDraft:
    """A chunk before it is stored.

    Attributes:
        ordinal: from 0, in document order.
        page: page on which it starts; None without pages.
        heading_path: headings above its first content, outermost first.
        start, end: offsets in the document's text.
        text: exactly ``document.text[start:end]``.
        context: what must be indexed and shown with it but is not in the slice: the header of a table's later parts.
    """

    ordinal: int
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    text: str
    context: str = ""


def chunk_document(document: DocumentText, sizes: ChunkSizes = DEFAULT_SIZES) -> list[ChunkDraft]:
    """All chunks of ``document``; empty only for a text of white space."""
    blocks = list(read_blocks(document.text))
    if not blocks:
        return []
    packer = _Packer(document, sizes, _major_level(blocks))
    start, end = blocks[0].start, blocks[-1].end
    if end - start <= sizes.target and document.page_at(start) == document.page_at(end - 1):
        return packer.single(blocks)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        packer.add(block, following)
    return packer.finish()


def _major_level(blocks: Sequence[Block]) -> int:
    """The highest heading level that occurs more than once: a lone first heading is the title."""
    counts = Counter(block.level for block in blocks if block.kind == "heading")
    return min((level for level, count in counts.items() if count > 1), default=0)


class _Packer:
    """One pass over the blocks.

    State: an open chunk ``[start, end)`` of content, and after it a head: headings and lead-ins that wait for
    the content they belong to.
    """

    def __init__(self, document: DocumentText, sizes: ChunkSizes, major: int) -> None:
        self._document = document
        self._text = document.text
        self._sizes = sizes
        self._major = major
        self._out: list[ChunkDraft] = []
        self._path: list[tuple[int, str]] = []
        self._chunk_path: tuple[str, ...] = ()
        self._context = ""
        self._start: int | None = None
        self._end = 0
        self._head: int | None = None
        self._head_end = 0
        self._fixed_start = False

    def single(self, blocks: Sequence[Block]) -> list[ChunkDraft]:
        """The whole document as one chunk."""
        for block in blocks:
            if block.kind != "heading":
                break
            self._enter(block)
        self._open(blocks[0].start, blocks[-1].end)
        return self.finish()

    def add(self, block: Block, following: Block | None) -> None:
        """Take in the next block."""
        if block.kind == "heading":
            self._add_heading(block)
        elif self._is_lead_in(block, following):
            self._add_head(block)
        else:
            self._add_content(block)

    def finish(self) -> list[ChunkDraft]:
        """Close what is open; a small last chunk joins the one before it."""
        if self._head is not None:
            self._settle_head()
        if self._start is not None and not self._joins_last():
            self._close()
        return self._out

    def _is_lead_in(self, block: Block, following: Block | None) -> bool:
        if following is None or block.kind != "paragraph" or block.size > self._sizes.most // _MAX_HEAD_SHARE:
            return False
        if following.kind == "list":
            return self._text[block.end - 1] == ":"
        return following.kind == "table"

    def _enter(self, heading: Block) -> None:
        """The heading is now in force, those of its level and below no longer."""
        while self._path and self._path[-1][0] >= heading.level:
            self._path.pop()
        self._path.append((heading.level, heading.title))

    def _add_heading(self, heading: Block) -> None:
        major = heading.level <= self._major
        enough = self._sizes.least // 2 if major else self._sizes.target // 2
        if self._start is not None and self._end - self._start >= enough:
            if self._head is not None:
                self._settle_head()
            self._close()
            self._fixed_start = major
        if heading.size <= self._sizes.most // _MAX_HEAD_SHARE:
            self._add_head(heading)
            self._enter(heading)
        else:
            self._enter(heading)
            self._add_content(heading)

    def _add_head(self, block: Block) -> None:
        """Let a heading or lead-in wait for its content; a head that grows too long is content itself."""
        if self._head is not None and block.end - self._head > self._sizes.most // 2:
            self._settle_head()
        if self._head is None:
            self._head = block.start
        self._head_end = block.end

    def _settle_head(self) -> None:
        """Headings without content (the end of a document, a list of headings) become content."""
        assert self._head is not None
        start, end = self._head, self._head_end
        self._head = None
        self._place(start, end)

    def _add_content(self, block: Block) -> None:
        start = block.start if self._head is None else self._head
        self._head = None
        if self._start is not None and self._page_ends(start):
            self._close()
        if self._fits(start, block.end):
            self._place(start, block.end)
        else:
            self._add_in_parts(start, block)

    def _page_ends(self, start: int) -> bool:
        """Whether a new page begins at ``start`` and the open chunk is large enough to end there."""
        assert self._start is not None
        if self._end - self._start < self._sizes.least:
            return False
        if self._document.page_at(start) == self._document.page_at(self._end - 1):
            return False
        return not goes_on(self._text, self._end, start)

    def _fits(self, start: int, end: int) -> bool:
        """Whether ``[start, end)`` can stay whole, in the open chunk or in a new one."""
        if end - start <= self._sizes.most and (self._start is None or self._end - self._start >= self._sizes.least):
            return True
        return self._start is not None and end - self._start <= self._sizes.most

    def _place(self, start: int, end: int) -> None:
        """Put content that fits into the open chunk, or close that and open a new one."""
        if self._start is not None:
            full = end - self._start > self._sizes.target and self._end - self._start >= self._sizes.least
            runs_over = goes_on(self._text, self._end, start)
            if end - self._start > self._sizes.most or (full and not runs_over):
                self._close()
        self._open(start, end)

    def _add_in_parts(self, start: int, block: Block) -> None:
        """A block that does not fit: cut it into parts of about equal size."""
        begun = self._start if self._start is not None else start
        length = block.end - begun
        goal = length / -(-length // self._sizes.target)
        edge = begun + goal  # where the open part should end
        context = self._table_header(block)
        for left, right in self._units_with_head(start, block):
            nearer_without = right - edge > edge - self._end
            if self._start is not None and (right - self._start > self._sizes.most or nearer_without):
                self._close()
                while edge <= left:
                    edge += goal
            if self._start is None and left > block.start:
                self._context = context
            self._open(left, right)

    def _units_with_head(self, start: int, block: Block) -> list[Span]:
        """Units of ``block``; the head before it goes with the first one, or alone where that grows too long."""
        units = list(units_of(self._text, block, self._sizes.most))
        if start == block.start:
            return units
        if units[0][1] - start <= self._sizes.most:
            return [(start, units[0][1]), *units[1:]]
        return [trimmed(self._text, start, block.start), *units]

    def _table_header(self, block: Block) -> str:
        if block.header_end <= block.start:
            return ""
        return self._text[block.start : min(block.header_end, block.start + _MAX_CONTEXT)]

    def _open(self, start: int, end: int) -> None:
        """Begin a chunk, or extend the open one."""
        if self._start is None:
            self._start = start
            self._chunk_path = tuple(title for _, title in self._path)
        self._end = end

    def _joins_last(self) -> bool:
        """Whether the open chunk is a small rest that was joined to the last one."""
        assert self._start is not None
        if not self._out or self._fixed_start or self._end - self._start >= self._sizes.least:
            return False
        last = self._out[-1]
        if self._end - last.start > self._sizes.most or self._document.page_at(self._start) != last.page:
            return False
        text = self._text[last.start : self._end]
        self._out[-1] = ChunkDraft(last.ordinal, last.page, last.heading_path, last.start, self._end, text, last.context)
        self._start = None
        return True

    def _close(self) -> None:
        """Turn the open chunk into a draft; a small one joins the one before it."""
        assert self._start is not None
        if self._joins_last():
            self._context = ""
            self._fixed_start = False
            return
        start, end = self._start, self._end
        page = self._document.page_at(start)
        draft = ChunkDraft(len(self._out), page, self._chunk_path, start, end, self._text[start:end], self._context)
        self._out.append(draft)
        self._start = None
        self._context = ""
        self._fixed_start = False
