"""What doctor asks the services: files in the home that the box would refuse are findings with a hint, and a GGUF that does not load is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.doctor_services import examine_services
from appliance.home import Home
from appliance.hub.aliasing import point_alias
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
from appliance.testing.tiny_gguf import write_corrupt_gguf
from services.allinone.home_check import examine, load_models, templates


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("guardrails.toml", "schema_version = 1\n[nonsense]\n"), ("agents.toml", "junk"), ("quotas.toml", "schema_version = 9\n"),
        ("router.toml", "schema_version = 1\n[routes.x]\nagent = 7\n"), ("router/classifier.model", "junk"), ("tool_approvals.json", "junk"),
    ],
)  # fmt: skip
def test_a_file_that_the_box_would_refuse_is_a_finding_with_advice(tmp_path: Path, name: str, content: str) -> None:
    from services.router.intents.routes_toml import MODEL_NAME

    file = tmp_path / name.replace("classifier.model", MODEL_NAME)
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    (finding,) = examine(tmp_path)
    assert (finding.check, finding.level) == (file.name, "fail"), finding
    assert finding.detail
    assert finding.advice


def test_what_is_absent_is_no_finding_and_a_damaged_template_is_one(tmp_path: Path) -> None:
    assert list(examine(tmp_path)) == []
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "letter.template").write_bytes(b"{}\nnothing")
    found = {finding.check: finding.level for finding in templates(tmp_path / "templates")}
    assert found == {"template letter": "fail", "templates": "ok"}


async def test_a_gguf_that_does_not_load_is_named_with_what_to_do(tmp_path: Path) -> None:
    snapshot = import_model(tmp_path, look_at(write_corrupt_gguf(tmp_path / "bad.gguf", how="shape")), ImportRequest("llm", "bad"))
    point_alias(tmp_path, "llm", "bad", snapshot.label)
    (finding,) = await load_models(tmp_path)
    assert (finding.check, finding.level, "llama.cpp does not take" in finding.detail) == ("loads: bad", "fail", True), finding
    assert "import the model again" in finding.advice


def test_doctor_asks_a_process_of_the_services(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (home.path / "agents.toml").write_text("junk")
    assert {finding.check: finding.level for finding in examine_services(home)}["agents.toml"] == "fail"
