"""Bodies of the OpenAI-shaped endpoints off the hot path, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from appliance.contracts.retrieval.v1.documents import Document
from services.gateway.domain import ModelCard
from services.gateway.schemas import Answer, Body, ShortText, Text

MAX_INPUTS = 2048
_MAX_TEXT = 200_000


def _short_enough(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"longer than {_MAX_TEXT} characters")
    return text


InputText = Annotated[Text, AfterValidator(_short_enough)]


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
    input: InputText | Annotated[list[InputText], Field(min_length=1, max_length=MAX_INPUTS)] = Field(examples=["the quick brown fox"])
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


class RerankBody(Body):
    query: Annotated[InputText, Field(min_length=1, examples=["When does the contract end?"])]
    documents: Annotated[list[InputText], Field(min_length=1, max_length=1000, examples=[["It ends in May.", "Apples are red."]])]
    model: ShortText | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


class Reranked(Answer):
    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankAnswer(Answer):
    model: str
    results: list[Reranked]
    usage: TokenCount


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
