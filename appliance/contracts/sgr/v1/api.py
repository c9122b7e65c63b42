"""Schema-guided answers, version 1: data that satisfies a JSON Schema, and documents made from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.router.v1.api import CitationEvent
from appliance.identity.principal import Principal

OutputFormat = Literal["json", "markdown", "docx", "pptx"]


@dataclass(frozen=True, slots=True)
class FormatRequest:
    """What to make.

    Attributes:
        prompt: what is wanted, in words; or the draft's subject when there is a draft.
        draft: text to bring into form; "" = write it (or fill it from sources).
        schema: JSON Schema of the data; None = the one of ``template``.
        template: name of a template (``report``); "" = none, then ``output`` is json or markdown.
        output: form of the result.
        language: ``ru``, ``en`` or ``other`` (the prompt's) for words that the template adds.
        spaces: where to look for sources; None = every readable space; () = no sources.
        document_ids: only these documents; None = any.
        model: alias in models.toml.
        thread_id: where the artefact is linked; "" = a new thread of the caller for artefacts, none for json and markdown.
        trace_id: correlation id.
    """

    prompt: str
    draft: str = ""
    schema: Mapping[str, object] | None = None
    template: str = ""
    output: OutputFormat = "json"
    language: str = "en"
    spaces: tuple[str, ...] | None = None
    document_ids: tuple[str, ...] | None = None
    model: str = "default"
    thread_id: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that was made: stored as a blob, linked in a thread, readable by who may read the thread.

    ``withheld``: it tells what a space holds that its reader has lost; then name, size and digest are blank.
    """

    id: str
    name: str
    media_type: str
    size_bytes: int
    digest: str
    thread_id: str
    created_at: float
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class FormatStep:
    """Progress, for people: ``search``, ``fit`` (sources left, the model's context being small), ``generate``, ``validate``, ``repair``, ``render``."""

    name: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FormatResult:
    """What came out.

    Attributes:
        data: satisfies the schema; validated.
        text: the data as canonical JSON, or as Markdown.
        artefact: for docx and pptx.
        citations: sources that the data rests on.
        rounds: generations it took (1 = no repair).
        enforced_by: ``grammar`` (every token), ``repair`` (validated afterwards), ``quoting`` (the reader).
        usage: of all rounds.
        model: who wrote it.
        unenforced: schema keywords that the grammar could not enforce and validation did.
        unasked: validators of the schema that were down and, by this site's setting, passed over.
    """

    data: object
    text: str
    artefact: Artefact | None
    citations: Sequence[CitationEvent]
    rounds: int
    enforced_by: Literal["grammar", "repair", "quoting"]
    usage: Usage
    model: str
    unenforced: Sequence[str] = ()
    unasked: Sequence[str] = ()


class SchemaGuided(Protocol):
    """``sgr.format``."""

    def format(self, request: FormatRequest, principal: Principal) -> AsyncGenerator[FormatStep | FormatResult, None]:
        """Steps, then exactly one result.

        Raises ApplianceError: ``schema_invalid``, ``schema_unsupported`` (names the keywords, before anything is generated), ``schema_unsatisfied``
        (N rounds were not enough; carries the last errors), ``not_found`` (template, space, thread), ``template_invalid``, and what models raise.
        """
        ...


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """A template as people see it.

    Attributes:
        titles: language → title.
        output: ``docx`` or ``pptx``.
        languages: it has words of its own in these.
        schemas: language → JSON Schema of its data.
        builtin: part of the release; cannot be removed.
        digest: changes when it is replaced.
    """

    name: str
    titles: Mapping[str, str]
    output: OutputFormat
    languages: Sequence[str]
    schemas: Mapping[str, Mapping[str, object]]
    builtin: bool
    digest: str


class Templates(Protocol):
    """Templates of the box. Everyone may look; administrators add and remove, on record."""

    async def list(self, principal: Principal) -> Sequence[TemplateInfo]:
        """All, by name."""
        ...

    async def describe(self, name: str, principal: Principal) -> TemplateInfo:
        """One; raises ``not_found``."""
        ...

    async def check(
        self, file: Path, name: str, schema: Mapping[str, object] | None, principal: Principal, language: str = "", title: str = ""
    ) -> TemplateInfo:
        """What :meth:`add` would make of the file, without adding it."""
        ...

    async def add(
        self, file: Path, name: str, schema: Mapping[str, object] | None, principal: Principal, language: str = "", title: str = ""
    ) -> TemplateInfo:
        """Check and keep; replaces the site's template of that name. ``language`` "" = the words in it do for every language.

        Raises:
            ApplianceError: ``forbidden``; ``template_invalid`` with the place; ``schema_invalid``; ``too_large``; ``invalid_request`` for a bad name.
        """
        ...

    async def remove(self, name: str, principal: Principal) -> None:
        """Remove the site's; one of the release with that name is seen again. Raises ``forbidden``, ``not_found``, ``conflict`` (of the release)."""
        ...


class Artefacts(Protocol):
    """Files that were made for a caller. Foreign ones do not exist."""

    async def list(self, principal: Principal, thread_id: str | None = None, limit: int = 100) -> Sequence[Artefact]:
        """Newest first; ``withheld`` where the caller has lost a space that it tells about."""
        ...

    async def get(self, artefact_id: str, principal: Principal) -> Artefact:
        """Raises ``not_found``."""
        ...

    async def open(self, artefact_id: str, principal: Principal) -> tuple[Artefact, Path]:
        """It, and the file with its bytes; raises ``not_found``, also when it is withheld."""
        ...

    async def delete(self, artefact_id: str, principal: Principal) -> None:
        """Raises ``not_found``."""
        ...

    async def forget_thread(self, thread_id: str, principal: Principal) -> int:
        """The thread goes: remove what the caller made in it; how many."""
        ...
