"""The few words of OOXML that the Office parsers share: namespaced look-ups in lxml elements."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing import failures

W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
MC: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"


def children(element: Any, name: str) -> Iterator[Any]:
    """Direct ``w:name`` children."""
    found: Iterator[Any] = element.iterchildren(f"{W}{name}")
    return found


def first(element: Any, *names: str) -> Any | None:
    """First element at the path of ``w:`` names below ``element``; None when absent."""
    return element.find("/".join(f"{W}{name}" for name in names))


def attribute(element: Any, name: str) -> str | None:
    """Value of the ``w:name`` attribute."""
    value: str | None = element.get(f"{W}{name}")
    return value


def is_on(properties: Any | None, name: str) -> bool:
    """Whether an on/off property such as ``w:vanish`` is set."""
    if properties is None:
        return False
    found = first(properties, name)
    return found is not None and attribute(found, "val") not in {"0", "false", "off"}


@contextmanager
def office_errors() -> Iterator[None]:
    """Translate whatever an Office library raises on a damaged file into ``document_corrupt``."""
    try:
        yield
    except (ApplianceError, MemoryError, RecursionError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise failures.corrupt("its ZIP container cannot be unpacked") from error
    except Exception as error:
        raise failures.corrupt(f"its XML is not what Office expects ({type(error).__name__})") from error
