"""What the release's own definitions take from this tree: a box that is installed from a bundle lacks no file that a checkout has."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

from appliance.bundle.build.checkout import read_checkout
from appliance.bundle.build.contents import Collected, Package
from appliance.bundle.build.definition import read_definition
from appliance.bundle.build.licences import check_policy
from appliance.bundle.build.lock_file import read_lock
from appliance.bundle.build.tree_files import chosen
from appliance.bundle.build.wheel_metadata import licence_of

ROOT = Path(__file__).parents[3]
DEFINITIONS = ["bundles/embedded.toml", "bundles/site.toml"]
CARRIED = (
    "services/sgr/templates/builtin/files/report.ru.docx", "services/sgr/templates/builtin/files/slide-deck.en.pptx",
    "services/sgr/templates/builtin/files/agenda.json", "services/agents/bootstrap.py", "services/llm/llama/llama_worker.py", "services/allinone/home_check.py",
    "services/gateway/web/locales/ru.json", "appliance/guard/policy.py", "appliance/inference/__init__.py", "appliance/schema/gate.py",
)  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_bundle_carries_everything_that_runs_and_every_file_that_code_reads(name: str) -> None:
    definition, checkout = read_definition(ROOT / name), read_checkout(ROOT)
    taken = {path for component in definition.components if component.kind in {"project", "docs", "smoke-tests"} for path in chosen(checkout, component)}
    assert set(CARRIED) <= taken
    runs = {path for path in checkout.files if path.startswith(("appliance/", "services/", "smoke-tests/")) and not path.startswith("appliance/testing/")}
    assert runs - taken == set()


def test_no_wheel_of_the_lock_is_under_a_denied_licence() -> None:
    """The build says so of the wheels themselves; this of the installed ones, without a build."""
    definition = read_definition(ROOT / DEFINITIONS[0])
    found = []
    for pin in read_lock(ROOT / "requirements" / "runtime.lock").packages:
        try:
            licence, is_spdx = licence_of(metadata(pin.name))  # type: ignore[arg-type]  # a Message, as its file is
        except PackageNotFoundError:
            continue  # of another machine
        found.append(Package("library", pin.name, pin.version, "", licence, is_spdx, ""))
    assert {"xllamacpp", "llguidance", "redis", "python-docx", "python-pptx"} <= {package.name for package in found}
    check_policy([Collected("wheels", "wheelhouse", "1", (), tuple(found))], definition.deny, definition.accept)
