"""A template part as a program: fixed XML text between a few instructions, so that filling it is joining strings.

The tags of the part are replaced by processing instructions that number them, the part is written once, and cut at them. Because every pair
(``for`` … ``endfor``) has been proved to stand among the children of one element, whatever is repeated or left out keeps the XML well formed.

Where a control tag speaks of more than text:

- alone in a paragraph: of the blocks up to its partner; the paragraph itself goes;
- alone in a table row: of the rows up to its partner; the row itself goes;
- in one cell with its partner in another cell of the row: of that row;
- otherwise of the runs between it and its partner.

Does not own: the meaning of expressions (``filling``), slides as a whole (``presentation``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from services.sgr.templates.dialects import WP, Dialect
from services.sgr.templates.expressions import Control, Filter, Show, Value
from services.sgr.templates.failures import invalid
from services.sgr.templates.instructions import PARAGRAPH, Container, Fixed, Instruction, Node, Picture, Shown, Table, UniqueId, tree
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.package import parse_xml, xml_bytes
from services.sgr.templates.tags import TagRun, isolate_tags

_TARGET: Final = "fill"
_UNIQUE: Final = "appliance-one-of-its-kind"
_CUT: Final = re.compile(rf"<\?{_TARGET} (\d+)\?>|({_UNIQUE})")


class PartProgram:
    """Compiles one part. ``slide_controls`` are the ``{% slide … %}`` tags in it, which are taken out."""

    def __init__(self, content: bytes, part: str, dialect: Dialect, limits: TemplateLimits = DEFAULT_LIMITS) -> None:
        self._dialect = dialect
        self._part = part
        self._limits = limits
        self._instructions: list[tuple[Instruction, str]] = []
        self._tables: dict[Any, None] = {}  # that may lose all their rows
        self.slide_controls: list[tuple[Control, str]] = []
        self._root = parse_xml(content, part, limits)
        self._tags = isolate_tags(self._root, dialect, part, limits)

    @property
    def tags(self) -> list[TagRun]:
        """In the order of the part; those that :meth:`replace` was given are gone."""
        return self._tags

    def replace(self, element: Any, instruction: Node, tag: TagRun) -> None:
        """``element`` with the only tag in it becomes ``instruction``."""
        self._put(element, instruction, tag.excerpt)
        self._tags.remove(tag)

    def compiled(self) -> list[Node]:
        """The program. Raises ``template_invalid`` with the place of the first thing that is wrong."""
        if not self._tags and not self._instructions:
            return [Fixed(xml_bytes(self._root).decode())]
        self._take_slide_controls()
        self._mark_rows()
        self._mark_paragraphs()
        self._mark_runs()
        self._close_containers()
        for parent in {one.getparent() for one in self._root.iter(etree.ProcessingInstruction)}:
            self._check_pairs(parent)
        for drawing in self._root.iter(f"{WP}docPr"):
            drawing.set("id", _UNIQUE)
        text = xml_bytes(self._root).decode()
        pieces = iter(_CUT.split(text))
        return tree(self._flat(pieces), self._limits.depth)

    # marks

    def _take_slide_controls(self) -> None:
        for tag in [one for one in self._tags if isinstance(one.tag, Control) and one.tag.slide]:
            if self._dialect.name != "pptx":
                raise invalid("slide tags belong into presentations", tag.excerpt)
            self.slide_controls.append((tag.tag, tag.excerpt))  # type: ignore[arg-type]  # a Control, see above
            shape = next((one for one in tag.run.iterancestors() if etree.QName(one).localname == "sp"), None)
            if shape is not None and not self._part.startswith("ppt/notesSlides/") and self._says_only_slide(shape):
                if shape.getparent() is not None:
                    shape.getparent().remove(shape)
            else:
                tag.run.getparent().remove(tag.run)
            self._tags.remove(tag)

    def _says_only_slide(self, shape: Any) -> bool:
        inside = [one for one in self._tags if shape in one.run.iterancestors()]
        words = "".join(text.text or "" for text in shape.iter(self._dialect.text)).strip()
        return "".join(one.tag.source for one in inside if isinstance(one.tag, Control) and one.tag.slide).replace(" ", "") == words.replace(" ", "")

    def _mark_rows(self) -> None:
        rows: dict[Any, list[TagRun]] = {}
        for tag in self._tags:
            row = next(tag.run.iterancestors(self._dialect.row), None)
            if row is not None:
                rows.setdefault(row, []).append(tag)
        for row, tags in rows.items():
            frame = next(row.iterancestors(self._dialect.table_frame))
            if self._only_controls(row, tags):
                self._tables[frame] = None
                self._replace_by_controls(row, tags)
                continue
            opened, closed = self._pairs_over_cells(row, tags)
            if opened:
                self._tables[frame] = None
            for tag in opened:
                self._put_before(row, tag.tag, tag.excerpt)
            for tag in reversed(closed):
                self._put_after(row, tag.tag, tag.excerpt)
            for tag in [*opened, *closed]:
                self._drop(tag)

    def _pairs_over_cells(self, row: Any, tags: list[TagRun]) -> tuple[list[TagRun], list[TagRun]]:
        """Opening tags whose partner is in another cell of ``row``, and those partners, in order."""
        waiting: list[TagRun] = []
        opened: list[TagRun] = []
        closed: list[TagRun] = []
        for tag in tags:
            if not isinstance(tag.tag, Control):
                continue
            if tag.tag.verb in {"for", "if"}:
                waiting.append(tag)
            elif not waiting:
                raise invalid(f"{tag.tag.source} closes nothing in its row", tag.excerpt)
            elif tag.tag.verb in {"endfor", "endif"}:
                first = waiting.pop()
                if self._cell(first, row) is not self._cell(tag, row):
                    opened.insert(0, first)
                    closed.append(tag)
            elif self._cell(waiting[-1], row) is not self._cell(tag, row):
                raise invalid(f"{tag.tag.source} cannot stand in another cell than its if", tag.excerpt)
        if waiting:
            raise invalid(f"{waiting[0].tag.source} is not closed in its row", waiting[0].excerpt)
        return opened, closed[::-1]

    def _cell(self, tag: TagRun, row: Any) -> Any:
        return next(one for one in tag.run.iterancestors() if one.getparent() is row)

    def _mark_paragraphs(self) -> None:
        paragraphs: dict[Any, list[TagRun]] = {}
        for tag in self._tags:
            paragraphs.setdefault(tag.paragraph, []).append(tag)
        for paragraph, tags in paragraphs.items():
            if self._only_controls(paragraph, tags):
                if any(etree.QName(one).localname == "sectPr" for one in paragraph.iter()):
                    raise invalid("a control tag stands in the last paragraph of a section", tags[0].excerpt, hint="put the section break behind it")
                self._replace_by_controls(paragraph, tags)
            elif (shown := _as_paragraphs(tags)) is not None:
                if not self._says_only(paragraph, tags):
                    raise invalid("the filter paragraphs needs a paragraph of its own", tags[0].excerpt)
                inner, loop = shown
                self._put_before(paragraph, loop, tags[0].excerpt)
                self._put_after(paragraph, Control("endfor", "{% endfor %}"), tags[0].excerpt)
                self._tags[self._tags.index(tags[0])] = TagRun(inner, tags[0].run, paragraph, tags[0].excerpt)

    def _mark_runs(self) -> None:
        for tag in self._tags:
            if isinstance(tag.tag, Control):
                self._put(tag.run, tag.tag, tag.excerpt)
            elif tag.tag.value.image_width_cm is not None:
                if self._dialect.name != "docx":
                    raise invalid("a picture needs a text box of its own", tag.excerpt, hint="put image(…) alone into a box with a size")
                self._put(tag.run.find(self._dialect.text), Picture(tag.tag.value, tag.excerpt), tag.excerpt)
            else:
                text = tag.run.find(self._dialect.text)
                text.text = None
                shown = Shown(tag.tag.value, tag.excerpt, *self._breaks(tag.run))
                text.append(self._mark(shown, tag.excerpt))

    def _breaks(self, run: Any) -> tuple[str, str]:
        if self._dialect.name == "docx":
            return '</w:t><w:br/><w:t xml:space="preserve">', '</w:t><w:tab/><w:t xml:space="preserve">'
        properties = run.find(self._dialect.run_properties)
        look = "" if properties is None else etree.tostring(properties, encoding="unicode", with_tail=False)
        return f"</a:t></a:r><a:br>{look}</a:br><a:r>{look}<a:t>", "\t"

    def _close_containers(self) -> None:
        marks = list(self._root.iter(etree.ProcessingInstruction))
        for container in dict.fromkeys(one.getparent() for one in marks):
            if container.tag in self._dialect.containers:
                prefix = "a" if self._dialect.name == "pptx" else "w"
                body = [child for child in container if child.tag not in self._dialect.heads]
                body[0].addprevious(self._mark(Container(f"<{prefix}:p/>", f"</{prefix}:p>"), ""))
                container.append(self._mark(None, ""))
        for table in self._tables:
            self._put_before(table, Table(self._dialect.row_needle), "")
            self._put_after(table, None, "")

    def _check_pairs(self, parent: Any) -> None:
        """Pairs among the children of ``parent``; what is repeated is freed of what may be there only once."""
        waiting: list[tuple[Control, str, Any]] = []
        for child in list(parent):
            if not isinstance(child, etree._ProcessingInstruction):  # noqa: SLF001 - lxml has no public name for the type
                continue
            control, place = self._instructions[int(child.text)]
            if not isinstance(control, Control):
                continue
            if control.verb in {"for", "if"}:
                waiting.append((control, place, child))
                continue
            wanted = "for" if control.verb == "endfor" else "if"
            if not waiting or waiting[-1][0].verb != wanted:
                raise invalid(f"{control.source} has no {wanted} beside it", place, hint="both ends of a pair belong into one paragraph, cell or list of blocks")
            if control.verb in {"endfor", "endif"}:
                first = waiting.pop()[2]
                if control.verb == "endfor":
                    self._make_repeatable(first, child)
        if waiting:
            control, place, _ = waiting[0]
            raise invalid(f"{control.source} is not closed", place, hint="both ends of a pair belong into one paragraph, cell or list of blocks")

    def _make_repeatable(self, first: Any, last: Any) -> None:
        sibling = first.getnext()
        while sibling is not last:
            following = sibling.getnext()
            for element in [*sibling.iter(*self._dialect.once)] if self._dialect.once else ():
                element.getparent().remove(element)
            for element in sibling.iter():
                for name in self._dialect.once_attributes & set(element.attrib):
                    del element.attrib[name]
            for row in sibling.iter(self._dialect.row) if self._dialect.name == "pptx" else ():
                for extension in [one for one in row if etree.QName(one).localname == "extLst"]:
                    row.remove(extension)  # the row's id
            sibling = following

    # small moves

    def _only_controls(self, element: Any, tags: list[TagRun]) -> bool:
        return all(isinstance(tag.tag, Control) for tag in tags) and self._says_only(element, tags)

    def _says_only(self, element: Any, tags: list[TagRun]) -> bool:
        runs = {tag.run for tag in tags}
        if any(element.iter(*self._dialect.pictures)):
            return False
        return not any((text.text or "").strip() for text in element.iter(self._dialect.text) if text.getparent() not in runs)

    def _replace_by_controls(self, element: Any, tags: list[TagRun]) -> None:
        for tag in tags:
            self._put_before(element, tag.tag, tag.excerpt)
            self._tags.remove(tag)
        element.getparent().remove(element)

    def _drop(self, tag: TagRun) -> None:
        """Take a tag away, and its paragraph when nothing is left in it and the cell has another one."""
        self._tags.remove(tag)
        tag.run.getparent().remove(tag.run)
        if self._says_only(tag.paragraph, []) and not any(tag.paragraph.iter(self._dialect.run)):
            beside = tag.paragraph.getnext() if tag.paragraph.getnext() is not None else tag.paragraph.getprevious()
            if beside is not None and beside.tag == self._dialect.paragraph:
                tag.paragraph.getparent().remove(tag.paragraph)

    def _mark(self, instruction: Instruction | Show, place: str) -> Any:
        assert not isinstance(instruction, Show)
        self._instructions.append((instruction, place))
        return etree.ProcessingInstruction(_TARGET, str(len(self._instructions) - 1))

    def _put(self, element: Any, instruction: Instruction | Show, place: str) -> None:
        element.getparent().replace(element, self._mark(instruction, place))

    def _put_before(self, element: Any, instruction: Instruction | Show, place: str) -> None:
        element.addprevious(self._mark(instruction, place))

    def _put_after(self, element: Any, instruction: Instruction | Show, place: str) -> None:
        element.addnext(self._mark(instruction, place))

    def _flat(self, pieces: Iterator[str]) -> Iterator[tuple[Instruction, str]]:
        for text in pieces:
            if text:
                yield Fixed(text), ""
            number, unique = next(pieces, None), next(pieces, None)
            if unique:
                yield UniqueId(), ""
            elif number:
                yield self._instructions[int(number)]


def _as_paragraphs(tags: list[TagRun]) -> tuple[Show, Control] | None:
    """For ``{{ text | paragraphs }}`` alone: what is shown in each paragraph, and the loop around it."""
    shown = [tag for tag in tags if isinstance(tag.tag, Show) and any(one.name == "paragraphs" for one in tag.tag.value.filters)]
    if not shown:
        return None
    tag = shown[0].tag
    if len(tags) != 1 or not isinstance(tag, Show) or tag.value.filters != (Filter("paragraphs"),):
        raise invalid("the filter paragraphs needs a paragraph of its own", tags[0].excerpt)
    return Show(Value(PARAGRAPH), tag.source), Control("for", tag.source, PARAGRAPH.names[0], tag.value.path, paragraphs=True)
