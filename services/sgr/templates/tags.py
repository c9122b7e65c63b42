"""Finds the tags in the paragraphs of one part and gives each a run of its own, in the formatting of its first character.

Word splits what somebody types over runs as it pleases (spelling, revisions), so tags are looked for in the text of a whole paragraph.
After :func:`isolate_tags` no tag shares a run with anything else, and no brace of a tag is left anywhere else.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from lxml import etree

from services.sgr.templates.dialects import SPACE, Dialect
from services.sgr.templates.expressions import Tag, parse_tag
from services.sgr.templates.failures import at, invalid
from services.sgr.templates.limits import TemplateLimits

TAG: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_OPENING: Final = re.compile(r"\{\{|\{%")


@dataclass(frozen=True, slots=True)
class TagRun:
    """A tag, the run that holds nothing else, and its paragraph. ``excerpt`` is the paragraph's text, for messages."""

    tag: Tag
    run: Any
    paragraph: Any
    excerpt: str


def isolate_tags(root: Any, dialect: Dialect, part: str, limits: TemplateLimits) -> list[TagRun]:
    """All tags below ``root``, in order; ``root`` is changed. Raises ``template_invalid`` for what cannot be read or stands where nothing can."""
    found: list[TagRun] = []
    for paragraph in list(root.iter(dialect.paragraph)):
        texts = [text for text in paragraph.iter(dialect.text) if owner(text, dialect) is paragraph]
        whole = "".join(text.text or "" for text in texts)
        if "{" in whole and _OPENING.search(whole):
            _gather(texts, whole, at(part, whole), limits)
            for run in dict.fromkeys(text.getparent() for text in texts if TAG.search(text.text or "")):
                if run.tag != dialect.run:
                    raise invalid("a placeholder stands where none can be", at(part, whole))
                found += [TagRun(parse_tag(source, at(part, whole)), alone, paragraph, at(part, whole)) for source, alone in _split(run, dialect)]
    if len(found) > limits.tags:
        raise invalid(f"it has {len(found):,} placeholders, more than {limits.tags:,}", part)
    runs = {one.run for one in found}
    refuse_strays(root, part, skip=lambda element: element.getparent() in runs)
    return found


def refuse_strays(root: Any, part: str, *, skip: Callable[[Any], bool] | None = None) -> None:
    """Raise ``template_invalid`` for a tag in an attribute, a field or any other text that is never filled."""
    if not _OPENING.search(etree.tostring(root, encoding="unicode")):
        return
    for element in root.iter():
        text = element.text
        strays = [text] if text and "{" in text and not (skip is not None and skip(element)) else []
        for value in [*strays, element.tail or "", *element.attrib.values()]:
            if "{" in value and _OPENING.search(value) and ("}}" in value or "%}" in value):
                raise invalid("a placeholder stands where none can be", at(part, value), hint="placeholders belong into paragraphs and cells")


def owner(element: Any, dialect: Dialect) -> Any:
    """The innermost paragraph around ``element``."""
    return next(element.iterancestors(dialect.paragraph), None)


def _gather(texts: list[Any], whole: str, place: str, limits: TemplateLimits) -> None:
    """Move each tag into the text element in which it begins."""
    ends = list(accumulate(len(text.text or "") for text in texts))
    contents: list[list[str]] = [[] for _ in texts]
    position = 0
    for match in TAG.finditer(whole):
        if len(match.group()) > limits.tag_characters:
            raise invalid(f"a placeholder is longer than {limits.tag_characters} characters", place)
        if _OPENING.search(match.group(), 2) or _OPENING.search(whole, position, match.start()):
            raise invalid("a placeholder is opened and not closed", place)
        _deal(whole, position, match.start(), ends, contents)
        contents[bisect_right(ends, match.start())].append(match.group())
        position = match.end()
    if _OPENING.search(whole, position):
        raise invalid("a placeholder is opened and not closed", place)
    _deal(whole, position, len(whole), ends, contents)
    for text, pieces in zip(texts, contents, strict=True):
        text.text = "".join(pieces)


def _deal(whole: str, start: int, end: int, ends: list[int], contents: list[list[str]]) -> None:
    """Put ``whole[start:end]`` back into the text elements that it came from."""
    while start < end:
        number = bisect_right(ends, start)
        stop = min(end, ends[number])
        contents[number].append(whole[start:stop])
        start = stop


def _split(run: Any, dialect: Dialect) -> Iterator[tuple[str, Any]]:
    """Replace ``run`` by runs of which each holds one tag, or none; yields the tags with theirs."""
    properties = run.find(dialect.run_properties)
    made: list[Any] = []
    tags: list[tuple[str, Any]] = []

    def fresh() -> Any:
        new = run.makeelement(run.tag, run.attrib, run.nsmap)
        if properties is not None:
            new.append(copy.deepcopy(properties))
        made.append(new)
        return new

    rest: Any = None  # the run that takes what is not a tag
    for child in list(run):
        if child is properties:
            continue
        for piece in _pieces(child, dialect):
            if isinstance(piece, str):
                rest, alone = None, fresh()
                alone.append(_text(run, piece, dialect))
                tags.append((piece, alone))
            else:
                rest = fresh() if rest is None else rest
                rest.append(piece)
    parent, place = run.getparent(), run.getparent().index(run)
    parent[place : place + 1] = made
    yield from tags


def _pieces(child: Any, dialect: Dialect) -> Iterator[Any]:
    """Tags as strings, everything else as elements."""
    content = child.text or ""
    if child.tag != dialect.text or not TAG.search(content):
        yield child
        return
    position = 0
    for match in TAG.finditer(content):
        if match.start() > position:
            yield _text(child, content[position : match.start()], dialect)
        yield match.group()
        position = match.end()
    if position < len(content):
        yield _text(child, content[position:], dialect)


def _text(near: Any, content: str, dialect: Dialect) -> Any:
    element = near.makeelement(dialect.text, None, near.nsmap)
    element.text = content
    if dialect.name == "docx":
        element.set(SPACE, "preserve")
    return element
