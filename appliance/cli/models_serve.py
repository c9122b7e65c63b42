"""``appliance models serve``: how vLLM is started for an alias. It prints; what is started beside the box is the operator's to start."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from appliance.home import Home
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.hub.snapshots import Snapshot, read_verified, verify
from appliance.hub.vllm_profile import DEFAULT_ENDPOINT, chat_template_of, vllm_profile
from appliance.hub.vllm_units import compose_file, profile_document, systemd_unit
from appliance.identity.console import print_json, say

_EXAMPLES = """
Examples:

  appliance models serve default --print systemd > /etc/systemd/system/appliance-vllm-default.service

  appliance models serve llm.default --print compose --image vllm:0.32.0 > compose.yaml

  appliance models serve default --print argv --python ~/vllm/bin/python | xargs -0 env
"""
_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")


class Form(Enum):
    """What is printed."""

    systemd = "systemd"
    compose = "compose"
    argv = "argv"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the verb of this file to ``appliance models``."""
    app.command("serve", epilog=_EXAMPLES)(serve_verb)


def serve_verb(
    alias: Annotated[str, typer.Argument(help='Alias of an entry with engine = "vllm".')],
    form: Annotated[
        Form, typer.Option("--print", help="systemd, compose, json, or argv: NAME=VALUE words and the command, NUL after each.")
    ] = Form.systemd,
    python: Annotated[str, typer.Option(help="Interpreter that has vLLM.")] = "/opt/vllm/bin/python",
    image: Annotated[str, typer.Option(help="Image for compose; it must be there already.")] = "vllm:0.32.0",
    user: Annotated[str, typer.Option(help="Account of the unit; it must be able to read the weights.")] = "appliance",
) -> None:
    """Print how vLLM is started for ALIAS, from models.toml: hardened, offline, with the weights of the hub. The weights are checked first."""
    home = Home.default().path
    spec = load_home_models(home).get("llm", alias.removeprefix("llm."))
    profile = vllm_profile(spec, Path())  # refuses what is not for vLLM before anything is read
    snapshot = open_signed(hub_roots(home), spec.path, spec.digest, ModelTrust.load(home))
    verify(snapshot)
    profile = vllm_profile(spec, snapshot.folder.absolute(), _chat_template(snapshot))
    if not spec.endpoint:
        say(f'the box does not ask it yet: add endpoint = "{DEFAULT_ENDPOINT}" to [llm.{spec.alias}] in models.toml')
    if form is Form.systemd:
        print(systemd_unit(profile, python=python, user=user), end="")
    elif form is Form.compose:
        print(compose_file(profile, image=image), end="")
    elif form is Form.json:
        print_json(profile_document(profile, python=python))
    else:
        words = [*(f"{name}={value}" for name, value in sorted(profile.environment.items())), *profile.argv(python)]
        sys.stdout.write("".join(f"{word}\0" for word in words))


def _chat_template(snapshot: Snapshot) -> str:
    return chat_template_of({name: read_verified(snapshot, name) for name in _TEMPLATE_FILES if name in snapshot.index.files})
