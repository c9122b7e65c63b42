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
