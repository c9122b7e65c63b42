"""Bodies of the OpenAI-shaped endpoints off the hot path, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from appliance.contracts.retrieval.v1.documents import Document
from services.gateway.domain import ModelCard
from services.gateway.schemas import Answer, Body, ShortText, Text

MAX_INPUTS = 2048
MAX_TOKEN_IDS = 100_000
_MAX_TEXT = 200_000


def _short_enough(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"longer than {_MAX_TEXT} characters")
    return text


InputText = Annotated[Text, AfterValidator(_short_enough)]


TokenIds = Annotated[list[int], Field(max_length=MAX_TOKEN_IDS)]
Inputs = Annotated[list[InputText] | list[int] | list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]


class ModelAnswer(Answer):
    id: str = Field(examples=["default"])
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    kind: str = Field(description="chat, embed or rerank", examples=["chat"])
    max_context: int | None = None


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class EmbeddingsBody(Body):
    model: ShortText = Field(examples=["embedding"])
    input: InputText | Inputs = Field(
        examples=["the quick brown fox"], description="One text or many. Token ids are refused: they belong to another tokenizer."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


class Embedding(Answer):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokenCount(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: TokenCount


class RerankDocument(Body):
    """A document as an object; other fields than ``text`` are not looked at."""

    text: InputText


class RerankBody(Body):
    query: Annotated[InputText, Field(min_length=1, examples=["When does the contract end?"])]
    documents: Annotated[list[InputText | RerankDocument], Field(min_length=1, max_length=1000, examples=[["It ends in May.", "Apples are red."]])]
    model: ShortText | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


class Reranked(Answer):
    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class ApiVersion(Answer):
    version: str


class BilledUnits(Answer):
    search_units: int


class RerankMeta(Answer):
    """What Cohere's clients read; nothing is billed here."""

    api_version: ApiVersion
    billed_units: BilledUnits


class RerankAnswer(Answer):
    """Cohere's ``id``, ``results`` and ``meta`` with Jina's ``model`` and ``usage``."""

    id: str
    model: str
    results: list[Reranked]
    usage: TokenCount
    meta: RerankMeta


class FileAnswer(Answer):
    """An OpenAI file; the same thing as a document of ours."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["assistants"] = "assistants"
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None
    space: str


class FileList(Answer):
    object: Literal["list"] = "list"
    data: list[FileAnswer]
    has_more: bool = False


class Deleted(Answer):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_answer(document: Document) -> FileAnswer:
    """A document in OpenAI's words."""
    status: Literal["uploaded", "processed", "error"] = (
        "processed" if document.status == "ready" else "error" if document.status == "failed" else "uploaded"
    )
    return FileAnswer(
        id=document.id,
        bytes=document.size_bytes,
        created_at=int(document.created_at),
        filename=document.name,
        status=status,
        status_details=document.error.message if document.error else None,
        space=document.space,
    )


def model_answer(card: ModelCard) -> ModelAnswer:
    """A model card in OpenAI's words."""
    return ModelAnswer(id=card.alias, created=card.created_at, owned_by=card.owned_by, kind=card.kind, max_context=card.max_context)
