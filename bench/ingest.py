"""Ingest, end to end on the running box: text pages per second until search finds them, and chunks embedded per second.

    python -m bench.ingest [--json FILE] [--pages N]

Pages are A4 with about 2,600 characters of English prose (Python's own language reference, which every interpreter carries), made into
PDF on the spot with reportlab, split over documents of 100 pages, as a newcomer would upload a folder. Searchable = status ``ready`` (BM25 finds it); embedding goes on in the background and is timed apart.
"""

from __future__ import annotations

import io
import time

import httpx

from appliance.testing.box_process import box_process
from bench.report import Row, arguments, report

PAGES_PER_DOCUMENT = 100
_LINES = 33


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--pages", type=int, default=1_000)
    options = parser.parse_args()
    files = [make_pdf(number) for number in range(options.pages // PAGES_PER_DOCUMENT)]
    with box_process() as box, box.client() as client:
        started = time.perf_counter()
        for number, data in enumerate(files):
            name = f"report-{number:03}.pdf"
            client.post("/api/documents", params={"space": "default"}, files={"file": (name, data)}).raise_for_status()
        uploaded = time.perf_counter() - started
        _wait(client, lambda one: one["status"] == "ready")
        ready = time.perf_counter() - started
        at_ready, _ = _chunks(client)
        embedding_from = time.perf_counter()
        _wait(client, lambda one: one["embedded_chunks"] == one["chunks"])
        embedding = time.perf_counter() - embedding_from
        done, _ = _chunks(client)
        pages = sum(one["pages"] for one in _documents(client))
        peak = box.resident_bytes()
    rows = [
        Row("ingest", "text pages searchable, end to end", pages / ready, "pages/s", 100),
        Row("ingest", "chunks embedded after that", (done - at_ready) / embedding, "chunks/s", 60),
        Row("ingest", "chunks embedded, whole run", done / (ready + embedding), "chunks/s"),
        Row("ingest", "upload (durable acknowledgement)", uploaded / len(files) * 1e3, "ms/document"),
        Row("ingest", "pages", pages, "pages"),
        Row("ingest", "chunks", done, "chunks"),
        Row("ingest", "resident memory under load", peak / 2**20, "MiB"),
    ]
    report(rows, options.json)
    return 0


def make_pdf(number: int, pages: int = PAGES_PER_DOCUMENT) -> bytes:
    """A PDF of ``pages`` pages of prose."""
    from pydoc_data.topics import topics

    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    prose = " ".join(" ".join(topics.values()).split()).encode("latin-1", "ignore").decode("latin-1")
    lines = _lines(prose, 88)
    first = number * PAGES_PER_DOCUMENT * _LINES
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, pageCompression=1)
    for page in range(pages):
        canvas.setFont("Helvetica-Bold", 14)
        canvas.drawString(60, 790, f"Section {page + 1}")
        canvas.setFont("Helvetica", 10)
        for line in range(_LINES):
            at = first + page * _LINES + line
            canvas.drawString(60, 765 - line * 21, f"{lines[at % len(lines)]}")
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def _lines(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def _documents(client: httpx.Client) -> list[dict[str, object]]:
    return client.get("/api/documents", params={"limit": 1000}).json()["data"]  # type: ignore[no-any-return]


def _chunks(client: httpx.Client) -> tuple[int, int]:
    documents = _documents(client)
    return sum(int(one["embedded_chunks"]) for one in documents), sum(int(one["chunks"]) for one in documents)  # type: ignore[call-overload]


def _wait(client: httpx.Client, done: object) -> None:
    deadline = time.monotonic() + 900
    while not all(done(one) for one in _documents(client)):  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError("ingest did not finish in 15 minutes")
        time.sleep(0.05)


if __name__ == "__main__":
    raise SystemExit(main())
