"""Every snapshot that models.toml names is there, has its digests, and a signature that this home trusts."""

from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.hub.snapshots import verify
from appliance.smoke.box import SmokeBox, expect, unreadable

TITLE = "models: digests and signatures"
SECONDS = 600.0


def run(box: SmokeBox) -> str:
    """Reads every byte of every snapshot."""
    box.on_this_machine()
    home = box.home.path
    try:
        next((home / "keys").iterdir(), None)
    except OSError as error:
        raise unreadable(home / "keys", error) from error
    trust = ModelTrust.load(home)
    named = [spec for spec in load_home_models(home).specs if spec.path]
    expect(named, "models.toml names no snapshot")
    files = size = 0
    for spec in named:
        snapshot = open_signed(hub_roots(home), spec.path, spec.digest, trust)
        verify(snapshot)
        files += len(snapshot.index.files)
        size += sum(entry.size_bytes for entry in snapshot.index.files.values())
    return f"{', '.join(spec.path for spec in named)}: {files} files, {size / 1e6:.0f} MB, signed and unaltered"
