"""Bodies of the routes of reports, artefacts and templates as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from appliance.contracts.sgr.v1.api import Artefact, FormatResult, TemplateInfo
from services.gateway.annotations import flat_citation
from services.gateway.schemas import Answer, Body, Cited, ShortText, SpaceName, Text, _storable

Prompt = Annotated[str, Field(min_length=1, max_length=200_000), AfterValidator(_storable)]
Draft = Annotated[str, Field(max_length=1_000_000), AfterValidator(_storable)]
TemplateName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", examples=["report"])]
Language = Literal["ru", "en", "other"]
Output = Literal["json", "markdown", "docx", "pptx"]


class ReportBody(Body):
    prompt: Prompt = Field(examples=["Obligations under the supply contract, with dates"])
    template: TemplateName = "report"
    draft: Draft = Field(default="", description="text to bring into form, instead of writing it")
    spaces: Annotated[list[SpaceName], Field(max_length=1000)] | None = Field(default=None, examples=[["legal"]])
    document_ids: Annotated[list[ShortText], Field(max_length=1000)] | None = None
    output: Output | None = Field(default=None, description="the template's own form when absent; json and markdown give its data")
    language: Language = "en"
    model: ShortText = "default"
    thread_id: Annotated[str, Field(max_length=40), AfterValidator(_storable)] = Field(default="", description='a thread of yours; "" makes one')


class FormatBody(Body):
    prompt: Prompt = Field(examples=["The parties of the contract"])
    json_schema: dict[str, Any] = Field(alias="schema", examples=[{"type": "object", "properties": {"buyer": {"type": "string"}}, "required": ["buyer"]}])
    draft: Draft = ""
    spaces: Annotated[list[SpaceName], Field(max_length=1000)] | None = None
    document_ids: Annotated[list[ShortText], Field(max_length=1000)] | None = None
    output: Literal["json", "markdown"] = "json"
    language: Language = "en"
    model: ShortText = "default"


class ArtefactAnswer(Answer):
    id: str = Field(examples=["af_5f3c"])
    name: str = Field(examples=["Obligations.docx"])
    media_type: str
    size_bytes: int
    digest: str = Field(description="SHA-256 of the bytes")
    thread_id: str
    created_at: float
    withheld: bool = Field(default=False, description="it cites a space that the caller may no longer read; name, size and digest are blank")


class ArtefactList(Answer):
    data: list[ArtefactAnswer]


class TokensUsed(Answer):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class FormatAnswer(Answer):
    data: Any = Field(description="satisfies the schema")
    text: str = Field(description="the data as JSON or Markdown")
    artefact: ArtefactAnswer | None
    citations: list[Cited]
    rounds: int
    enforced_by: Literal["grammar", "repair", "quoting"]
    unenforced: list[str]
    model: str
    usage: TokensUsed
    thread_id: str = Field(description='where it is linked; "" = nowhere')


class TemplateAnswer(Answer):
    name: str = Field(examples=["report"])
    titles: dict[str, Text]
    output: Output
    languages: list[str]
    builtin: bool
    digest: str


class TemplateList(Answer):
    data: list[TemplateAnswer]


class WholeTemplate(TemplateAnswer):
    schemas: dict[str, dict[str, Any]] = Field(description="JSON Schema of the data, by language")


def artefact_answer(one: Artefact) -> ArtefactAnswer:
    """An artefact on the wire."""
    return ArtefactAnswer(
        id=one.id, name=one.name, media_type=one.media_type, size_bytes=one.size_bytes, digest=one.digest, thread_id=one.thread_id,
        created_at=one.created_at, withheld=one.withheld,
    )  # fmt: skip


def format_answer(result: FormatResult, thread_id: str) -> FormatAnswer:
    """A result on the wire."""
    cited = [Cited.model_validate(flat_citation(one) | {"heading_path": list(one.heading_path)}) for one in result.citations]
    usage = TokensUsed(
        prompt_tokens=result.usage.prompt_tokens, completion_tokens=result.usage.completion_tokens, cached_tokens=result.usage.cached_tokens
    )
    return FormatAnswer(
        data=result.data, text=result.text, artefact=None if result.artefact is None else artefact_answer(result.artefact), citations=cited,
        rounds=result.rounds, enforced_by=result.enforced_by, unenforced=list(result.unenforced), model=result.model, usage=usage, thread_id=thread_id,
    )  # fmt: skip


def template_answer(one: TemplateInfo) -> TemplateAnswer:
    """A template in a list."""
    return TemplateAnswer(
        name=one.name, titles=dict(one.titles), output=one.output, languages=list(one.languages), builtin=one.builtin, digest=one.digest
    )


def whole_template(one: TemplateInfo) -> WholeTemplate:
    """A template with its schemas."""
    return WholeTemplate(**template_answer(one).model_dump(), schemas={name: dict(schema) for name, schema in one.schemas.items()})
