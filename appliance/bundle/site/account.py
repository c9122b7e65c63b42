"""As whom a child runs: never as root in a folder that somebody else can change."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

from appliance.kit.errors import ApplianceError


def owner_of(home: Path) -> dict[str, Any]:
    """Arguments of ``subprocess`` for the user who owns ``home``; none when that is who runs already, or when nobody else could be chosen."""
    status = home.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return {}
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}


def named(user: str) -> dict[str, Any]:
    """The same for a user by name; none for an empty one. Raises ``not_found``."""
    if not user or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError as exc:
        raise ApplianceError("not_found", f"there is no user {user!r}", hint=f"useradd --system --no-create-home {user}; then repeat") from exc
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
