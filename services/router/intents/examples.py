"""Labelled examples: JSON lines ``{"text": …, "route": …}``; route ``out_of_scope`` marks what belongs to none. Owns reading and its bounds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.router.intents.routes_toml import OUT_OF_SCOPE

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_EXAMPLES: Final = 200_000
_LONGEST: Final = 4000


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line."""

    text: str
    route: str


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """What a file holds: each text once.

    Attributes:
        repeated: how many lines said again what an earlier one said.
    """

    examples: tuple[Example, ...]
    repeated: int = 0


def read_examples(file: Path, routes: Collection[str]) -> ExampleFile:
    """Read and check.

    Raises:
        ApplianceError: ``settings_invalid`` naming the line; ``not_found`` when there is no file; ``too_large``.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ApplianceError("too_large", f"{file} is larger than {MAX_FILE_BYTES} bytes", hint="fewer examples teach as well")
        lines = file.read_bytes().splitlines()
    except FileNotFoundError as exc:
        hint = 'one line for each example: {"text": "…", "route": "…"}'
        raise ApplianceError("not_found", f"there are no examples in {file}", hint=hint) from exc
    except OSError as exc:
        raise ApplianceError("settings_invalid", f"{file}: {exc.strerror}", hint="see who may read it") from exc
    if len(lines) > MAX_EXAMPLES:
        raise ApplianceError("too_large", f"{file} has more than {MAX_EXAMPLES} lines", hint="fewer examples teach as well")
    decoder = msgspec.json.Decoder(Example)
    kept: dict[str, Example] = {}
    repeated = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        example = _example(file, number, line, decoder, routes)
        key = " ".join(example.text.lower().split())
        before = kept.get(key)
        if before is not None and before.route != example.route:
            raise _refusal(file, number, f"the same text has route {before.route} in an earlier line, {example.route} here")
        repeated += before is not None
        kept[key] = example
    return ExampleFile(tuple(kept.values()), repeated)


def _example(file: Path, number: int, line: bytes, decoder: msgspec.json.Decoder[Example], routes: Collection[str]) -> Example:
    try:
        example = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _refusal(file, number, str(exc)) from exc
    if not example.text.strip() or len(example.text) > _LONGEST:
        raise _refusal(file, number, f"expected a text of 1 to {_LONGEST} characters")
    if example.route != OUT_OF_SCOPE and example.route not in routes:
        raise _refusal(file, number, f"router.toml has no [routes.{example.route[:100]}]")
    return example


def _refusal(file: Path, number: int, reason: str) -> ApplianceError:
    return ApplianceError("settings_invalid", f"{file}, line {number}: {reason}", hint="correct the line; the format is in docs/routing.md")
