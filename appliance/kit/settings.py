"""Settings: one frozen pydantic class per service, read once in ``__main__`` and passed down.

Owns: the base class, the refusal of unknown environment keys, the translation of pydantic's complaint.
"""

from __future__ import annotations

import os
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from appliance.kit.errors import ApplianceError


class ServiceSettings(BaseSettings):
    """Base of all settings classes. Subclasses set ``model_config = service_config("RETRIEVAL")``."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, **overrides: object) -> Self:
        """Settings from the environment, ``overrides`` winning.

        Raises:
            ApplianceError: ``settings_invalid`` naming the variable, also for a variable with our prefix that no field knows.
        """
        prefix = cls.model_config.get("env_prefix", "").upper()
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        unknown = sorted(key for key in os.environ if prefix and key.upper().startswith(prefix) and key.upper() not in known)
        if unknown:
            raise ApplianceError(
                "settings_invalid",
                f"unknown setting {unknown[0]}",
                hint="known settings: " + ", ".join(sorted(known)),
            )
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # pydantic takes field values by keyword
        except ValidationError as exc:
            first = exc.errors()[0]
            name = f"{prefix}{'.'.join(str(part) for part in first['loc'])}".upper()
            raise ApplianceError("settings_invalid", f"{name}: {first['msg']}", hint="correct the variable and start again") from exc


def service_config(service: str) -> SettingsConfigDict:
    """Config for a service: prefix ``APPLIANCE_<SERVICE>_``, frozen, no unknown keys."""
    return SettingsConfigDict(env_prefix=f"APPLIANCE_{service}_", frozen=True, extra="forbid")
