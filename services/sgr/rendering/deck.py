"""A PowerPoint template: each slide with its notes is a program; ``{% slide for … %}`` on a slide makes it come once for each item.

Layouts, masters and the rest of the package stay byte for byte. Slides of the result are numbered anew; what pointed to a slide of the template
points to the first slide that was made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree

from appliance.kit.errors import ApplianceError
from services.sgr.rendering.pictures import Media, framed_xml, read_image
from services.sgr.templates.dialects import SLIDE, A, P, R
from services.sgr.templates.expressions import Control, Show
from services.sgr.templates.failures import invalid
from services.sgr.templates.fields import Reading, readings
from services.sgr.templates.filling import Filler, Scope
from services.sgr.templates.instructions import Node, Picture
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.package import RELATION, RELS_NS, TYPES, TYPES_NS, Package, parse_xml, rels_name, resolve, xml_bytes
from services.sgr.templates.program import PartProgram
from services.sgr.templates.tags import refuse_strays

_SLIDE_TYPE: Final = "application/vnd.openxmlformats-officedocument.presentationml.slide+xml"
_NOTES_TYPE: Final = "application/vnd.openxmlformats-officedocument.presentationml.notesSlide+xml"
_LEFT_OUT: Final = frozenset({"comments", "comment", "slideUpdateInfo"})
_FIRST_SLIDE_ID: Final = 256  # ECMA-376 part 1, 19.7.13
_FIRST_PICTURE_ID: Final = 100_000  # above the ids of the template's shapes


@dataclass(frozen=True, slots=True)
class _Slide:
    """A slide of the template."""

    part: str
    nodes: list[Node]
    notes: str
    notes_nodes: list[Node]
    controls: list[tuple[Control, str]]


class DeckTemplate:
    """Compiled; may be filled many times. Raises ``template_invalid`` when made from what cannot be compiled."""

    output: Final = "pptx"

    def __init__(self, package: Package, main: str, limits: TemplateLimits = DEFAULT_LIMITS) -> None:
        self._package = package
        self._main = main
        self._limits = limits
        targets = {row.id: resolve(main, row.target) for row in package.relationships(main)}
        root = parse_xml(package.parts[main], main)
        order = [targets.get(str(one.get(f"{R}id")), "") for one in root.iter(f"{P}sldId")]
        if not all(name in package.parts for name in order) or len(set(order)) != len(order):
            raise invalid("its list of slides does not fit its parts", main)
        self._slides = [self._compiled(name) for name in order]
        filled = {name for slide in self._slides for name in (slide.part, slide.notes)}
        for name, content in package.parts.items():
            if name.endswith(".xml") and name not in filled:
                refuse_strays(parse_xml(content, name), name)

    def readings(self) -> list[Reading]:
        """What the template reads from the data, notes included."""
        found = [one for slide in self._slides for one in readings([*slide.nodes, *slide.notes_nodes], slide.controls)]
        if not found:
            raise invalid("it has no placeholder", hint="write {{ title }} where the title shall stand; see docs/reports.md")
        return found

    def fill(self, scope: Scope, language: str) -> Package:
        """The package of the deck."""
        package = Package({name: content for name, content in self._package.parts.items() if not self._is_replaced(name)})
        filling = _Filling(package, self._package, language, self._limits)
        for slide in self._slides:
            for inner in self._scopes(slide.controls, scope, filling.filler):
                filling.add(slide, inner)
        filling.finish(self._main)
        return package

    def _compiled(self, part: str) -> _Slide:
        program = PartProgram(self._package.parts[part], part, SLIDE, self._limits)
        for tag in list(program.tags):
            if isinstance(tag.tag, Show) and tag.tag.value.image_width_cm is not None:
                shape = next((one for one in tag.run.iterancestors(f"{P}sp")), None)
                program.replace(shape, Picture(tag.tag.value, tag.excerpt, _frame(shape, tag.tag, tag.excerpt)), tag)
        nodes = program.compiled()
        notes = next((resolve(part, row.target) for row in self._package.relationships(part) if row.type.endswith("/notesSlide")), "")
        spoken = PartProgram(self._package.parts[notes], notes, SLIDE, self._limits) if notes else None
        notes_nodes = spoken.compiled() if spoken is not None else []
        return _Slide(part, nodes, notes, notes_nodes, [*program.slide_controls, *(spoken.slide_controls if spoken is not None else ())])

    def _is_replaced(self, name: str) -> bool:
        return any(name in {one, rels_name(one)} for slide in self._slides for one in (slide.part, slide.notes) if one)

    def _scopes(self, controls: list[tuple[Control, str]], scope: Scope, filler: Filler) -> Iterator[Scope]:
        """Where the slide comes: controls nest in the order in which they stand."""
        if not controls:
            yield scope
            return
        (control, place), rest = controls[0], controls[1:]
        if control.condition is not None:
            if filler.holds(control.condition, scope, place):
                yield from self._scopes(rest, scope, filler)
            return
        assert control.path is not None
        for inner in filler.rounds(control.variable, control.path, place, scope):
            yield from self._scopes(rest, inner, filler)


class _Filling:
    """One deck in the making."""

    def __init__(self, package: Package, template: Package, language: str, limits: TemplateLimits) -> None:
        self._package = package
        self._template = template
        self._limits = limits
        self._media = Media(package, "ppt/media", limits)
        self._part = ""
        self._made: list[tuple[_Slide, str, str]] = []
        self.filler = Filler(language, self._draw, limits, ids=_FIRST_PICTURE_ID)

    def add(self, slide: _Slide, scope: Scope) -> None:
        number = len(self._made) + 1
        if number > self._limits.slides:
            raise ApplianceError("too_large", f"the deck has more than {self._limits.slides} slides", hint="fewer items, or several decks")
        self._part = f"ppt/slides/slide{number}.xml"
        self._package.parts[self._part] = self.filler.fill(slide.nodes, scope).encode()
        notes = f"ppt/notesSlides/notesSlide{number}.xml" if slide.notes else ""
        if notes:
            self._package.parts[notes] = self.filler.fill(slide.notes_nodes, scope).encode()
        self._made.append((slide, f"ppt/slides/slide{number}.xml", notes))

    def finish(self, main: str) -> None:
        """Relationships, content types and the list of slides."""
        first: dict[str, str] = {}
        for slide, part, _ in self._made:
            first.setdefault(slide.part, part)
        for slide, part, notes in self._made:
            self._relate(slide.part, part, {**first, slide.part: part, slide.notes: notes})
            self._media.write_links(part)
            if notes:
                self._relate(slide.notes, notes, {slide.part: part})
        self._list_slides(main)
        self._declare()

    def _draw(self, value: object, picture: Picture) -> str:
        assert picture.frame is not None
        image = read_image(value, picture.place, self._limits)
        self.filler.ids += 1
        return framed_xml(image, self._media.link(self._part, image), picture.frame, self.filler.ids)

    def _relate(self, old: str, new: str, moved: dict[str, str]) -> None:
        rows = [row for row in self._template.relationships(old) if row.type.rpartition("/")[2] not in _LEFT_OUT]
        root = etree.Element(f"{RELS_NS}Relationships", nsmap={None: RELS_NS.strip("{}")})
        for row in rows:
            target = resolve(old, row.target)
            if row.type.endswith("/slide"):
                target = moved.get(target, new)
            etree.SubElement(root, f"{RELS_NS}Relationship", {"Id": row.id, "Type": row.type, "Target": f"/{moved.get(target) or target}"})
        self._package.parts[rels_name(new)] = xml_bytes(root)

    def _list_slides(self, main: str) -> None:
        root = parse_xml(self._package.parts[main], main)
        for section in [one for one in root.iter() if etree.QName(one).localname in {"sectionLst", "custShowLst"}]:
            holder = section.getparent()  # names slides that are gone
            holder.remove(section)
            if etree.QName(holder).localname == "ext" and not len(holder):
                holder.getparent().remove(holder)
        listed = root.find(f"{P}sldIdLst")  # it named the slides that were compiled
        links = parse_xml(self._package.parts[rels_name(main)], rels_name(main))
        for row in list(links):
            if str(row.get("Type")).endswith("/slide"):
                links.remove(row)
        for entry in list(listed):
            listed.remove(entry)
        for number, (_, part, _) in enumerate(self._made):
            key = f"rIdSlide{number + 1}"
            etree.SubElement(links, f"{RELS_NS}Relationship", {"Id": key, "Type": f"{RELATION}/slide", "Target": f"/{part}"})
            entry = etree.SubElement(listed, f"{P}sldId", {"id": str(_FIRST_SLIDE_ID + number)})
            entry.set(f"{R}id", key)
        self._package.parts[main] = xml_bytes(root)
        self._package.parts[rels_name(main)] = xml_bytes(links)

    def _declare(self) -> None:
        root = parse_xml(self._package.parts[TYPES], TYPES)
        for row in list(root.iter(f"{TYPES_NS}Override")):
            if str(row.get("PartName")).lstrip("/") not in self._package.parts or row.get("ContentType") in {_SLIDE_TYPE, _NOTES_TYPE}:
                root.remove(row)
        for _, part, notes in self._made:
            for name, kind in ((part, _SLIDE_TYPE), (notes, _NOTES_TYPE)):
                if name:
                    etree.SubElement(root, f"{TYPES_NS}Override", {"PartName": f"/{name}", "ContentType": kind})
        self._package.parts[TYPES] = xml_bytes(root)


def _frame(shape: Any, show: Show, place: str) -> tuple[int, int, int, int]:
    """Left, top, width and height (EMU) of a text box in which there is only a picture."""
    words = "".join(text.text or "" for text in shape.iter(f"{A}t")).strip() if shape is not None else ""
    place_of = shape.find(f"{P}spPr/{A}xfrm") if shape is not None else None
    if words != show.source or place_of is None:
        raise invalid("a picture needs a text box of its own, with a size", place, hint="put image(…) alone into a text box that was drawn on the slide")
    found = [place_of.find(f"{A}{name}") for name in ("off", "ext")]
    left, top, width, height = (int(one.get(key)) for one, keys in zip(found, (("x", "y"), ("cx", "cy")), strict=True) for key in keys)
    return left, top, width, height
