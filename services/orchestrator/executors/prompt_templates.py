"""Prompt templates: files ``templates/<name>-v<N>.toml``, a system and a user text per language, ``{placeholders}`` that are filled strictly.

A version is never changed once it was released: what a task was told is known from the template's name in its metrics. Owns loading, choosing and
filling. Values are put in as they are and are not looked into again: a placeholder within a value stays text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.kit.errors import ApplianceError

FOLDER: Final = Path(__file__).with_name("templates")
LANGUAGES: Final = ("en", "ru")
_FILE: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]*)-v(?P<version>[1-9][0-9]{0,3})\.toml")
_PLACE: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One file. ``texts``: language → (system, user)."""

    name: str
    version: int
    texts: Mapping[str, tuple[str, str]]

    @property
    def id(self) -> str:
        """``<name>-v<N>``, as the metrics of a task tell it."""
        return f"{self.name}-v{self.version}"

    def render(self, language: str, values: Mapping[str, str]) -> tuple[str, str]:
        """System and user text in ``language`` (``en`` when there is no such).

        Raises:
            KeyError: a placeholder without a value.
        """
        system, user = self.texts.get(language, self.texts["en"])
        return _filled(system, values), _filled(user, values)


class PromptTemplates:
    """The newest version of each template of a folder, and older ones by their number."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._all = {(one.name, one.version): one for one in map(_read, sorted(folder.glob("*.toml")))}
        self._newest: dict[str, PromptTemplate] = {}
        for (name, _), template in sorted(self._all.items()):
            self._newest[name] = template

    def get(self, name: str, version: int | None = None) -> PromptTemplate | None:
        """The newest, or that version; None when there is none."""
        return self._newest.get(name) if version is None else self._all.get((name, version))

    def of_type(self, task_type: str) -> PromptTemplate:
        """That of a task type; ``task`` when it has none of its own."""
        return self._newest.get(task_type) or self._newest["task"]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place[1]], text).strip()


def _read(path: Path) -> PromptTemplate:
    named = _FILE.fullmatch(path.name)
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        texts = {language: (str(content[language]["system"]), str(content[language]["user"])) for language in LANGUAGES}
        if named is None or content["name"] != named["name"] or content["version"] != int(named["version"]):
            raise ValueError("name and version are not those of the file")
        if len({frozenset(_PLACE.findall("".join(pair))) for pair in texts.values()}) != 1:
            raise ValueError("the languages have different placeholders")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ApplianceError(
            "settings_invalid", f"the prompt template {path.name} cannot be used: {error}", hint="see the others beside it"
        ) from error
    return PromptTemplate(content["name"], content["version"], texts)
