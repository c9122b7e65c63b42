"""A Word template: body, headers, footers and notes as programs; everything else of the package stays byte for byte."""

from __future__ import annotations

from typing import Final

from services.sgr.rendering.pictures import Media, inline_xml, read_image
from services.sgr.templates.dialects import WORD
from services.sgr.templates.failures import invalid
from services.sgr.templates.fields import Reading, readings
from services.sgr.templates.filling import Filler, Scope
from services.sgr.templates.instructions import Fixed, Node, Picture
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.package import Package, parse_xml, resolve
from services.sgr.templates.program import PartProgram
from services.sgr.templates.tags import refuse_strays

_STORIES: Final = ("header", "footer", "footnotes", "endnotes")


class WordTemplate:
    """Compiled; may be filled many times. Raises ``template_invalid`` when made from what cannot be compiled."""

    output: Final = "docx"

    def __init__(self, package: Package, main: str, limits: TemplateLimits = DEFAULT_LIMITS) -> None:
        self._package = package
        self._limits = limits
        stories = [resolve(main, row.target) for row in package.relationships(main) if row.type.rpartition("/")[2] in _STORIES]
        self._programs: dict[str, list[Node]] = {}
        for name in dict.fromkeys([main, *stories]):
            nodes = PartProgram(package.parts[name], name, WORD, limits).compiled()
            if not all(isinstance(node, Fixed) for node in nodes):
                self._programs[name] = nodes
        for name, content in package.parts.items():
            if name.endswith(".xml") and name not in {main, *stories}:
                refuse_strays(parse_xml(content, name), name)

    def readings(self) -> list[Reading]:
        """What the template reads from the data, headers and footers included."""
        found = [one for nodes in self._programs.values() for one in readings(nodes)]
        if not found:
            raise invalid("it has no placeholder", hint="write {{ title }} where the title shall stand; see docs/reports.md")
        return found

    def fill(self, scope: Scope, language: str) -> Package:
        """The package of the document."""
        package = Package(dict(self._package.parts))
        media = Media(package, "word/media", self._limits)
        part = ""

        def draw(value: object, picture: Picture) -> str:
            image = read_image(value, picture.place, self._limits)
            filler.ids += 1
            return inline_xml(image, media.link(part, image), picture, filler.ids)

        filler = Filler(language, draw, self._limits)
        for part, nodes in self._programs.items():
            package.parts[part] = filler.fill(nodes, scope).encode()
        for name in self._programs:
            media.write_links(name)
        return package
