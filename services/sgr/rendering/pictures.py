"""Pictures out of data: base64 to checked bytes, and where they lie in the package. PNG and JPEG, judged by their own first bytes.

Nothing is decoded here: the size is read from the header, so a picture cannot cost more than its bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from lxml import etree

from services.sgr.templates.failures import invalid
from services.sgr.templates.instructions import Picture
from services.sgr.templates.limits import TemplateLimits
from services.sgr.templates.package import RELATION, RELS_NS, TYPES, TYPES_NS, Package, parse_xml, rels_name, xml_bytes

EMU_PER_CM: Final = 360_000
_EMU_PER_PIXEL: Final = 9_525  # 96 a inch
_WIDEST_CM: Final = 16.0  # text of an A4 page
_HIGHEST_CM: Final = 22.0
_MEDIA_TYPES: Final = {"png": "image/png", "jpeg": "image/jpeg"}
_FRAMES_WITH_SIZE: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF markers, ITU T.81 table B.1
_HINT: Final = "send PNG or JPEG as base64, at most 5 MiB"


@dataclass(frozen=True, slots=True)
class Image:
    """Checked bytes; ``kind`` is png or jpeg, sizes in pixels."""

    content: bytes
    kind: str
    width: int
    height: int

    def fitted(self, width: float, height: float) -> tuple[int, int]:
        """The largest size in EMU within the box that keeps the proportions; never larger than the box, never nothing."""
        scale = min(width / self.width, height / self.height)
        return max(1, int(self.width * scale)), max(1, int(self.height * scale))


def read_image(value: object, place: str, limits: TemplateLimits) -> Image:
    """The picture in ``value``: bytes, base64, or a ``data:`` URI. Raises ``template_invalid`` naming the place."""
    if isinstance(value, str):
        text = value.partition("base64,")[2] if value.startswith("data:") else value
        if len(text) > limits.image_bytes * 4 // 3 + 1024:
            raise invalid("a picture is too large", place, hint=_HINT)
        try:
            content = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise invalid("a picture is not base64", place, hint=_HINT) from exc
    elif isinstance(value, bytes):
        content = value
    else:
        raise invalid("a picture is neither base64 nor bytes", place, hint=_HINT)
    size = _png_size(content) or _jpeg_size(content)
    if size is None:
        raise invalid("a picture is neither PNG nor JPEG", place, hint=_HINT)
    kind, width, height = size
    if len(content) > limits.image_bytes or not 0 < width * height <= limits.image_pixels:
        raise invalid("a picture is too large, or empty", place, hint=_HINT)
    return Image(content, kind, width, height)


@dataclass(slots=True)
class Media:
    """Pictures of one document on their way into its package; equal ones are stored once."""

    package: Package
    folder: str  # ``word/media``
    limits: TemplateLimits
    _names: dict[str, str] = field(default_factory=dict)
    _links: dict[str, dict[str, str]] = field(default_factory=dict)

    def link(self, part: str, image: Image) -> str:
        """Id of a relationship from ``part`` to the picture."""
        digest = hashlib.sha256(image.content).hexdigest()
        name = self._names.get(digest)
        if name is None:
            if len(self._names) >= self.limits.images:
                raise invalid(f"there are more than {self.limits.images} pictures", part)
            name = self._names[digest] = f"{self.folder}/filled-{digest[:16]}.{image.kind}"
            self.package.parts[name] = image.content
            _declare(self.package, image.kind)
        links = self._links.setdefault(part, {})
        return links.setdefault(name, f"rIdFilled{len(links) + 1}")

    def write_links(self, part: str) -> None:
        """Put the relationships of ``part`` into the package."""
        links = self._links.pop(part, {})
        if links:
            add_relationships(self.package, part, [(key, f"{RELATION}/image", f"/{name}") for name, key in links.items()])


def inline_xml(image: Image, link: str, picture: Picture, number: int) -> str:
    """A picture in a run of WordprocessingML."""
    width_cm = picture.value.image_width_cm or min(_WIDEST_CM, image.width * _EMU_PER_PIXEL / EMU_PER_CM)
    width, height = image.fitted(width_cm * EMU_PER_CM, _HIGHEST_CM * EMU_PER_CM)
    return (
        '<w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" distT="0" distB="0" distL="0" distR="0">'
        f'<wp:extent cx="{width}" cy="{height}"/><wp:docPr id="{number}" name="Picture {number}"/>'
        '<wp:cNvGraphicFramePr><a:graphicFrameLocks xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" noChangeAspect="1"/></wp:cNvGraphicFramePr>'
        '<a:graphic xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><a:graphicData uri="http://schemas.openxmlformats.org/drawingml/2006/picture">'
        '<pic:pic xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture">'
        f'<pic:nvPicPr><pic:cNvPr id="{number}" name="Picture {number}"/><pic:cNvPicPr/></pic:nvPicPr>'
        f'<pic:blipFill><a:blip r:embed={quoteattr(link)} xmlns:r="{RELATION}"/><a:stretch><a:fillRect/></a:stretch></pic:blipFill>'
        f'<pic:spPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="{width}" cy="{height}"/></a:xfrm><a:prstGeom prst="rect"><a:avLst/></a:prstGeom></pic:spPr>'
        "</pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing>"
    )


def framed_xml(image: Image, link: str, frame: tuple[int, int, int, int], number: int) -> str:
    """A picture on a slide, in the middle of the frame that it replaces."""
    left, top, wide, high = frame
    width, height = image.fitted(wide, high)
    return (
        f'<p:pic><p:nvPicPr><p:cNvPr id="{number}" name="Picture {number}"/><p:cNvPicPr><a:picLocks noChangeAspect="1"/></p:cNvPicPr><p:nvPr/></p:nvPicPr>'
        f'<p:blipFill><a:blip r:embed={quoteattr(link)} xmlns:r="{RELATION}"/><a:stretch><a:fillRect/></a:stretch></p:blipFill>'
        f'<p:spPr><a:xfrm><a:off x="{left + (wide - width) // 2}" y="{top + (high - height) // 2}"/><a:ext cx="{width}" cy="{height}"/></a:xfrm>'
        '<a:prstGeom prst="rect"><a:avLst/></a:prstGeom></p:spPr></p:pic>'
    )


def add_relationships(package: Package, part: str, rows: list[tuple[str, str, str]]) -> None:
    """Append (id, type, target) to the relationships of ``part``."""
    name = rels_name(part)
    root: Any = parse_xml(package.parts[name], name) if name in package.parts else etree.Element(f"{RELS_NS}Relationships", nsmap={None: RELS_NS.strip("{}")})
    for key, kind, target in rows:
        etree.SubElement(root, f"{RELS_NS}Relationship", {"Id": key, "Type": kind, "Target": target})
    package.parts[name] = xml_bytes(root)


def _declare(package: Package, kind: str) -> None:
    root = parse_xml(package.parts[TYPES], TYPES)
    if not any(str(row.get("Extension", "")).lower() == kind for row in root.iter(f"{TYPES_NS}Default")):
        root.insert(0, root.makeelement(f"{TYPES_NS}Default", {"Extension": kind, "ContentType": _MEDIA_TYPES[kind]}))
        package.parts[TYPES] = xml_bytes(root)


def _png_size(content: bytes) -> tuple[str, int, int] | None:
    """PNG specification, 11.2.2."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR") or len(content) < 45 or b"IEND" not in content[-64:]:
        return None
    return ("png", *struct.unpack_from(">II", content, 16))


def _jpeg_size(content: bytes) -> tuple[str, int, int] | None:
    """ITU T.81 annex B: walk the segments up to the frame header."""
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    place = 2
    while place + 9 < len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _FRAMES_WITH_SIZE:
            height, width = struct.unpack_from(">HH", content, place + 5)
            return "jpeg", width, height
        place += 2 + struct.unpack_from(">H", content, place + 2)[0]
    return None
