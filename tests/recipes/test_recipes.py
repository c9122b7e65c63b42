"""Every recipe of docs/integrations.md, as it stands there, against a real box with the demo library and a tiny model that writes.

``RECIPES_PYTHON`` names an interpreter that has the packages (scripts/test_recipes.sh makes one); without it, those whose package is here run in this process.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from appliance.hub.aliasing import point_alias
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
from appliance.testing.box_process import ROOT, BoxProcess, box_process
from appliance.testing.tiny_gguf import write_tiny_gguf
from tests.integration.real_box import load_demo, wait_until

PYTHON: Final = os.environ.get("RECIPES_PYTHON")
QUIET: Final = {
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "DO_NOT_TRACK": "true",
    "ANONYMIZED_TELEMETRY": "false",
    "HF_HUB_OFFLINE": "1",
}
HELLO: Final = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "spaces": [], "max_tokens": 5}
_BLOCK: Final = re.compile(r"<!-- recipe: ([\w-]+); needs: ([\w.]+); says: (.+?) -->\n```(sh|python)\n(.+?)\n```", re.S)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A block of the page."""

    name: str
    needs: str
    says: str
    language: str
    text: str

    def is_possible(self) -> bool:
        if self.language == "sh":
            return shutil.which(self.needs) is not None
        if PYTHON is None:
            return find_spec(self.needs.split(".")[0]) is not None
        return subprocess.run([PYTHON, "-c", f"import {self.needs}"], capture_output=True, check=False).returncode == 0

    def run(self, environment: dict[str, str]) -> str:
        """What it prints; raises when it fails."""
        if self.language == "python" and PYTHON is None:
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
                for name, value in environment.items():
                    patch.setenv(name, value)
                exec(compile(self.text, self.name, "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102 - our own page
            return printed.getvalue()
        command = [str(PYTHON), "-c", self.text] if self.language == "python" else ["sh", "-euc", self.text]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env={**os.environ, **environment})
        assert ran.returncode == 0, ran.stderr[-2000:]
        return ran.stdout


RECIPES: Final = [Recipe(*found) for found in _BLOCK.findall((ROOT / "docs" / "integrations.md").read_text())]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxProcess]:
    home = tmp_path_factory.mktemp("home")
    with box_process(home) as running:
        with running.client() as client:
            load_demo(client)
            snapshot = import_model(home, look_at(write_tiny_gguf(home / "tiny.gguf")), ImportRequest("llm", "tiny", license="MIT"))
            point_alias(home, "llm", "tiny", snapshot.label)  # the running box follows
            wait_until(lambda: client.post("/v1/chat/completions", json=HELLO).status_code == 200)
        yield running


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_works_as_it_stands(recipe: Recipe, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not recipe.is_possible():
        pytest.skip(f"{recipe.needs} is not installed; scripts/test_recipes.sh installs it")
    box: BoxProcess = request.getfixturevalue("box")
    printed = recipe.run({**QUIET, "APPLIANCE_URL": box.url, "APPLIANCE_KEY": box.key, "APPLIANCE_MODEL": "tiny", "HOME": str(tmp_path)})
    assert recipe.says in printed


def test_no_block_of_the_page_is_left_out() -> None:
    text = (ROOT / "docs" / "integrations.md").read_text()
    assert len(RECIPES) == text.count("<!-- recipe:") >= 9
    assert text.count("```python") == sum(recipe.language == "python" for recipe in RECIPES)
