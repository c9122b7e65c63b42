"""What schema-guided answers need around them: templates by name, documents from data, a place for the files. Values and ports, no technology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from appliance.contracts.router.v1.api import CitationEvent
from appliance.contracts.sgr.v1.api import Artefact, OutputFormat


@dataclass(frozen=True, slots=True)
class Template:
    """A corporate document with places to fill.

    Attributes:
        name: what callers say, ``report``.
        titles: language → title for people.
        output: ``docx`` or ``pptx``.
        schemas: language → JSON Schema of the data; the same structure in each, titles and descriptions in the language.
        languages: it has words of its own in these.
        hints: language → what a model should know when it fills the data.
        builtin: part of the release, not of the site.
        digest: of all its files; changes when it is replaced.
    """

    name: str
    titles: Mapping[str, str]
    output: OutputFormat
    schemas: Mapping[str, Mapping[str, Any]]
    languages: tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict)
    builtin: bool = False
    digest: str = ""

    def language(self, wanted: str) -> str:
        """``wanted`` when the template speaks it, else its first language (English before others)."""
        return wanted if wanted in self.languages else "en" if "en" in self.languages else self.languages[0]

    def schema_in(self, language: str) -> Mapping[str, Any]:
        """The schema with titles in ``language``."""
        return self.schemas[self.language(language)]

    @property
    def schema(self) -> Mapping[str, Any]:
        """The schema, in the template's first choice of language."""
        return self.schema_in("en")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document in memory; ``name`` is a safe file name."""

    content: bytes
    name: str
    media_type: str


class TemplateCatalogue(Protocol):
    """Templates of the release and of the site; a site's replaces the release's of the same name. Reads small files; seen at once when changed."""

    def names(self) -> Sequence[str]:
        """All names, sorted."""
        ...

    def get(self, name: str) -> Template:
        """Raises ``not_found``; ``template_invalid`` when its files were damaged on the disk."""
        ...


class Renderer(Protocol):
    """Documents from data that satisfies the template's schema."""

    def render(self, template: Template, data: object, language: str, citations: Sequence[CitationEvent]) -> Rendered:
        """The document. Synchronous and CPU-bound (≤ 1 s for 200 sections): the caller runs it in a thread.

        Raises:
            ApplianceError: ``template_invalid`` names the field that the data lack, or the place; ``too_large``; ``not_found``.
        """
        ...


class ArtefactStore(Protocol):
    """Files that were made, by owner: a foreign artefact does not exist."""

    async def put(
        self, owner: str, thread_id: str, rendered: Rendered, citations: Sequence[CitationEvent], read: frozenset[str] = frozenset()
    ) -> Artefact:
        """Keep it, durably; ``read``: spaces it was made from, besides those that it cites. Raises ``quota_exceeded``, ``disk_full``."""
        ...

    async def get(self, owner: str, artefact_id: str) -> tuple[Artefact, frozenset[str]]:
        """It, and the spaces that it says something about. Raises ``not_found``."""
        ...

    async def list(self, owner: str, thread_id: str | None, limit: int) -> Sequence[tuple[Artefact, frozenset[str]]]:
        """Newest first."""
        ...

    async def open(self, owner: str, artefact_id: str) -> tuple[Artefact, Path]:
        """It, and the file with its bytes. Raises ``not_found``."""
        ...

    async def delete(self, owner: str, artefact_id: str) -> None:
        """Raises ``not_found``."""
        ...

    async def forget_thread(self, owner: str, thread_id: str) -> int:
        """Remove what ``owner`` made in the thread; how many."""
        ...
