"""What a schema asks of validators (``x-validators``), found in the data and asked of the service after the schema itself holds.

``"x-validators": ["regex-name", {"use": "length", "most": 40, "of": "words"}]`` at a place that ``properties``, ``items`` and ``$ref`` lead to. Elsewhere it is
refused, before anything is generated, as is one that the service does not know: a keyword is never ignored. When the service is down, ``when_down`` decides:
``refuse`` (the default) or ``pass``, which names what was not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from appliance.contracts.validators.v1.api import Validators, ValueCheck
from appliance.kit.errors import ApplianceError
from appliance.schema.annotations import VALIDATORS
from appliance.schema.gate import AdmittedSchema, Violation, refusal
from appliance.schema.places import escaped, places
from appliance.schema.references import ABSENT, References

_CALLER: Final = "sgr"
_DOWN: Final = frozenset({"unavailable", "upstream_timeout", "upstream_failed", "overloaded"})
_DEEPEST: Final = 32
_FOLLOWED: Final = 8


@dataclass(frozen=True, slots=True)
class Judgement:
    """``violations`` of the validators; ``unasked``: their names when the service was down and may be passed over."""

    violations: tuple[Violation, ...] = ()
    unasked: tuple[str, ...] = ()


class Validation:
    """Asks the service. Args: validators: None = this box has none; when_down: see the module."""

    def __init__(self, validators: Validators | None, when_down: Literal["refuse", "pass"] = "refuse") -> None:
        self._validators = validators
        self._when_down = when_down

    async def admit(self, admitted: AdmittedSchema) -> None:
        """Before anything is generated.

        Raises:
            ApplianceError: ``schema_unsupported`` naming keyword and place; ``unavailable`` when the service is down and must be asked.
        """
        wanted = [place for place in places(admitted.schema) if VALIDATORS in place.schema]
        if not wanted:
            return
        reached = {id(schema) for schema in _reached(admitted)}
        for place in wanted:
            if self._validators is None:
                raise refusal("schema_unsupported", place.pointer, VALIDATORS, "this box has no validators (docs/validators.md)")
            if id(place.schema) not in reached:
                raise refusal("schema_unsupported", place.pointer, VALIDATORS, "only properties, items and $ref lead to validators")
        assert self._validators is not None
        try:
            known = {card.name for card in await self._validators.cards(_CALLER)}
        except ApplianceError as exc:
            self._pass_over(exc)
            return
        for place in wanted:
            for name, _ in _named(place.schema, place.pointer):
                if name not in known:
                    raise refusal("schema_unsupported", place.pointer, VALIDATORS, f"no validator {name[:100]!r}; there are {', '.join(sorted(known))}")

    async def judge(self, admitted: AdmittedSchema, data: object) -> Judgement:
        """What the validators say of data that satisfies the schema. Raises ``unavailable`` as :meth:`admit`."""
        checks = list(_checks(admitted, data))
        if not checks or self._validators is None:
            return Judgement()
        try:
            failures = await self._validators.check(_CALLER, checks)
        except ApplianceError as exc:
            self._pass_over(exc)
            return Judgement(unasked=tuple(sorted({one.validator for one in checks})))
        return Judgement(tuple(Violation(one.pointer, VALIDATORS, f"{one.validator}: {one.reason}") for one in failures))

    def _pass_over(self, problem: ApplianceError) -> None:
        if problem.code not in _DOWN:
            raise problem
        if self._when_down == "refuse":
            hint = "start the service, or let answers pass without it: APPLIANCE_VALIDATORS_WHEN_DOWN=pass"
            raise ApplianceError("unavailable", f"the validators cannot be asked: {problem.message}", hint=hint) from problem


def validated(number: int, violations: Sequence[Violation], unasked: Sequence[str]) -> dict[str, object]:
    """The detail of a step ``validate``."""
    errors: dict[str, object] = {"round": number, "errors": [str(violation) for violation in violations]}
    return errors | ({"validators_unavailable": list(unasked)} if unasked else {})


def _named(schema: Mapping[str, Any], pointer: str) -> list[tuple[str, dict[str, Any]]]:
    listed = schema[VALIDATORS]
    found: list[tuple[str, dict[str, Any]]] = []
    for one in listed if isinstance(listed, list) else [listed]:
        entry = {"use": one} if isinstance(one, str) else one
        if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
            raise refusal("schema_unsupported", pointer, VALIDATORS, 'it is a list of names, or of {"use": name, …}')
        found.append((entry["use"], {key: value for key, value in entry.items() if key != "use"}))
    return found


def _checks(admitted: AdmittedSchema, data: object) -> Iterator[ValueCheck]:
    """Each value with each validator of its place."""
    references = References(admitted.schema)

    def walk(schema: Any, value: Any, pointer: str, depth: int) -> Iterator[ValueCheck]:
        for one in _chain(schema, references):
            if VALIDATORS in one and value is not None:
                encoded = msgspec.json.encode(value).decode()
                for name, arguments in _named(one, pointer):
                    yield ValueCheck(pointer=pointer, validator=name, arguments=msgspec.json.encode(arguments).decode(), value=encoded)
            if depth >= _DEEPEST:
                continue
            if isinstance(value, dict):
                for name, part in one.get("properties", {}).items():
                    if name in value:
                        yield from walk(part, value[name], f"{pointer}/{escaped(name)}", depth + 1)
            if isinstance(value, list) and isinstance(one.get("items"), dict):
                for number, item in enumerate(value):
                    yield from walk(one["items"], item, f"{pointer}/{number}", depth + 1)

    yield from walk(admitted.schema, data, "", 0)


def _reached(admitted: AdmittedSchema) -> Iterator[Mapping[str, Any]]:
    """Schemas that :func:`_checks` can come to; each once."""
    references = References(admitted.schema)
    waiting: list[Any] = [admitted.schema]
    seen: set[int] = set()
    while waiting:
        for one in _chain(waiting.pop(), references):
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield one
            waiting.extend(one.get("properties", {}).values())
            waiting.append(one.get("items"))


def _chain(schema: Any, references: References) -> Sequence[Mapping[str, Any]]:
    """The schema and what its ``$ref`` leads to."""
    found: list[Mapping[str, Any]] = []
    for _ in range(_FOLLOWED):
        if not isinstance(schema, Mapping):
            break
        found.append(schema)
        target = references.target(schema["$ref"]) if "$ref" in schema else ABSENT
        if target is ABSENT:
            break
        schema = target
    return found
