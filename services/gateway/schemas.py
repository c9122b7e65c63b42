"""Bodies of the REST surface as pydantic models: the edge where foreign data is checked and the OpenAPI document comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from appliance.contracts.retrieval.v1.documents import Document, DocumentStatus


def _storable(text: str) -> str:
    """Refuse what no database stores: half characters and NUL."""
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise ValueError("must be valid Unicode text") from exc
    return text


Text = Annotated[str, AfterValidator(_storable)]
ShortText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
SpaceName = Annotated[str, Field(min_length=1, max_length=63, examples=["legal"]), AfterValidator(_storable)]
RoleName = Literal["reader", "editor", "owner"]


class Body(BaseModel):
    """Base of request bodies: unknown fields are tolerated, values are not coerced."""

    model_config = ConfigDict(frozen=True, strict=True)


class Answer(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(frozen=True)


class ErrorDetail(Answer):
    message: str = Field(examples=["document not found"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(default=None, examples=[None])
    code: str = Field(examples=["not_found"])
    hint: str = Field(default="", examples=["check the name, or ask its owner for access"])


class Error(Answer):
    """Every error has this shape."""

    error: ErrorDetail


class Login(Body):
    username: ShortText = Field(examples=["anna"])
    password: SecretStr = Field(max_length=1024, examples=["correct horse battery staple"])


class RefreshToken(Body):
    refresh_token: Annotated[str, Field(min_length=1, max_length=4096, examples=["rt_5f3c…"]), AfterValidator(_storable)]


class TokenAnswer(Answer):
    access_token: str = Field(examples=["eyJhbGciOiJFZERTQSJ9.e30.c2ln"])
    refresh_token: str = Field(examples=["rt_5f3c…"])
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = Field(description="seconds", examples=[900])


class Me(Answer):
    subject: str = Field(examples=["user:anna"])
    kind: str = Field(examples=["user"])
    roles: list[str] = Field(examples=[["member"]])
    spaces: dict[str, str] = Field(examples=[{"legal": "reader"}])


class NewSpace(Body):
    name: SpaceName
    title: Annotated[str, Field(max_length=200), AfterValidator(_storable)] | None = Field(default=None, examples=["Legal department"])


class SpaceAnswer(Answer):
    name: str
    title: str
    role: str
    documents: int


class SpaceList(Answer):
    data: list[SpaceAnswer]


class MemberAnswer(Answer):
    subject: str
    role: str


class MemberList(Answer):
    data: list[MemberAnswer]


class Role(Body):
    role: RoleName


class Warning_(Answer):  # noqa: N801 - Warning is a builtin
    page: int | None
    code: str
    message: str


class Failure(Answer):
    code: str
    message: str
    hint: str


class DocumentAnswer(Answer):
    """A document; ``ready`` means that search finds it."""

    id: str
    name: str = Field(examples=["supply-contract.pdf"])
    space: str = Field(examples=["legal"])
    media_type: str = Field(examples=["application/pdf"])
    size_bytes: int
    sha256: str
    version: int
    status: DocumentStatus
    pages: int | None
    chunks: int
    embedded_chunks: int
    warnings: list[Warning_]
    error: Failure | None
    language: str | None
    created_at: float = Field(description="seconds since the epoch, UTC")
    updated_at: float


class DocumentList(Answer):
    data: list[DocumentAnswer]
    has_more: bool


class UploadOutcome(Answer):
    name: str
    document: DocumentAnswer | None
    outcome: Literal["created", "replaced", "unchanged", "refused"]
    error: ErrorDetail | None


class UploadList(Answer):
    data: list[UploadOutcome]


class PageAnswer(Answer):
    page: int
    start: int
    end: int


class TextAnswer(Answer):
    document: DocumentAnswer
    text: str
    start: int
    end: int
    length: int
    pages: list[PageAnswer]


class SearchBody(Body):
    query: Annotated[str, Field(min_length=1, max_length=10_000, examples=["When does the supply contract end?"]), AfterValidator(_storable)]
    spaces: Annotated[list[SpaceName], Field(max_length=1000)] | None = None
    top_k: int = Field(default=5, ge=1, le=50)
    document_ids: Annotated[list[ShortText], Field(max_length=1000)] | None = None
    filters: dict[Literal["media_type", "name", "language", "tag"], ShortText] = Field(default_factory=dict, examples=[{"language": "en"}])
    rerank: bool | None = None


class Hit(Answer):
    document_id: str
    document_name: str
    space: str
    version: int
    page: int | None
    heading_path: list[str]
    start: int
    end: int
    text: str
    score: float
    legs: dict[str, float]


class SearchAnswer(Answer):
    data: list[Hit]
    language: str
    timings_ms: dict[str, float]
    degraded: list[str] = []


class NewThread(Body):
    title: Annotated[str, Field(max_length=200), AfterValidator(_storable)] | None = Field(default=None, examples=["Supply contract"])
    spaces: Annotated[list[SpaceName], Field(max_length=1000)] | None = None


class Title(Body):
    title: ShortText


class ThreadAnswer(Answer):
    id: str
    title: str
    spaces: list[str] | None
    created_at: float
    updated_at: float


class ThreadList(Answer):
    data: list[ThreadAnswer]


class Cited(Answer):
    index: int
    document_id: str
    filename: str
    space: str
    version: int
    page: int | None
    heading_path: list[str]
    start: int
    end: int
    quote: str


class MessageAnswer(Answer):
    id: str
    role: str
    content: str
    citations: list[Cited]
    withheld: bool = Field(default=False, description="the content cites a space that the caller may no longer read, and is left out")
    model: str | None
    created_at: float


class WholeThread(ThreadAnswer):
    messages: list[MessageAnswer]


class UsageGroup(Answer):
    key: str = Field(description="day, account, space, thread, task or model; empty = none, `*` = several spaces", examples=["2026-01-31"])
    day: str | None = Field(default=None, description="the same as `key`, when grouped by day", examples=["2026-01-31"])
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="of prompt_tokens, those that the engine had cached")
    saved_tokens: int = Field(description="tokens of answers that came from the box's cache; they were not spent")
    cache_hits: int
    tool_calls: int
    cost: float = Field(description="in the currency of the prices in models.toml")


class UsageList(Answer):
    by: str = "day"
    since: str = Field(examples=["2026-01-01"])
    until: str = Field(examples=["2026-01-31"])
    data: list[UsageGroup]


class CheckAnswer(Answer):
    ok: bool
    detail: str
    seconds: float


class Ready(Answer):
    status: Literal["ready", "not_ready"]
    checks: dict[str, CheckAnswer]


def document_answer(document: Document) -> DocumentAnswer:
    """A document as the API shows it."""
    error = document.error
    return DocumentAnswer(
        **{name: getattr(document, name) for name in _COPIED},
        warnings=[Warning_(page=warning.page, code=warning.code, message=warning.message) for warning in document.warnings],
        error=Failure(code=error.code, message=error.message, hint=error.hint) if error else None,
    )


_COPIED = tuple(name for name in DocumentAnswer.model_fields if name not in {"warnings", "error"})
