"""guardrails-ai behind the port: validators that modules of this site register with ``register_validator``. Nothing is fetched from a hub.

Owns: how guardrails-ai is held offline. Its metrics are on by default and are said off before it is imported, again in its settings, and what tries all the
same is refused by the process's egress guard; litellm, which it imports, takes its price list from its own package. Validators are called themselves,
without a ``Guard``: no history, no traces, no language model.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from appliance.contracts.validators.v1.api import ValidatorCard
from appliance.kit.errors import ApplianceError

SOURCE: Final = "guardrails-ai"
_RC: Final = ".guardrailsrc"
_SWITCHES: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "GUARDRAILS_RUN_SYNC": "true", "OTEL_SDK_DISABLED": "true"}
_ABOUT: Final = 200


def hold_offline(folder: Path) -> None:
    """Before the first import of guardrails: ``folder`` becomes the home of the process, with guardrails' own switches in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / _RC).write_text("enable_metrics=false\nuse_remote_inferencing=false\n")
    os.environ.update(_SWITCHES, HOME=str(folder))


def guardrails_validators(modules: Sequence[str]) -> list[GuardrailsValidator]:
    """Those that ``modules`` register.

    Raises:
        ApplianceError: ``settings_invalid``: guardrails-ai or a module cannot be imported, or registers nothing.
    """
    try:
        base: Any = importlib.import_module("guardrails.validator_base")
        settings: Any = importlib.import_module("guardrails.settings").settings
        settings.rc.enable_metrics = False
        settings.rc.use_remote_inferencing = False
        for module in modules:
            importlib.import_module(module)
    except ImportError as exc:
        hint = "install guardrails-ai into the environment of this service, and put the modules on PYTHONPATH (docs/validators.md)"
        raise ApplianceError("settings_invalid", f"APPLIANCE_VALIDATOR_MODULES: {exc}", hint=hint) from exc
    found = [GuardrailsValidator(name, kind) for name, kind in sorted(base.validators_registry.items()) if kind.__module__ in modules]
    if not found:
        raise ApplianceError("settings_invalid", f"{', '.join(modules)} registers no validator", hint="decorate it with @register_validator(name=…)")
    return found


class GuardrailsValidator:
    """Implements ``Validator`` with a class of guardrails-ai; one instance for each set of arguments, kept."""

    def __init__(self, name: str, kind: Any) -> None:
        self._name = name
        self._kind = kind
        self._made: dict[str, Any] = {}

    @property
    def card(self) -> ValidatorCard:
        """See the port."""
        about = (self._kind.__doc__ or "").strip().split("\n")[0][:_ABOUT]
        return ValidatorCard(name=self._name, source=SOURCE, about=about)

    def problem(self, value: Any, arguments: Mapping[str, Any]) -> str:
        """See the port."""
        key = json.dumps(arguments, sort_keys=True)
        if key not in self._made:
            if len(self._made) >= 64:
                self._made.clear()
            self._made[key] = self._kind(**arguments)
        try:
            result = self._made[key].validate(value, {})
        except (ValueError, TypeError) as exc:  # not of its arguments: it was made from them
            raise RuntimeError(str(exc)) from exc
        return "" if result.outcome == "pass" else str(getattr(result, "error_message", "") or "it does not hold")
