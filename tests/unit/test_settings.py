"""Settings: a typo in a variable is an error that names it, not a default that nobody asked for."""

from __future__ import annotations

import pytest

from appliance.kit.errors import ApplianceError
from services.retrieval.settings import RetrievalSettings


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_RETRIEVAL_PARSER_PROCESSES", "5")
    assert RetrievalSettings.read().parser_processes == 5


@pytest.mark.parametrize(("name", "value"), [("APPLIANCE_RETRIEVAL_PARSER_PROCESES", "5"), ("APPLIANCE_RETRIEVAL_PARSER_PROCESSES", "many"), ("APPLIANCE_RETRIEVAL_LEG_DEPTH", "-1")])
def test_unknown_keys_and_bad_values_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ApplianceError) as caught:
        RetrievalSettings.read()
    assert caught.value.code == "settings_invalid"
    assert name in caught.value.message
    assert caught.value.hint


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RetrievalSettings.read().leg_depth = 1
