"""What the service needs of a validator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from appliance.contracts.validators.v1.api import ValidatorCard


class Validator(Protocol):
    """Looks at one value. Called in a thread."""

    @property
    def card(self) -> ValidatorCard:
        """Its name and what it does."""
        ...

    def problem(self, value: Any, arguments: Mapping[str, Any]) -> str:
        """What is wrong, "" = nothing. Raises ValueError or TypeError for arguments that it does not take."""
        ...
