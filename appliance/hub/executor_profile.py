"""What was measured of a chat model, and what follows for whoever gives it tasks. One file a model: ``$APPLIANCE_HOME/models/profiles/<kind>.<alias>.json``.

Owns: the file (schema version 1, written in one rename), and when it holds: for exactly the version of the model that was measured. Does not own: the
measuring (``appliance.model_bench``).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import PerformanceProfile
from appliance.hub.model_spec import Kind, ModelSpec
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
FOLDER: Final = "profiles"
TASK_TOKENS: Final = 500
"""Tokens of a typical task's prompt, and of its answer: what latency, throughput and cost of a task are worked out for."""
_MOST_BYTES: Final = 1_000_000
_LOOK_SECONDS: Final = 1.0
_SECONDS_UNKNOWN: Final = 0.0


class StreamsMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """So many answers at once. Tokens by the model's own count, per second of wall time over all of them; seconds until the first token."""

    streams: int
    tokens_per_second: float
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    failed: int = 0


class ShareMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """So many of the cases went well. ``unsupported``: why the model was not asked at all ("" = it was)."""

    passed: int
    cases: int
    unsupported: str = ""

    @property
    def share(self) -> float:
        """0–1."""
        return self.passed / self.cases if self.cases else 0.0


class NeedleMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A fact hidden in a text: ``tokens`` long by the model's count, at ``depth`` (0 = begin, 1 = end). ``code``: why there was no answer."""

    tokens: int
    depth: float
    found: bool
    code: str = ""


class ExecutorProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. ``version`` is :func:`version_of` the model's entry; times in seconds, prices in the currency of models.toml."""

    kind: str
    alias: str
    version: str
    measured_at: str
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    streams: tuple[StreamsMeasured, ...]
    json: ShareMeasured
    tools: ShareMeasured
    needle: tuple[NeedleMeasured, ...]
    max_context: int = 0
    cost_per_task: float = 0.0
    quick: bool = False
    machine: str = ""
    release: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def effective_context(self) -> int:
        """Tokens of the longest text in which the fact was found at every depth; 0 = in none."""
        lengths = {one.tokens for one in self.needle}
        return max((length for length in lengths if all(one.found for one in self.needle if one.tokens == length)), default=0)

    @property
    def performance(self) -> PerformanceProfile:
        """Of a task of :data:`TASK_TOKENS`: latency alone, throughput at the best load."""
        alone = next((one.tokens_per_second for one in self.streams if one.streams == 1), 0.0)
        best = max((one.tokens_per_second for one in self.streams), default=0.0)
        latency = self.ttft_p50_seconds + TASK_TOKENS / alone if alone > 0 else _SECONDS_UNKNOWN
        return PerformanceProfile(average_latency=round(latency, 3), throughput=round(best / TASK_TOKENS, 4), cost_per_task=self.cost_per_task)

    @property
    def summary(self) -> str:
        """One line for people."""
        best = max(self.streams, key=lambda one: one.tokens_per_second, default=None)
        rate = f"{best.tokens_per_second:.0f} tok/s at {best.streams}" if best is not None else "no tokens"
        shares = ", ".join(f"{name} {one.unsupported or f'{one.share:.0%}'}" for name, one in (("JSON", self.json), ("tools", self.tools)))
        return f"TTFT {self.ttft_p50_seconds * 1000:.0f} ms, {rate}, {shares}, needle to {self.effective_context}"


def version_of(spec: ModelSpec) -> str:
    """Which model exactly: by digest where the weights are ours, by name and place where somebody else serves them."""
    if spec.digest:
        return f"sha256:{spec.digest}"
    return f"{spec.model or spec.alias}@{spec.endpoint}" if spec.endpoint else spec.engine


def cost_per_task(spec: ModelSpec) -> float:
    """Of :data:`TASK_TOKENS` in and out, by the prices of models.toml."""
    return TASK_TOKENS * (spec.price_per_million_input + spec.price_per_million_output) / 1e6


def profile_file(models: Path, kind: Kind, alias: str) -> Path:
    """Where the profile of a model lies; aliases are names that models.toml has let in."""
    return models / FOLDER / f"{kind}.{alias}.json"


def write_profile(models: Path, profile: ExecutorProfile) -> Path:
    """Replace the profile in one step. Raises ``disk_full`` when it cannot be written."""
    file = models / FOLDER / f"{profile.kind}.{profile.alias}.json"
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".profile-", dir=file.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as exc:
        raise ApplianceError("disk_full", f"the profile cannot be written: {exc.strerror}", hint=f"see {file.parent}") from exc
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return file


def read_profile(models: Path, spec: ModelSpec) -> ExecutorProfile | None:
    """The profile of this very version; None when there is none, it is of another version, or it cannot be read."""
    try:
        with profile_file(models, spec.kind, spec.alias).open("rb") as stream:
            profile = msgspec.json.decode(stream.read(_MOST_BYTES), type=ExecutorProfile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    fits = profile.schema_version == SCHEMA_VERSION and (profile.kind, profile.alias, profile.version) == (spec.kind, spec.alias, version_of(spec))
    return profile if fits else None


class ProfileShelf:
    """Profiles for a running box: asked on every claim, so a file is looked at once a second at most, and read when it has changed.

    Args:
        models: folder of the hub.
        clock: seconds.
    """

    def __init__(self, models: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._models = models
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, tuple[int, int], ExecutorProfile | None]] = {}

    def of(self, spec: ModelSpec) -> ExecutorProfile | None:
        """See :func:`read_profile`."""
        key, now = (spec.alias, version_of(spec)), self._clock()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[2]
        state = _state(profile_file(self._models, spec.kind, spec.alias))
        profile = known[2] if known is not None and known[1] == state else read_profile(self._models, spec)
        if len(self._known) > 256:  # models.toml names a few
            self._known.clear()
        self._known[key] = (now + _LOOK_SECONDS, state, profile)
        return profile


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
