"""From a file to a parsed document, in this process. Used inside a worker; tests may call it directly.

The parsers and their libraries are imported when a document needs them, so a worker for text starts fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing import failures
from services.retrieval.parsing.detect import CSV, DOCX, HTML, MARKDOWN, PDF, PPTX, XLSX, detect
from services.retrieval.parsing.document import ParsedDocument
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.reporting import Report

Parser = Callable[[Path, ParseLimits, Report], ParsedDocument]


def parse_document(path: Path, name: str, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the file at ``path`` that the user calls ``name``.

    Raises:
        ApplianceError: one of ``failures.FAILURE_CODES``.
    """
    try:
        size = path.stat().st_size
        if size > limits.file_bytes:
            raise failures.too_long("the file", limits.file_bytes, "bytes")
        found = detect(path, name)
        if found.name_disagrees:
            report.warn(None, "name_disagrees", f"the name does not fit the content, which was read as {found.media_type}")
        document = _parser(found.media_type)(path, limits, report)
        report.progress(len(document.pages), len(document.pages))
        return document
    except ApplianceError:
        raise
    except MemoryError as error:
        raise failures.bomb("reading it takes more memory than a document may use") from error
    except RecursionError as error:
        raise failures.bomb("it is nested too deeply") from error
    except OSError as error:
        raise failures.corrupt(f"it cannot be read ({error.strerror})") from error
    except Exception as error:
        raise failures.corrupt(f"its content confuses the reader ({type(error).__name__})") from error


def _parser(media_type: str) -> Parser:
    """The parser of a media type, imported now."""
    if media_type == PDF:
        from services.retrieval.parsing.pdf import parse_pdf as parser
    elif media_type == DOCX:
        from services.retrieval.parsing.docx import parse_docx as parser
    elif media_type == XLSX:
        from services.retrieval.parsing.xlsx import parse_xlsx as parser
    elif media_type == PPTX:
        from services.retrieval.parsing.pptx import parse_pptx as parser
    elif media_type == HTML:
        from services.retrieval.parsing.html import parse_html as parser
    elif media_type == CSV:
        from services.retrieval.parsing.delimited import parse_delimited as parser
    elif media_type == MARKDOWN:
        from services.retrieval.parsing.plain import parse_markdown as parser
    else:
        from services.retrieval.parsing.plain import parse_text as parser
    return parser
