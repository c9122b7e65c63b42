"""Settings of the caches, prefix ``APPLIANCE_CACHE_``, and the store that they describe. Without a Redis everything stays in the process."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.kit.cache import CacheStore, MemoryCacheStore
from appliance.kit.redis_cache_store import RedisCacheStore, RedisPlace
from appliance.kit.settings import ServiceSettings, service_config


class CacheSettings(ServiceSettings):
    """How much is kept, for how long, and where."""

    model_config = service_config("CACHE")

    answers: bool = Field(default=True, description="keep answers of language models")
    answer_ttl_seconds: float = Field(default=3600, gt=0, le=30 * 86_400)
    answer_max_bytes: int = Field(default=256 * 1024, ge=1024, le=1024 * 1024, description="longer answers are not kept")
    answer_wait_seconds: float = Field(
        default=10, ge=0, le=600, description="how long a turn waits for the same turn of somebody else; 0 = not at all"
    )
    answer_sampled: bool = Field(
        default=False, description="also keep answers to requests without temperature 0: the second caller gets the first one's sample"
    )
    semantic: bool = Field(
        default=False,
        description="also give the answer to a question that is worded otherwise; see bench/semantic_cache.py for how often that is wrong",
    )
    semantic_threshold: float = Field(default=0.97, ge=0.5, le=1.0, description="least cosine of the questions")
    semantic_entries: int = Field(default=2000, ge=1, le=100_000)
    memory_entries: int = Field(default=10_000, ge=1, le=1_000_000)
    memory_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    redis_host: str = Field(default="", description="empty = no shared cache")
    redis_port: int = Field(default=6379, ge=1, le=65_535)
    redis_database: int = Field(default=0, ge=0, le=1023)
    redis_username: str = ""
    redis_password_file: Path | None = None
    redis_tls: bool = False
    redis_ca_file: Path | None = None
    redis_prefix: str = Field(default="appliance:", min_length=1, max_length=64, description="one per site")
    redis_timeout_ms: float = Field(default=50, gt=0, le=5000)


def memory_store(settings: CacheSettings) -> MemoryCacheStore:
    """The cache of this process."""
    return MemoryCacheStore(entries=settings.memory_entries, size_bytes=settings.memory_bytes)


def shared_store(settings: CacheSettings) -> CacheStore | None:
    """The cache that replicas share, None without one; close it at the end.

    Raises:
        ApplianceError: ``settings_invalid`` for a password file that cannot be read.
    """
    if not settings.redis_host:
        return None
    place = RedisPlace(
        settings.redis_host, settings.redis_port, settings.redis_database, settings.redis_username, settings.redis_password_file,
        settings.redis_tls, settings.redis_ca_file, settings.redis_prefix,
    )  # fmt: skip
    return RedisCacheStore(place, timeout_seconds=settings.redis_timeout_ms / 1000)
