"""``router.toml`` of a home: routes, rules, thresholds. Owns its format, strict like models.toml; does not own matching or training.

Everything is bounded, and an unknown key is an error that names it, not a typo that goes unnoticed.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.contracts.router.v1.routing import Route
from appliance.kit.errors import ApplianceError
from services.router.intents.patterns import compile_pattern

FILE_NAME: Final = "router.toml"
FOLDER: Final = "router"
MODEL_NAME: Final = "intents.model"
OUT_OF_SCOPE: Final = "out_of_scope"  # label of examples that belong to no route
SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
_MAX_ROUTES: Final = 500
_MAX_RULES: Final = 500
_MAX_WORDS: Final = 100
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LANGUAGES: Final = ("ru", "en", "other")


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One ``[routes.<name>]``.

    Attributes:
        route: what a decision names.
        description: one sentence for the language model.
        spaces: only turns that may look into one of them go there; empty = all.
    """

    route: Route
    description: str = ""
    spaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One ``[[rules]]``: a turn that has any of ``keywords`` or matches any of ``patterns``, in this language and these spaces, goes to ``route``."""

    name: str
    route: str
    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    language: str = ""
    spaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``[thresholds]``.

    Attributes:
        high: confidence from which a turn goes without a word.
        medium: confidence from which it goes and says so; below, the user is asked.
        out_of_scope_recall: share of foreign questions that training aims to recognise.
        model_deadline_seconds: how long the language model may take.
        cache_seconds: how long a decision may be reused.
    """

    high: float = 0.85
    medium: float = 0.5
    out_of_scope_recall: float = 0.9
    model_deadline_seconds: float = 2.0
    cache_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class RouterFile:
    """The whole file.

    Attributes:
        routes: by name, in the order of the file; empty = there is nothing to decide.
        default: route when nothing else decides.
        examples: labelled examples, relative to the home.
        validation: held-out examples, relative to the home; "" = folds.
        ask_model: whether the language model may decide where the classifier is unsure.
        version: digest of the text of the file.
    """

    routes: Mapping[str, RouteSpec]
    rules: tuple[RuleSpec, ...] = ()
    thresholds: Thresholds = Thresholds()
    default: str = ""
    examples: str = f"{FOLDER}/examples.jsonl"
    validation: str = ""
    ask_model: bool = False
    version: str = ""


NOTHING: Final = RouterFile({})


def load_router_file(home: Path) -> RouterFile:
    """The file of ``home``; :data:`NOTHING` when there is none.

    Raises:
        ApplianceError: ``settings_invalid`` naming file and key.
    """
    file = home / FILE_NAME
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _refusal(file, "", f"larger than {MAX_FILE_BYTES} bytes")
        content = file.read_bytes()
    except FileNotFoundError:
        return NOTHING
    except OSError as exc:
        raise _refusal(file, "", exc.strerror or "cannot be read") from exc
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _refusal(file, "", f"not valid TOML: {exc}") from exc
    return _Reader(file).read(document, hashlib.sha256(content).hexdigest())


def _refusal(file: Path, key: str, reason: str) -> ApplianceError:
    name = f"{file}: {key}" if key else str(file)
    return ApplianceError("settings_invalid", f"{name}: {reason}", hint=f"correct {file}; its format is in docs/routing.md")


