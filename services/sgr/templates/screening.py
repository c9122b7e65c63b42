"""What a template may not hold, whoever brought it: code, ways out of the box, fields that fetch or run something.

A verified list of what is allowed where a list of what is forbidden would have gaps: content types, kinds of field, kinds of relationship.
Does not own: the ZIP container (``package``), placeholders (``program``).
"""

from __future__ import annotations

import re
from typing import Any, Final

from lxml import etree

from services.sgr.templates.failures import at, invalid
from services.sgr.templates.package import TYPES, Package, parse_xml, resolve

W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_R_ID: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
# PAGE, dates, references inside the document, properties; IF and = take what other fields give, and those are looked at as well
FIELDS: Final = frozenset((
    "PAGE", "NUMPAGES", "SECTION", "SECTIONPAGES", "TOC", "TC", "XE", "INDEX", "DATE", "TIME", "CREATEDATE", "SAVEDATE", "PRINTDATE", "EDITTIME",
    "REF", "PAGEREF", "NOTEREF", "STYLEREF", "SEQ", "TITLE", "SUBJECT", "AUTHOR", "KEYWORDS", "COMMENTS", "LASTSAVEDBY", "REVNUM", "NUMWORDS",
    "NUMCHARS", "DOCPROPERTY", "SYMBOL", "LISTNUM", "AUTONUM", "IF", "=", "SET", "TOA", "TA", "FORMTEXT", "FORMCHECKBOX", "FORMDROPDOWN",
    "BIBLIOGRAPHY", "CITATION", "ADVANCE", "EQ", "COMPARE",
))  # fmt: skip
_INNER_LINK: Final = re.compile(r'HYPERLINK\s+\\l\s+("[^"\\]*"|[\w.-]+)(\s+\\[a-z]\b(\s+"[^"\\]*")?)*', re.IGNORECASE)
_NAMED: Final = re.compile(r"\s*[A-Za-z=]+\s")
_BAD_TYPES: Final = ("macroenabled", "vba", "oleobject", "activex", "ms-office.vba", "ms-word.attachedtoolbars", "package.obfuscated", "application/x-msdownload")
_BAD_RELATIONS: Final = (
    "vbaproject", "oleobject", "attachedtemplate", "control", "activexcontrol", "afchunk", "subdocument", "frame", "package", "wordvbadata", "keymapcustomizations",
    "attachedtoolbars", "externallink", "externallinkpath", "xlexternallinkpath", "mailmergesource", "mailmergeheadersource", "recipientdata", "ui/extensibility",
    "ui/usercustomization", "webextensiontaskpanes", "webextension", "transform", "audio", "video", "media",
)  # fmt: skip
_BAD_PARTS: Final = (".bin", ".vbs", ".js", ".exe", ".dll", ".ocx", ".hta", ".html", ".htm", ".mht", ".rtf", ".docm", ".svg")
_BAD_ELEMENTS: Final = frozenset({"altChunk", "attachedTemplate", "subDoc", "frameset", "mailMerge", "object", "control", "oleObj", "externalData", "macro", "entryMacro", "exitMacro"})
_ADDRESSES: Final = ("src", "href")  # VML
_AWAY: Final = re.compile(r"[a-z][a-z0-9+.-]*:|[\\/]{2}", re.IGNORECASE)
_ACTION: Final = "action"  # a:hlinkClick/@action: jumps between slides are fine, programs and macros are not
_SUSPECT: Final = re.compile(rf"[<:](?:{'|'.join(sorted(_BAD_ELEMENTS))})[\s/>]|(?:{'|'.join((_ACTION, 'link', *_ADDRESSES))})=")
_SLIDE_JUMP: Final = "ppaction://hlinkshowjump"
_SAFE_ACTIONS: Final = ("ppaction://hlinksldjump", _SLIDE_JUMP, "ppaction://noaction")


