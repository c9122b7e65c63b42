"""The ways in which a document refuses to be read, each with a hint that helps without internet."""

from __future__ import annotations

from typing import Final

from appliance.kit.errors import ApplianceError

FAILURE_CODES: Final = frozenset(
    {
        "document_corrupt",
        "document_encrypted",
        "document_empty",
        "document_too_long",
        "document_bomb",
        "document_timeout",
        "unsupported_type",
    }
)


def corrupt(what: str) -> ApplianceError:
    """The bytes are not what their format promises."""
    return ApplianceError(
        "document_corrupt",
        f"the document is damaged: {what}",
        hint="open it in the program that made it and save it again, or export it as PDF",
    )


def encrypted(what: str) -> ApplianceError:
    """A password is needed."""
    return ApplianceError(
        "document_encrypted",
        f"{what} is protected by a password",
        hint="save a copy without a password and upload that",
    )


def empty(what: str = "the document") -> ApplianceError:
    """Nothing to index."""
    return ApplianceError(
        "document_empty",
        f"{what} contains no text",
        hint="check that the right file was chosen; scanned pages need Tesseract (apt install tesseract-ocr tesseract-ocr-rus)",
    )


def too_long(what: str, limit: int, unit: str) -> ApplianceError:
    """Honest but larger than the box accepts."""
    return ApplianceError(
        "document_too_long",
        f"{what} is larger than the limit of {limit:,} {unit}",
        hint=f"split it into parts of at most {limit:,} {unit} each",
    )


def bomb(what: str) -> ApplianceError:
    """Made, or fit, to exhaust the box."""
    return ApplianceError(
        "document_bomb",
        f"the document was refused: {what}",
        hint="it would take far more memory than its size suggests; if it is genuine, save it again or split it",
    )


def timed_out(seconds: float) -> ApplianceError:
    """The worker was stopped by the clock."""
    return ApplianceError(
        "document_timeout",
        f"reading the document took longer than {seconds:.0f} s and was stopped",
        hint="split the document, or export it as PDF and upload that",
    )


def unsupported(what: str, hint: str = "") -> ApplianceError:
    """A kind of file that the box does not read."""
    return ApplianceError(
        "unsupported_type",
        f"{what} cannot be read",
        hint=hint or "upload PDF, DOCX, XLSX, PPTX, HTML, Markdown, CSV or plain text",
    )
