"""``models add``: a repository of a Hugging Face hub, fetched on a connected station into a folder that is then imported like any other.

The fetch runs in a child process: only there are the offline switches off, this process stays sealed. Pickles and programs are not even asked for.
``python -m appliance.hub.fetching`` is that child.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.hub.roots import GENERATION_VARIABLE, generation_folder
from appliance.hub.weight_files import PICKLE_SUFFIXES, PROGRAM_SUFFIXES
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import SWITCHES

FETCH_TIMEOUT_SECONDS: Final = 24 * 3600
ALLOWED: Final = (
    "*.safetensors",
    "*.gguf",
    "*.onnx",
    "*.onnx_data",
    "*.json",
    "*.txt",
    "*.md",
    "*.model",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "README*",
)
_IGNORED: Final = tuple(f"*{suffix}" for suffix in sorted(PICKLE_SUFFIXES | PROGRAM_SUFFIXES))
_REPOSITORY: Final = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<revision>[A-Za-z0-9][\w./-]{0,127}))?")


@dataclass(frozen=True, slots=True)
class Repository:
    """``owner/name`` at a revision (branch, tag, commit); empty = the default branch."""

    name: str
    revision: str = ""


def parse_repository(text: str) -> Repository:
    """``owner/name`` or ``owner/name@revision``. Raises ``invalid_request``."""
    match = _REPOSITORY.fullmatch(text)
    if match is None or ".." in text:
        raise ApplianceError("invalid_request", f"{text!r} is no repository", hint="expected OWNER/NAME or OWNER/NAME@REVISION")
    return Repository(match["name"], match["revision"] or "")


def refuse_on_site() -> None:
    """Raise ``forbidden`` where nothing may be fetched."""
    if generation_folder() is not None:
        hint = "fetch it on a connected station, then carry a bundle or what `appliance models export` writes, and import that here"
        raise ApplianceError("forbidden", f"this is a sealed site (${GENERATION_VARIABLE} is set): nothing is fetched here", hint=hint)


def fetch_repository(repository: Repository, folder: Path, endpoint: str = "", allow: tuple[str, ...] = ALLOWED) -> str:
    """Fetch into ``folder`` (kept between runs: a fetch that was cut off goes on). The commit that was fetched, empty when the hub does not say.

    Raises:
        ApplianceError: ``forbidden`` on a sealed site, ``unavailable`` when the hub does not give it.
    """
    refuse_on_site()
    environment = {key: value for key, value in os.environ.items() if key not in SWITCHES} | {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "" if sys.stderr.isatty() else "1",
        "HF_HOME": str(folder / ".cache-home"),
        "DO_NOT_TRACK": "1",
    }
    job = {"repo_id": repository.name, "revision": repository.revision, "folder": str(folder), "endpoint": endpoint, "allow": allow}
    command = [sys.executable, "-m", "appliance.hub.fetching"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, env=environment, timeout=FETCH_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise _unavailable(repository, "it did not end within a day") from exc
    told = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode:
        raise _unavailable(repository, told or f"the fetch ended with status {done.returncode}")
    return told


def _unavailable(repository: Repository, reason: str) -> ApplianceError:
    hint = "check the name, the network and --endpoint; run it again: what is fetched already is kept"
    return ApplianceError("unavailable", f"cannot fetch {repository.name}: {reason}", hint=hint)


def _child() -> int:
    """Fetch what stdin says; the last line of stdout is the commit, or the reason of the failure."""
    job = json.load(sys.stdin)
    try:
        from huggingface_hub import HfApi, snapshot_download

        endpoint = job["endpoint"] or None
        commit = HfApi(endpoint=endpoint).model_info(job["repo_id"], revision=job["revision"] or None).sha
        snapshot_download(
            job["repo_id"],
            revision=commit or job["revision"] or None,
            local_dir=job["folder"],
            allow_patterns=list(job["allow"]),
            ignore_patterns=list(_IGNORED),
            endpoint=endpoint,
            max_workers=4,
        )
    except Exception as exc:  # many types of several libraries; the parent has one word for all of them
        print(" ".join(f"{type(exc).__name__}: {exc}".split())[:400])
        return 1
    print(commit or "")
    return 0


if __name__ == "__main__":
    sys.exit(_child())
