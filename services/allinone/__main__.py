"""``python -m services.allinone``: serve one home until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress

from appliance.home import Home
from appliance.kit.egress import GUARD, Destination
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
os.umask(0o077)  # whatever the box writes is for its owner only
if __name__ == "__main__":
    start_sealed(_home.path)  # before anything that could load a model library; may replace this process by itself
    GUARD.install()

from appliance.kit.logging import configure_logging, get_logger  # noqa: E402
from appliance.kit.telemetry import configure_telemetry  # noqa: E402
from services.allinone.bootstrap import AllSettings, open_box  # noqa: E402
from services.allinone.guarded_loop import GuardedLoop  # noqa: E402
from services.gateway.server import listen, make_server  # noqa: E402

_M_ARENA_MAX = -8  # malloc.h


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    parser = argparse.ArgumentParser(prog="python -m services.allinone", description="Serve the box of $APPLIANCE_HOME.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    try:
        _home.create()
        settings = AllSettings.read()
        configure_logging(level=settings.box.log_level, folder=_home.logs, stderr=False)
        _permit_telemetry(settings.box.otlp_endpoint)
        configure_telemetry(settings.box.otlp_endpoint, service="allinone")
        _bound_arenas()
        with _home.lock():
            import uvloop

            uvloop.run(_serve(settings, options.host, options.port), loop_factory=GuardedLoop)
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    except OSError as error:
        print(f"error: cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        print("hint: choose another port: appliance up --port 8081", file=sys.stderr)
        return 40
    return 0


def _permit_telemetry(endpoint: str | None) -> None:
    if endpoint is None:
        return
    try:
        GUARD.permit([Destination.of_url(endpoint)])
    except ValueError as exc:
        hint = "an address inside the site, http://host:4318/v1/traces, or leave the variable out"
        raise ApplianceError("settings_invalid", f"APPLIANCE_BOX_OTLP_ENDPOINT: {exc}", hint=hint) from exc


def _bound_arenas() -> None:
    """Two malloc arenas instead of eight a core (glibc): many threads each kept freed memory of their own, 80 MB after a large document."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


async def _serve(settings: AllSettings, host: str, port: int) -> None:
    listening = listen(host, port)
    address = listening.getsockname()
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
    url = f"http://[{shown}]:{address[1]}" if ":" in shown else f"http://{shown}:{address[1]}"
    async with open_box(_home, settings) as box:
        server = make_server(box.app)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
        _home.announce(url)
        get_logger(__name__).info("box_ready", url=url)
        if os.environ.get("APPLIANCE_WELCOME"):
            _welcome(url)
        try:
            await server.serve(sockets=[listening])
        finally:
            _home.withdraw()


def _welcome(url: str) -> None:
    from appliance.cli.up import welcome_lines

    print("\n".join(welcome_lines(_home, url)), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