class _Reader:
    """Reads one document; every refusal names the key."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, document: dict[str, Any], version: str) -> RouterFile:
        if document.pop("schema_version", None) is not SCHEMA_VERSION:
            raise self._refuse("schema_version", f"expected {SCHEMA_VERSION}; make schema_version = {SCHEMA_VERSION} the first line")
        known = {"routes", "rules", "thresholds", "default", "examples", "validation", "ask_model"}
        self._only("", document, known)
        routes = self._routes(document.get("routes", {}))
        rules = self._list("rules", document.get("rules", []), _MAX_RULES)
        default = self._text("default", document.get("default", next(iter(routes))))
        if default not in routes:
            raise self._refuse("default", f"there is no [routes.{default}]")
        return RouterFile(
            routes,
            tuple(self._rule(f"rules.{number}", rule, routes) for number, rule in enumerate(rules, start=1)),
            self._thresholds(document.get("thresholds", {})),
            default,
            self._path("examples", document.get("examples", f"{FOLDER}/examples.jsonl")),
            self._path("validation", document.get("validation", "")),
            self._flag("ask_model", document.get("ask_model", False)),
            version,
        )

    def _routes(self, table: Any) -> dict[str, RouteSpec]:
        if not isinstance(table, dict) or not table:
            raise self._refuse("routes", "expected at least one table [routes.<name>]")
        if len(table) > _MAX_ROUTES:
            raise self._refuse("routes", f"more than {_MAX_ROUTES}")
        return {self._name(f"routes.{name}", name): self._route(name, entry) for name, entry in table.items()}

    def _route(self, name: str, entry: Any) -> RouteSpec:
        where = f"routes.{name}"
        self._only(where, entry, {"agent", "titles", "model", "description", "spaces"})
        titles = entry.get("titles", {})
        self._only(f"{where}.titles", titles, {"ru", "en"})
        route = Route(
            name,
            self._name(f"{where}.agent", entry.get("agent", "documents")),
            {language: self._text(f"{where}.titles.{language}", title) for language, title in titles.items()},
            self._text(f"{where}.model", entry.get("model", "")),
        )
        return RouteSpec(route, self._text(f"{where}.description", entry.get("description", "")), self._spaces(where, entry))

    def _rule(self, where: str, entry: Any, routes: Mapping[str, RouteSpec]) -> RuleSpec:
        self._only(where, entry, {"name", "route", "keywords", "regex", "language", "spaces"})
        rule = RuleSpec(
            self._text(f"{where}.name", entry.get("name", where)),
            self._text(f"{where}.route", entry.get("route", "")),
            self._texts(f"{where}.keywords", entry.get("keywords", [])),
            self._texts(f"{where}.regex", entry.get("regex", [])),
            self._text(f"{where}.language", entry.get("language", "")),
            self._spaces(where, entry),
        )
        if rule.route not in routes:
            raise self._refuse(f"{where}.route", f"there is no [routes.{rule.route}]")
        if not rule.keywords and not rule.patterns:
            raise self._refuse(where, "expected keywords or regex")
        if rule.language and rule.language not in _LANGUAGES:
            raise self._refuse(f"{where}.language", f"expected one of {', '.join(_LANGUAGES)}")
        for pattern in rule.patterns:
            self._checked(f"{where}.regex", compile_pattern, pattern)
        return rule

    def _thresholds(self, table: Any) -> Thresholds:
        bounds = {
            "high": (0.0, 1.0),
            "medium": (0.0, 1.0),
            "out_of_scope_recall": (0.5, 0.99),
            "model_deadline_seconds": (0.05, 60.0),
            "cache_seconds": (0.0, 86_400.0),
        }
        self._only("thresholds", table, set(bounds))
        found = Thresholds(**{key: self._number(f"thresholds.{key}", value, *bounds[key]) for key, value in table.items()})
        if found.medium > found.high:
            raise self._refuse("thresholds.medium", "is above high")
        return found

    def _spaces(self, where: str, entry: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(self._name(f"{where}.spaces", space) for space in self._list(f"{where}.spaces", entry.get("spaces", []), _MAX_WORDS))

    def _texts(self, where: str, value: Any) -> tuple[str, ...]:
        return tuple(self._text(where, one, least=1) for one in self._list(where, value, _MAX_WORDS))

    def _list(self, where: str, value: Any, most: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise self._refuse(where, f"expected a list of at most {most}")
        return value

    def _text(self, where: str, value: Any, least: int = 0) -> str:
        if not isinstance(value, str) or not least <= len(value) <= 1000:
            raise self._refuse(where, "expected a text of at most 1000 characters")
        return value

    def _name(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or _NAME.fullmatch(value) is None or value == OUT_OF_SCOPE:
            raise self._refuse(where, f"expected a-z 0-9 . _ -, up to 63 characters, not {OUT_OF_SCOPE}")
        return value

    def _path(self, where: str, value: Any) -> str:
        """Inside the home: the file may come from elsewhere than who reads it."""
        path = self._text(where, value)
        if path and (Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path):
            raise self._refuse(where, "expected a path inside the home")
        return path

    def _flag(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refuse(where, "expected true or false")
        return value

    def _number(self, where: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self._refuse(where, f"expected a number from {least:g} to {most:g}")
        return float(value)

    def _only(self, where: str, table: Any, known: set[str]) -> None:
        if not isinstance(table, dict):
            raise self._refuse(where, "expected a table")
        for key in table:
            if key not in known:
                raise self._refuse(f"{where}.{key}".lstrip("."), f"unknown key; known: {', '.join(sorted(known))}")

    def _checked(self, where: str, check: Callable[[str], object], value: str) -> None:
        try:
            check(value)
        except ValueError as exc:
            raise self._refuse(where, str(exc)) from exc

    def _refuse(self, key: str, reason: str) -> ApplianceError:
        return _refusal(self._file, key, reason)
