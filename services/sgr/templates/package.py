"""An OOXML package in memory (ECMA-376 part 2): parts, content types, relationships; read within limits, written whole.

Invariants of what :meth:`Package.read` returns:

1. The file is a ZIP whose directory promises no more entries, bytes or ratio than the limits allow, and no entry inflates past its promise.
2. No entry is encrypted; names are plain, unique without regard to case, and stay inside the package.
3. XML parts are parsed without document type, entities and network, and are no deeper than the limit.

Does not own: what a template may hold (``screening``), what its tags mean.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from posixpath import dirname, normpath
from typing import Any, Final, Self

from lxml import etree

from appliance.kit.errors import ApplianceError
from services.sgr.templates.failures import invalid
from services.sgr.templates.limits import DEFAULT_LIMITS, MIB, TemplateLimits

TYPES: Final = "[Content_Types].xml"
TYPES_NS: Final = "{http://schemas.openxmlformats.org/package/2006/content-types}"
RELS_NS: Final = "{http://schemas.openxmlformats.org/package/2006/relationships}"
RELATION: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN_TYPES: Final = {
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_\-.\[\]()%+&@~{} ]+(/[A-Za-z0-9_\-.\[\]()%+&@~{} ]+)*")
_ENCRYPTED: Final = 0x1
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # documents from equal data are equal
_STORED: Final = (".png", ".jpeg", ".jpg")
_MOST_DIRECTORY_BYTES: Final = 2 * MIB
_END_RECORD: Final = b"PK\x05\x06"
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, struct.error, OSError, LookupError)


@dataclass(frozen=True, slots=True)
class Relationship:
    """One row of a ``.rels`` part; ``target`` as written."""

    id: str
    type: str
    target: str
    external: bool


@dataclass(slots=True)
class Package:
    """Parts by name without leading slash, in the order of the file."""

    parts: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, content: bytes, limits: TemplateLimits = DEFAULT_LIMITS) -> Self:
        """Unpack, within limits. Raises ``template_invalid``, ``too_large``."""
        if len(content) > limits.file_bytes:
            raise ApplianceError("too_large", f"the template has {len(content):,} bytes", hint=f"at most {limits.file_bytes:,}")
        _check_end_record(content)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [one for one in archive.infolist() if not one.is_dir()]
                _check_directory(members, limits)
                parts = {member.filename: _inflated(archive, member) for member in members}
        except ApplianceError:
            raise
        except _BROKEN as exc:
            raise invalid("it is not an Office file: its ZIP container cannot be unpacked") from exc
        if TYPES not in parts:
            raise invalid("it is not an Office file: it has no [Content_Types].xml", hint="save it in Word or PowerPoint as .docx or .pptx")
        return cls(parts)

    def write(self) -> bytes:
        """The package as a file."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, content in sorted(self.parts.items(), key=lambda row: row[0] != TYPES):  # stable: content types first, the rest as it was
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return out.getvalue()

    def main(self) -> tuple[str, str]:
        """Output format and name of the main part. Raises ``template_invalid`` for everything but plain .docx and .pptx."""
        found = [row for row in self.relationships("") if row.type.endswith("/officeDocument")]
        if len(found) != 1:
            raise invalid("it has no main document part")
        name = resolve("", found[0].target)
        kind = self.content_types().get(name, "")
        for output, media_type in MAIN_TYPES.items():
            if kind == media_type and name in self.parts:
                return output, name
        raise invalid(f"its main part is {kind[:100] or 'of no type'}", hint="save it as .docx or .pptx, not as .docm, .dotx, .pptm, .potx or anything else")

    def content_types(self) -> dict[str, str]:
        """Part name → content type, defaults applied; a part without one is absent."""
        root = parse_xml(self.parts[TYPES], TYPES)
        defaults = {str(row.get("Extension", "")).lower(): str(row.get("ContentType")) for row in root.iter(f"{TYPES_NS}Default")}
        given = {str(row.get("PartName", "")).lstrip("/").lower(): str(row.get("ContentType")) for row in root.iter(f"{TYPES_NS}Override")}
        found = {name: given.get(name.lower()) or defaults.get(name.rpartition(".")[2].lower()) for name in self.parts}
        return {name: kind for name, kind in found.items() if kind}

    def relationships(self, part: str) -> list[Relationship]:
        """Those of ``part`` ("" = of the package)."""
        content = self.parts.get(rels_name(part))
        if content is None:
            return []
        rows = parse_xml(content, rels_name(part)).iter(f"{RELS_NS}Relationship")
        return [
            Relationship(str(row.get("Id")), str(row.get("Type")), str(row.get("Target")), str(row.get("TargetMode", "Internal")).lower() != "internal")
            for row in rows
        ]


def rels_name(part: str) -> str:
    """Where the relationships of ``part`` lie."""
    folder, _, name = part.rpartition("/")
    return f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels"


def resolve(part: str, target: str) -> str:
    """Name of the part that ``target``, written in the relationships of ``part``, means."""
    return normpath(target.lstrip("/") if target.startswith("/") else f"{dirname(part)}/{target}").lstrip("/")


def parse_xml(content: bytes, name: str, limits: TemplateLimits = DEFAULT_LIMITS) -> Any:
    """Root element. Raises ``template_invalid`` for bad XML, a document type, too many or too deep elements."""
    try:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True)
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise invalid("its XML is not well formed, or nested too deeply", name) from exc
    if root.getroottree().docinfo.internalDTD is not None or root.getroottree().docinfo.doctype:
        raise invalid("its XML has a document type, which Office files never do", name)
    if root.xpath("count(//*)") > limits.elements:
        raise invalid(f"it has more than {limits.elements:,} XML elements", name)
    return root


def xml_bytes(root: Any) -> bytes:
    """A part as Office writes it."""
    content: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)
    return content


def _check_end_record(content: bytes) -> None:
    """The directory is small enough to be read; ZIP64 has no place in a template."""
    place = content.rfind(_END_RECORD, max(0, len(content) - 66_000))
    if not content.startswith(b"PK\x03\x04") or place < 0 or len(content) < place + 22:
        kind = "an old binary or an encrypted Office file" if content.startswith(b"\xd0\xcf\x11\xe0") else "not an Office file"
        raise invalid(f"it is {kind}", hint="save it without a password as .docx or .pptx")
    if struct.unpack_from("<I", content, place + 12)[0] > _MOST_DIRECTORY_BYTES:
        raise invalid("its table of contents is larger than any Office file's")


def _check_directory(members: list[zipfile.ZipInfo], limits: TemplateLimits) -> None:
    if len(members) > limits.entries:
        raise invalid(f"it holds {len(members):,} parts, more than {limits.entries:,}")
    if sum(member.file_size for member in members) > limits.unpacked_bytes:
        raise invalid(f"it unpacks to more than {limits.unpacked_bytes:,} bytes")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if member.flag_bits & _ENCRYPTED:
            raise invalid("it is encrypted", hint="save it without a password")
        if not _NAME.fullmatch(name) or normpath(name) != name or name.startswith("..") or name.lower() in seen:
            raise invalid("a part has a name that Office does not write, or comes twice", ascii(name[:80]))
        seen.add(name.lower())
        if member.file_size > limits.ratio_from_bytes and member.file_size > limits.ratio * max(1, member.compress_size):
            raise invalid("a part is packed more tightly than documents are", name)


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as source:
        content = source.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise invalid("a part is not as long as the directory says", member.filename)
    return content
