"""Office files that tests make, take apart and check by the rules of ECMA-376 that damaged files break."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from posixpath import dirname, normpath
from typing import Any
from xml.sax.saxutils import escape

from docx import Document
from lxml import etree

from appliance.contracts.router.v1.api import CitationEvent
from services.sgr.ports import Rendered
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.templates.checking import check_template
from services.sgr.templates.folder_catalogue import Manifest, _template

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
CITED = CitationEvent(1, "d_1", "supply contract.pdf", "legal", 1, 3, ("7 Term",), 10, 40, "This contract ends\non 31 May 2026.")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def document(build: Callable[[Any], None]) -> bytes:
    """A Word file that ``build`` fills."""
    made = Document()
    build(made)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


_OFFICE = "http://schemas.openxmlformats.org"
_TYPES = (
    f'<Types xmlns="{_OFFICE}/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELS = f'<Relationships xmlns="{_OFFICE}/package/2006/relationships">%s</Relationships>'
_MAIN = f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'


def paragraphs(*texts: str) -> bytes:
    """The smallest Word file of plain paragraphs (python-docx's own takes a tenth of a second to look at)."""
    body = "".join(f'<w:p><w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>' for text in texts)
    whole = f'<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="{W.strip("{}")}"><w:body>{body}</w:body></w:document>'
    return zipped(
        {"[Content_Types].xml": _TYPES, "_rels/.rels": _RELS % _MAIN, "word/document.xml": whole, "word/_rels/document.xml.rels": _RELS % ""}
    )


def zipped(files: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def manifest(content: bytes, schema: dict[str, Any] | None = None) -> Manifest:
    return check_template(content, "letter", schema)


def fill(content: bytes, data: dict[str, Any], schema: dict[str, Any] | None = None, language: str = "en", citations: Any = ()) -> Rendered:
    """Checked as at ``add``, then rendered; the result has passed :func:`faults`."""
    found = manifest(content, schema)
    template = _template(found, found.schemas.keys(), builtin=False, digest=found.digest)
    rendered = OfficeRenderer(lambda _template, _language: content, now=lambda: 1_800_000_000.0).render(template, data, language, citations)
    assert faults(rendered.content) == []
    return rendered


def texts(rendered: Rendered) -> list[str]:
    """Texts of the body's paragraphs."""
    return [paragraph.text for paragraph in Document(io.BytesIO(rendered.content)).paragraphs]


def parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(content: bytes, **changes: Any) -> bytes:
    """``content`` with parts replaced (bytes), changed (callable) or added; ``__`` in a name means ``/``, ``_dot_`` means ``.``."""
    found = parts(content)
    for key, change in changes.items():
        name = key.replace("__", "/").replace("_dot_", ".").replace("TYPES", "[Content_Types].xml").replace("/rels/", "/_rels/")
        found[name] = change(found[name]) if callable(change) else change
    return zipped(found)


def faults(content: bytes) -> list[str]:
    """What Office would complain about: parts that do not parse, links that lead nowhere, missing types, ids given twice, empty cells and tables."""
    found = parts(content)
    wrong = [f"{name} comes twice" for name, count in Counter(name.lower() for name in found).items() if count > 1]
    roots = {name: etree.fromstring(data) for name, data in found.items() if name.endswith((".xml", ".rels"))}
    types = roots["[Content_Types].xml"]
    overrides = [row.get("PartName").lstrip("/") for row in types if row.tag.endswith("Override")]
    defaults = {row.get("Extension").lower() for row in types if row.tag.endswith("Default")}
    wrong += [f"type of {name} is given twice" for name, count in Counter(overrides).items() if count > 1]
    wrong += [f"type of {name}, which is not there" for name in overrides if name not in found]
    wrong += [f"{name} has no type" for name in found if name not in overrides and name.rpartition(".")[2].lower() not in defaults and name[0] != "["]
    for name, root in roots.items():
        if name.endswith(".rels"):
            wrong += _link_faults(name, root, found)
        else:
            wrong += _part_faults(name, root, roots.get(f"{dirname(name)}/_rels/{name.rpartition('/')[2]}.rels"))
    return wrong


def _link_faults(name: str, root: Any, found: dict[str, bytes]) -> list[str]:
    base = dirname(dirname(name))
    ids = Counter(row.get("Id") for row in root)
    wrong = [f"{name}: {key} twice" for key, count in ids.items() if count > 1]
    for row in root:
        target = row.get("Target")
        where = normpath(target.lstrip("/") if target.startswith("/") else f"{base}/{target}").lstrip("/")
        if row.get("TargetMode") == "External" or where not in found:
            wrong.append(f"{name}: {row.get('Id')} leads to {target}")
    source = f"{base}/{name.rpartition('/')[2].removesuffix('.rels')}".lstrip("/")
    return wrong if source == "" or name == "_rels/.rels" or source in found else [*wrong, f"{name} belongs to nothing"]


def _part_faults(name: str, root: Any, links: Any) -> list[str]:
    known = set() if links is None else {row.get("Id") for row in links}
    used = set(root.xpath("//@r:*", namespaces={"r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships"}))
    wrong = [f"{name} uses {key}, which is no link" for key in used - known]
    drawings = Counter(one.get("id") for one in root.iter("{*}docPr"))
    shapes = Counter(one.get("id") for one in root.iter("{*}cNvPr") if "/slides/" in name)
    wrong += [f"{name}: drawing {key} twice" for key, count in (drawings + shapes).items() if count > 1]
    wrong += [f"{name}: slide {key} twice" for key, count in Counter(one.get("id") for one in root.iter("{*}sldId")).items() if count > 1]
    wrong += [f"{name}: a cell does not end with a paragraph" for one in root.iter(f"{W}tc") if not len(one) or one[-1].tag != f"{W}p"]
    wrong += [f"{name}: a text without a paragraph" for one in root.iter("{*}txBody") if one.find(f"{A}p") is None]
    wrong += [f"{name}: a table without rows" for one in root.iter(f"{W}tbl", f"{A}tbl") if not any(etree.QName(row).localname == "tr" for row in one)]
    wrong += [f"{name}: a placeholder is left" for one in root.iter(f"{W}t", f"{A}t") if any(mark in (one.text or "") for mark in ("{{", "{%")) and "data" not in (one.text or "")]
    return wrong
