"""How much one template and one document may cost. One value, passed down; nothing else in templates and rendering holds a number like these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Limits for one template and for one document made from it.

    Attributes:
        file_bytes: of the template file.
        entries: parts of the package.
        unpacked_bytes: all parts together.
        ratio: unpacked / packed, for parts above ``ratio_from_bytes``.
        elements: XML elements of all parts that have placeholders.
        depth: nesting of loops and conditions.
        tags: placeholders and control tags of one template.
        tag_characters: of one tag.
        output_characters: of XML that one document may grow to.
        steps: placeholders, loop rounds and conditions of one document.
        slides: of one deck.
        images: in one document; each different one is stored once.
        image_bytes: of one picture.
        image_pixels: width x height of one picture.
        schema_bytes: of a template's schema.
    """

    file_bytes: int = 20 * MIB
    entries: int = 2_000
    unpacked_bytes: int = 100 * MIB
    ratio: int = 200
    ratio_from_bytes: int = 1 * MIB
    elements: int = 200_000
    depth: int = 20
    tags: int = 5_000
    tag_characters: int = 500
    output_characters: int = 50_000_000
    steps: int = 500_000
    slides: int = 1_000
    images: int = 200
    image_bytes: int = 5 * MIB
    image_pixels: int = 40_000_000
    schema_bytes: int = 65_536


DEFAULT_LIMITS: Final = TemplateLimits()
