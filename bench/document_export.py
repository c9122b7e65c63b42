"""How long documents take: 200 sections through the report template, 50 slides through the deck, both languages; and the check of a new template.

    python -m bench.document_export [--json FILE]

The first rendering with a template unpacks, screens and compiles the template; the later ones find it compiled. Both are measured; the target is for
the first. CPU time of this process is what counts against the streams beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from appliance.contracts.router.v1.api import CitationEvent
from bench.report import Row, arguments, report
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.templates.checking import check_template
from services.sgr.templates.folder_catalogue import BUILTIN_FOLDER, FolderCatalogue

ROUNDS = 7
WORDS = "The supplier delivers within ten working days and pays one percent of the price for each day of delay [1]. "
SOURCES = [CitationEvent(number, f"d_{number}", f"contract {number}.pdf", "legal", 1, number, ("Term",), 0, 50, WORDS.strip()) for number in range(1, 21)]
REPORT = {
    "title": "Obligations", "subtitle": "2026", "summary": WORDS * 3, "facts": [{"name": f"fact {number}", "value": "1"} for number in range(20)],
    "sections": [{"heading": f"Section {number}", "text": f"{WORDS * 4}\n\n{WORDS * 4}", "points": [WORDS] * 3} for number in range(200)],
    "conclusions": [WORDS] * 5,
}  # fmt: skip
DECK = {
    "title": "Obligations", "subtitle": "2026", "conclusion": ["done"],
    "slides": [{"title": f"Slide {number}", "points": [WORDS] * 5, "notes": WORDS * 4} for number in range(47)],
}  # fmt: skip


def main() -> int:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-documents-") as folder:
        catalogue = FolderCatalogue(Path(folder))
        rows = [
            *measure("200-section DOCX", catalogue, "report", REPORT),
            *measure("50-slide PPTX", catalogue, "slide-deck", DECK),
        ]
    content = (BUILTIN_FOLDER / "report.en.docx").read_bytes()
    seconds = median(lambda: check_template(content, "report", None))
    rows.append(Row("document-export", "check of a template at add", seconds, "s"))
    report(rows, options.json)
    return 0


def measure(what: str, catalogue: FolderCatalogue, name: str, data: dict[str, object]) -> list[Row]:
    template = catalogue.get(name)
    size = 0

    def first() -> None:
        nonlocal size
        size = len(OfficeRenderer(catalogue.read).render(template, data, "en", SOURCES).content)

    kept = OfficeRenderer(catalogue.read)
    kept.render(template, data, "en", SOURCES)
    cold, warm = median(first), median(lambda: kept.render(template, data, "en", SOURCES))
    return [
        Row("document-export", f"{what}, template not compiled yet", cold, "s", 1.0, at_least=False),
        Row("document-export", f"{what}, template compiled", warm, "s", 1.0, at_least=False),
        Row("document-export", f"{what}, size", size / 1024, "KiB"),
    ]


def median(act: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    raise SystemExit(main())
