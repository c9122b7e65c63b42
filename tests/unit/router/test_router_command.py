"""``appliance router``: one real run of the program behind it, and what people see when it cannot work."""

from __future__ import annotations

import json

import pytest

from appliance.cli import router
from appliance.kit.errors import ApplianceError
from services.router.intents.model_file import read_model
from tests.unit.router.intents_bed import make_home


def test_training_without_an_encoder_learns_from_words_and_says_so(tmp_path, monkeypatch, capfd):
    labelled = [(f"{word} number {number}", route) for word, route in (("leave", "vacation"), ("bill", "invoices")) for number in range(10)]
    home = make_home(tmp_path / "home", labelled=labelled)
    monkeypatch.setenv("APPLIANCE_HOME", str(home))
    router.train()
    out, err = capfd.readouterr()
    assert "right route first" in out
    assert "learned from words alone" in err and "no examples of documents" in err
    assert read_model(home / "router" / "intents.model").labels == ("vacation", "invoices")


def test_a_missing_home_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ApplianceError) as refused:
        router.train()
    assert refused.value.code == "home_invalid"


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ('print(\'{"error": {"code": "settings_invalid", "message": "line 3", "hint": "mend it"}}\')', "settings_invalid", "line 3"),
        ("print('noise'); raise SystemExit(9)", "internal", "status 9"),
    ],
)
def test_what_the_program_says_is_passed_on(tmp_path, monkeypatch, program, code, message):
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))
    monkeypatch.setattr(router, "PROGRAM", ("-c", program))
    with pytest.raises(ApplianceError, match=message) as refused:
        router.train()
    assert refused.value.code == code


def test_explain_shows_options_and_reasons(tmp_path, monkeypatch, capsys):
    result = {
        "route": None, "agent": None, "confidence": 0.41, "level": "low", "source": "classifier", "out_of_scope": False,
        "options": [{"route": "a", "share": 0.5}], "reasons": ["words"],
    }  # fmt: skip
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))
    monkeypatch.setattr(router, "PROGRAM", ("-c", f"print({json.dumps({'result': result})!r})"))
    router.explain("hm", after=["before"])
    assert capsys.readouterr().out.splitlines() == ["asks the user  (low, confidence 0.41, by classifier)", "  0.500  a", "  - words"]