def screen(package: Package) -> None:
    """Raises ``template_invalid``, naming the part and what is wrong with it."""
    types = package.content_types()
    for name in package.parts:
        if name == TYPES:
            continue
        if name.lower().endswith(".rels") and not name.endswith(".rels"):  # Office finds parts without regard to case
            raise invalid("a part has a name that Office does not write", name)
        kind = types.get(name, "").lower()
        if not kind:
            raise invalid("a part has no content type", name)
        if any(bad in kind for bad in _BAD_TYPES) or (name.lower().endswith(_BAD_PARTS) and "printersettings" not in kind):
            raise invalid("it holds macros or embedded programs", name, hint="save it as .docx or .pptx without macros and embedded objects")
    for name in package.parts:
        if name.endswith(".rels"):
            _check_relationships(package, name)
        elif types.get(name, "").endswith("xml") or name.endswith((".xml", ".vml")):
            _check_part(parse_xml(package.parts[name], name), name)


def _check_relationships(package: Package, name: str) -> None:
    part = name.replace("_rels/", "", 1).removesuffix(".rels") if name != "_rels/.rels" else ""
    if "/" in name and part not in package.parts and part:
        raise invalid("relationships of a part that is not there", name)
    for row in package.relationships(part):
        kind = row.type.rpartition("/relationships/")[2].lower()
        if row.external:
            raise invalid(
                f"it points outside itself: {kind} to {row.target[:100]!r}", name, hint="remove links, linked pictures and the attached template, and save again"
            )
        if kind in _BAD_RELATIONS:
            raise invalid(f"it holds {kind}", name, hint="remove macros, embedded objects, audio and video, and save again")
        if row.target.startswith("#"):
            continue
        if "://" in row.target or resolve(part, row.target) not in package.parts:
            raise invalid(f"a relationship leads nowhere: {row.target[:100]!r}", name)


def _check_part(root: Any, name: str) -> None:
    _check_fields(root, name)
    if not _SUSPECT.search(etree.tostring(root, encoding="unicode")):  # most parts: a walk over every element takes a tenth of a second
        return
    for element in root.iter():
        local = element.tag.rpartition("}")[2]
        if local in _BAD_ELEMENTS:
            raise invalid(f"it holds an element {local}", name, hint="remove links to other files and embedded objects, and save again")
        action = element.get(_ACTION)
        if action is not None and local.startswith("hlink") and action and not action.startswith(_SAFE_ACTIONS):
            raise invalid(f"it runs something on a click: {action[:80]!r}", name)
        if element.get(f"{_R_ID}link") is not None:
            raise invalid("it holds a linked picture", name, hint="embed the picture")
        for attribute, value in element.attrib.items():
            if attribute.rpartition("}")[2] in _ADDRESSES and not attribute.startswith(_R_ID) and _AWAY.match(value):
                raise invalid(f"it points outside itself: {value[:100]!r}", name)


def _check_fields(root: Any, name: str) -> None:
    """Simple and complex fields; instructions are put together from the runs that they are split over, level by level.

    A field's name must be its own: were it the result of an inner field, or a placeholder, data would say what the field does.
    """
    open_codes: list[str | None] = []  # instruction of each open field; None = looked at, what follows is its result
    for element in root.iter(f"{W}fldChar", f"{W}instrText", f"{W}delInstrText", f"{W}fldSimple", f"{W}t"):
        local = element.tag.removeprefix(W)
        code = open_codes[-1] if open_codes else None
        if local == "fldSimple":
            _check_instruction(str(element.get(f"{W}instr", "")), name)
        elif local == "fldChar":
            kind = element.get(f"{W}fldCharType")
            if kind == "begin":
                if code is not None and not _NAMED.match(code):
                    raise invalid("a field takes its name from another field", at(name, code))
                open_codes.append("")
            elif kind in {"separate", "end"} and open_codes:
                if code is not None:
                    _check_instruction(code, name)
                open_codes[-1] = None
                if kind == "end":
                    open_codes.pop()
        elif local == "t":
            if code is not None and (element.text or "").strip():
                raise invalid("there is text inside of a field's instruction", at(name, code))
        elif code is not None:
            open_codes[-1] = code + (element.text or "")
        else:
            _check_instruction(element.text or "", name)
    if open_codes:
        raise invalid("a field has no end", name)


def _check_instruction(text: str, name: str) -> None:
    words = text.split()
    keyword = words[0].upper() if words else ""
    if keyword == "HYPERLINK" and _INNER_LINK.fullmatch(text.strip()):
        return
    if keyword.startswith("="):
        keyword = "="
    if keyword not in FIELDS:
        raise invalid(f"it holds a field {keyword[:20]!r}", at(name, text), hint="only fields that look at nothing but the document itself")
