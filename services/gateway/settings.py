"""Settings of the gateway, prefix ``APPLIANCE_GATEWAY_``: limits on what a caller may send and how much at once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config

MIB = 1024 * 1024


class GatewaySettings(ServiceSettings):
    """Sizes are bytes unless the name says otherwise.

    Attributes:
        upload_folder: where uploads wait while they arrive; best on the file system of the documents.
        max_chat_characters: of all messages of one chat request together (``context_length_exceeded`` above it).
        max_chats_at_once, max_chats_per_principal: chat turns in flight before new ones are shed (503) or refused (429).
        *_rate_factor: limit of an endpoint class as a multiple of the principal's ``requests_per_minute``.
        max_searches_*: ``/v1/embeddings`` and ``/v1/rerank`` in flight, together.
        max_waits_*: answers that wait (``/wait``, ``/claim``). max_feeds_*: readers of events, over HTTP and sockets together.
        logins_per_minute: sign-ins, refreshes and sign-outs by client address.
        max_turn_seconds: the longest that one answer may take, however slowly its reader reads.
    """

    model_config = service_config("GATEWAY")

    upload_folder: Path | None = None
    max_json_bytes: int = Field(default=4 * MIB, gt=0)
    max_upload_bytes: int = Field(default=64 * MIB, gt=0)  # what the parsers accept
    max_upload_files: int = Field(default=64, gt=0)
    max_upload_request_bytes: int = Field(default=1024 * MIB, gt=0)
    max_uploads_at_once: int = Field(default=16, gt=0)
    max_uploads_per_principal: int = Field(default=4, gt=0)
    max_chat_messages: int = Field(default=1024, gt=0)
    max_chat_characters: int = Field(default=1_000_000, gt=0)
    max_chats_at_once: int = Field(default=4096, gt=0)
    max_chats_per_principal: int = Field(default=64, gt=0)
    chat_rate_factor: float = Field(default=1.0, gt=0)
    search_rate_factor: float = Field(default=2.0, gt=0)
    upload_rate_factor: float = Field(default=1.0, gt=0)
    api_rate_factor: float = Field(default=4.0, gt=0)
    work_rate_factor: float = Field(default=20.0, gt=0)  # claims and reports of executors
    logins_per_minute: int = Field(default=60, gt=0)
    max_turn_seconds: float = Field(default=900.0, gt=0)
    send_timeout_seconds: float = Field(default=30.0, gt=0)
    websocket_auth_seconds: float = Field(default=10.0, gt=0)
    websocket_ping_seconds: float = Field(default=20.0, gt=0)
    max_websocket_message_bytes: int = Field(default=1 * MIB, gt=0)
    max_websockets: int = Field(default=16_384, gt=0)
    max_searches_at_once: int = Field(default=256, gt=0)
    max_searches_per_principal: int = Field(default=32, gt=0)
    max_waits_at_once: int = Field(default=4096, gt=0)
    max_waits_per_principal: int = Field(default=128, gt=0)
    max_feeds_at_once: int = Field(default=1024, gt=0)
    max_feeds_per_principal: int = Field(default=16, gt=0)
    usage_flush_seconds: float = Field(default=2.0, gt=0)
    readiness_timeout_seconds: float = Field(default=5.0, gt=0)
