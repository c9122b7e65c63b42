"""Structured logs: one JSON object per line with a correlation id, rotated by size, bounded on disk.

Owns: structlog configuration and the correlation id. Writes to stderr, and to ``<folder>/box.jsonl`` when given a folder.
Secrets never reach a log: values under names that look like secrets are masked here, whatever the caller passed.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import orjson

_UNUSED: Final = tuple(name for name in ("rich", "greenlet", "better_exceptions") if name not in sys.modules)
sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]  # None = "not installed": structlog loads them for a console we do not have, 0.1 s
import structlog  # noqa: E402

for _name in _UNUSED:
    sys.modules.pop(_name, None)

correlation_id: Final[ContextVar[str]] = ContextVar("correlation_id", default="")
_SECRET_WORDS: Final = ("password", "secret", "token", "api_key", "authorization", "bearer")
_COUNTS: Final = ("_tokens", "tokens")
_ROTATE_BYTES: Final = 100 * 1024 * 1024  # OBS-4: 100 MB
_ROTATE_COPIES: Final = 7


def _add_correlation_id(_logger: object, _name: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    current = correlation_id.get()
    if current:
        event.setdefault("correlation_id", current)
    return event


def _mask_secrets(_logger: object, _name: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    for key in event:
        lower = key.lower()
        if any(word in lower for word in _SECRET_WORDS) and not lower.endswith(_COUNTS):
            event[key] = "***"
    return event


def _to_json(_logger: object, _name: str, event: MutableMapping[str, object]) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(*, level: str = "INFO", folder: Path | None = None, stderr: bool = True) -> None:
    """Set up structlog and the standard library's root logger to print the same JSON lines. Call once per process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_correlation_id,
        _mask_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _to_json,
        ],
    )
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if stderr else []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                folder / "box.jsonl", maxBytes=_ROTATE_BYTES, backupCount=_ROTATE_COPIES, encoding="utf-8"
            )
        )
    for handler in handlers:
        handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level)
    for noisy in ("uvicorn.access", "aiosqlite", "asyncio", "fontTools", "pdfminer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger for the module called ``name``: an event name and key-value pairs per call."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
