"""What the fake box holds and says: documents with exact offsets, threads, answers by keyword, hostile ones among them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

CONTRACT_PAGES: Final = (
    (
        "# Supply contract No. 17 📄\n\nBetween Northwind Ltd (the Supplier) and the City Archive (the Customer).\n\n"
        "## 1. Subject\n\nThe Supplier delivers acid-free boxes and folders in the quantities of Annex A. "
        "Each delivery is announced three working days ahead.\n\n- boxes, 40 × 30 × 12 cm\n- folders, A4\n  - grey\n  - blue\n\n"
    ),
    "## 2. Term\n\nThe contract enters into force on 1 March 2025. It ends on 31 December 2027 unless it is extended in writing. "
    "Either party may terminate it with a notice of ninety days.\n\n"
    + "The archive keeps a register of every delivery and of every complaint. " * 25
    + "\n\n",
    "## 3. Prices\n\n| Article | Unit | Price, EUR |\n| --- | --- | --- |\n| Box, large | piece | 4.20 |\n| Box, small | piece | 2.90 |\n| Folder | 10 pieces | 6.75 |\n\n"
    "Prices are fixed until the end of the term.\n\n" + "Payment is due thirty days after delivery. " * 40 + "\n",
)
RULES_PAGES: Final = (
    "# Правила внутреннего распорядка\n\n## 1. Рабочее время\n\nРабочий день начинается в 9:00 и заканчивается в 18:00. Обеденный перерыв длится один час.\n\n",
    "## 2. Отпуск\n\nЕжегодный оплачиваемый отпуск составляет 28 календарных дней. Заявление подаётся за две недели до начала отпуска.\n\n",
)
DAY: Final = 86_400


def spaces() -> list[Json]:
    """Two that may be written to, one that may only be read."""
    return [
        {"name": "legal", "title": "Legal", "role": "editor"},
        {"name": "hr", "title": "Кадры", "role": "owner"},
        {"name": "public", "title": "Public library", "role": "reader"},
    ]


def document(doc_id: str, name: str, space: str, *, size: int = 48_211, age_days: float = 0, pages: tuple[str, ...] = ("",)) -> Json:
    """A ready document made of ``pages``."""
    text, spans = "", []
    for number, page in enumerate(pages, 1):
        spans.append({"page": number, "start": len(text), "end": len(text) + len(page)})
        text += page
    moment = time.time() - age_days * DAY
    return {
        "id": doc_id, "name": name, "space": space, "media_type": "application/pdf", "size_bytes": size, "sha256": "0" * 64, "version": 1,
        "status": "ready", "pages": len(pages), "chunks": 6, "embedded_chunks": 6, "warnings": [], "error": None, "language": "en",
        "created_at": moment, "updated_at": moment, "text": text, "page_spans": spans,
    }  # fmt: skip


def documents() -> dict[str, Json]:
    """A small library: two that answers cite, one with warnings, one that failed, one still being read."""
    scan = document("doc_scan", "Inventory 1998, scanned.pdf", "legal", size=3_400_000, age_days=2, pages=("", ""))
    scan["warnings"] = [
        {"page": 2, "code": "ocr_unavailable", "message": "no text recognition"},
        {"page": None, "code": "brand_new", "message": "Words of the server."},
    ]
    broken = document("doc_broken", "budget-2024.xlsx", "hr", size=18_000, age_days=40)
    broken.update(
        status="failed", pages=None, error={"code": "document_encrypted", "message": "budget-2024.xlsx is encrypted", "hint": "remove the password"}
    )
    return {
        one["id"]: one
        for one in (
            document("doc_contract", "Supply contract No. 17.pdf", "legal", age_days=0.1, pages=CONTRACT_PAGES),
            document("doc_rules", "Правила внутреннего распорядка.docx", "hr", age_days=1, pages=RULES_PAGES),
            scan,
            document(
                "doc_guide", "A very long guide to the reading room and to everything in it, third revised edition.html", "public", age_days=400
            ),
            broken,
        )
    }


def thread(thread_id: str, title: str, *, spaces: list[str] | None = None, age_days: float = 0) -> Json:
    """An empty thread."""
    moment = time.time() - age_days * DAY
    return {"id": thread_id, "title": title, "spaces": spaces, "created_at": moment, "updated_at": moment, "messages": []}


def threads() -> dict[str, Json]:
    """One stored conversation, with a citation of a document that is gone."""
    old = thread("thread_old", "Who may enter the reading room?", age_days=3)
    gone = cited(1, "doc_gone", "Visitors.pdf", "public", 4, "Visitors register at the desk.", 100)
    old["messages"] = [
        {"id": "m1", "role": "user", "content": "Who may enter the reading room?", "citations": [], "model": None, "created_at": old["created_at"]},
        {
            "id": "m2",
            "role": "assistant",
            "content": "Everyone who has registered at the desk [1].",
            "citations": [gone],
            "model": "default",
            "created_at": old["created_at"],
        },
    ]
    return {"thread_old": old}


def cited(index: int, doc_id: str, name: str, space: str, page: int, quote: str, start: int, path: tuple[str, ...] = ()) -> Json:  # noqa: PLR0917 - fields
    """A citation as the socket sends it."""
    return {
        "index": index, "document_id": doc_id, "filename": name, "space": space, "version": 1, "page": page, "heading_path": list(path),
        "start": start, "end": start + len(quote), "quote": quote,
    }  # fmt: skip


def _in_contract(index: int, quote: str, page: int, heading: str) -> Json:
    start = "".join(CONTRACT_PAGES).index(quote)
    return cited(index, "doc_contract", "Supply contract No. 17.pdf", "legal", page, quote, start, ("Supply contract No. 17", heading))


def _in_rules(index: int, quote: str) -> Json:
    start = "".join(RULES_PAGES).index(quote)
    return cited(index, "doc_rules", "Правила внутреннего распорядка.docx", "hr", 2, quote, start, ("2. Отпуск",))


@dataclass(frozen=True)
class Answer:
    """A scripted turn."""

    text: str = ""
    citations: tuple[Json, ...] = ()
    passages: int | None = 5
    refused: bool = False
    steps: tuple[Json, ...] = ()
    agent: str = "documents"
    error: str | None = None

    def pieces(self) -> Iterator[str]:
        """The text in pieces of about a token, at most some four hundred."""
        size = max(6, len(self.text) // 400)
        yield from re.findall(rf"\s*\S{{1,{size}}}", self.text) or [""]


END_QUOTE: Final = "It ends on 31 December 2027 unless it is extended in writing."
HOSTILE: Final = (
    "Before <img src=x onerror=\"window.hacked='img'\"> and <script>window.hacked='script'</script> after.\n\n"
    "![pixel](https://evil.example/pixel.png) [click](javascript:window.hacked='link') [out](https://evil.example/) "
    '<a href="https://evil.example/a">a</a> https://evil.example/plain [99] [0]\n\n'
    '<iframe src="https://evil.example/frame"></iframe>\n\n<style>body{display:none}</style>\n\n'
    "| <b>bold</b> | [x](data:text/html,<script>1</script>) |\n| --- | --- |\n| <svg onload=\"window.hacked='svg'\"> | 1 |\n\n"
    "```html\n<script>window.hacked='code'</script>\n```\n\n" + "*" * 5000 + "[" * 5000 + "`" * 5000 + "a_" * 5000
)
MARKDOWN: Final = (
    "## Summary\n\nThe contract has **two** dates and *one* notice period [1]:\n\n- in force: `2025-03-01`\n- end: **31 December 2027** [1]\n  - notice of ninety days [2]\n\n"
    "1. first\n2. second\n\n| Article | Price |\n| :-- | --: |\n| Box \\| large | 4.20 |\n| Folder | 6.75 |\n\n> quoted words\n\n"
    "```python\nprint('[1] <b>')\n```\n\nA product of 3 * 4 * 5 and a snake_case_name stay as they are [7]."
)
_END: Final = _in_contract(1, END_QUOTE, 2, "2. Term")
_NOTICE: Final = _in_contract(2, "Either party may terminate it with a notice of ninety days.", 2, "2. Term")
_PRICE: Final = _in_contract(3, "| Box, small | piece | 2.90 |", 3, "3. Prices")
WAYS: Final = [{"route": "x", "agent": "analyst", "title": "<b>Figures</b>"}, {"route": "y", "agent": "lawyer", "title": "Contracts"}]
BUSY: Final[tuple[Json, ...]] = (
    {"name": "route", "detail": {"route": "figures", "agent": "analyst", "confidence": 0.9, "level": "high"}},
    {"name": "tool", "detail": {"name": "calculator", "round": 1, "code": "", "seconds": 0.1}},
    {"name": "tool", "detail": {"name": "<i>clock</i>", "round": 1, "code": "tool_failed", "seconds": 0.1}},
    {"name": "reroute", "detail": {"model": "spare", "why": "upstream_failed"}},
    {"name": "guard", "detail": {"findings": []}},
    {"name": "fit", "detail": {"passages": 2}},
    {"name": "brand_new", "detail": {"anything": [1]}},
)
ANSWERS: Final[tuple[tuple[str, Answer], ...]] = (
    ("hostile", Answer(HOSTILE, (_END,))),
    ("markdown", Answer(MARKDOWN, (_END, _NOTICE))),
    ("moon", Answer("The documents do not say anything about this.", passages=3, refused=True)),
    ("unclear", Answer("I am not sure what you need.", passages=None, steps=({"name": "ask", "detail": {"options": WAYS}},))),
    ("busy", Answer("Done.", passages=None, steps=BUSY, agent="analyst")),
    ("broken", Answer(error="upstream_failed")),
    ("forever", Answer("and on " * 400)),
    (
        "отпуск",
        Answer(
            "Ежегодный оплачиваемый отпуск составляет 28 календарных дней [1].",
            (_in_rules(1, "Ежегодный оплачиваемый отпуск составляет 28 календарных дней."),),
        ),
    ),
    ("changed", Answer("It said something else once [1].", ({**_END, "quote": "It ended on 30 June 2026."},))),
)
DEFAULT: Final = Answer(
    "The supply contract **ends on 31 December 2027** unless it is extended in writing [1]. Either party may terminate it earlier "
    "with a notice of ninety days [2].\n\nThe price of a small box stays at 2.90 EUR until then [3].",
    (_END, _NOTICE, _PRICE),
)


KNOWN: Final = frozenset(documents())


def answer_from(uploaded: list[Json], question: str) -> Answer | None:
    """A quote from an uploaded text that shares four long words with ``question``: the least that a journey needs."""
    asked = set(re.findall(r"\w{4,}", question.lower()))
    for one in uploaded:
        for sentence in re.finditer(r"[^.\n#]+\.", one["text"]):
            quote = sentence.group().strip()
            if len(asked & set(re.findall(r"\w{4,}", quote.lower()))) >= 4:
                return Answer(f"{quote} [1]", (cited(1, one["id"], one["name"], one["space"], 1, quote, one["text"].index(quote)),))
    return None


def answer_to(question: str) -> Answer:
    """The first answer whose keyword occurs in ``question``, else the contract's end."""
    return next((answer for word, answer in ANSWERS if word in question.lower()), DEFAULT)
