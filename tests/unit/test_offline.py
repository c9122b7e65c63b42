"""The switches that keep model libraries from reaching out, and what the box must not need at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SEALED = """
import os, sys
from pathlib import Path
from appliance.kit.offline import seal_environment
seal_environment(Path("home"))
import services.embed.bootstrap, appliance.cli.models
from appliance.kit.offline import seal_onnxruntime
seal_onnxruntime()
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    assert os.environ[name] == "1", name
assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
assert os.environ["HF_HOME"] == os.environ["MODEL_DIR"] == str(Path("home").absolute() / "models")
print(sorted({"onnx", "torch", "transformers", "sentence_transformers", "huggingface_hub"} & set(sys.modules)))
"""


def test_a_sealed_process_overrides_the_environment_and_runs_without_conversion_libraries(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": "/elsewhere", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", SEALED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


STARTED = """
import os, subprocess, sys
from pathlib import Path
from appliance.kit.offline import PLACES, SWITCHES, sealed_variables, start_sealed
start_sealed(Path("home"))
shown = dict(entry.split("=", 1) for entry in Path("/proc/self/environ").read_text().split("\\0") if "=" in entry)
for name, value in sealed_variables(Path("home")).items():
    assert shown[name] == os.environ[name] == value, name
for change in (
    lambda: os.environ.__setitem__("HF_HUB_OFFLINE", "0"), lambda: os.environ.pop("DO_NOT_TRACK"), lambda: os.putenv("TRANSFORMERS_OFFLINE", "0"),
    lambda: os.environb.__setitem__(b"HF_HOME", b"/elsewhere"), lambda: os.unsetenv("HF_HUB_OFFLINE"), lambda: os.environ.clear(),
    lambda: os.environ.update(HF_HUB_OFFLINE="0"), lambda: os.environ.__delitem__("MODEL_DIR"),
):
    try:
        change()
    except PermissionError:
        continue
    raise SystemExit("a switch was changed")
os.environ["ANYTHING_ELSE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
start_sealed(Path("home"))
print(subprocess.check_output([sys.executable, "-c", "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['HF_HOME'])"], text=True), end="")
"""


def test_switches_are_there_when_the_process_starts_and_stay(tmp_path: Path) -> None:
    script = tmp_path / "sealed.py"
    script.write_text(STARTED)
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("DO_NOT_TRACK", None)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"1 {tmp_path / 'home' / 'models'}"
