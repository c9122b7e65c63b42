"""``python -m services.allinone``: serve one home until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

from appliance.home import Home
from appliance.kit.egress import GUARD, Destination
from appliance.kit.errors import OUTCOMES, ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
os.umask(0o077)  # whatever the box writes is for its owner only
if __name__ == "__main__":
    start_sealed(_home.path)  # before anything that could load a model library; may replace this process by itself
    GUARD.install()

from appliance.kit.logging import configure_logging, get_logger  # noqa: E402
from appliance.kit.telemetry import configure_telemetry  # noqa: E402
from services.allinone.bootstrap import AllSettings, open_box  # noqa: E402
from services.allinone.ending import Ending  # noqa: E402
from services.allinone.guarded_loop import GuardedLoop  # noqa: E402
from services.gateway.server import GatewayServer, listen, make_server  # noqa: E402

_M_ARENA_MAX = -8  # malloc.h
_OPEN_FILES = 65_536
_INTERNAL = OUTCOMES["internal"].exit


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    parser = argparse.ArgumentParser(prog="python -m services.allinone", description="Serve the box of $APPLIANCE_HOME.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    ending = Ending(_home.logs / "box.stacks")
    try:
        _home.create()
        settings = AllSettings.read()
        configure_logging(level=settings.box.log_level, folder=_home.logs, stderr=False)
        _permit(settings.box.otlp_endpoint, "APPLIANCE_BOX_OTLP_ENDPOINT", "http://host:4318/v1/traces")
        for server in settings.tasks.orchestrator.nats_urls:
            _permit(server, "APPLIANCE_ORCHESTRATOR_NATS_URLS", "nats://host:4222")
        box = settings.box
        end_telemetry = configure_telemetry(box.otlp_endpoint, service="appliance", headers_file=box.otlp_headers_file, content=box.otlp_content)
        _bound_arenas()
        _open_files()
        try:
            with _home.lock():
                import uvloop

                uvloop.run(_serve(settings, options.host, options.port, ending), loop_factory=GuardedLoop)
        finally:
            end_telemetry()
    except _StoppedError:
        print("stopped while it started", file=sys.stderr)
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    except _CannotListenError as error:
        print(f"error: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        print("hint: choose another port: appliance up --port 8081", file=sys.stderr)
        return 40
    except Exception as error:
        get_logger(__name__).exception("box_failed")
        print(f"error: the box cannot go on: {type(error).__name__}: {error} (internal)", file=sys.stderr)
        print(f"hint: send the log in {_home.logs} to support", file=sys.stderr)
        return _INTERNAL
    return 0


def _permit(url: str | None, variable: str, example: str) -> None:
    if url is None:
        return
    try:
        GUARD.permit([Destination.of_url(url)])
    except ValueError as exc:
        raise ApplianceError("settings_invalid", f"{variable}: {exc}", hint=f"an address inside the site, {example}, or leave the variable out") from exc


def _bound_arenas() -> None:
    """Two malloc arenas instead of eight a core (glibc): many threads each kept freed memory of their own, 80 MB after a large document."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _open_files() -> None:
    """As many open files as the machine lets this process have: shells start with 1,024, which is a thousand sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _StoppedError(Exception):
    """Asked to stop before it was ready."""


class _CannotListenError(Exception):
    """The address is taken, or is none of this machine."""


async def _serve(settings: AllSettings, host: str, port: int, ending: Ending) -> None:
    """Serve until a signal comes; one that comes while the box starts ends the start."""
    try:
        listening = listen(host, port)
    except OSError as error:
        raise _CannotListenError(error.strerror) from error
    address = listening.getsockname()
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
    url = f"http://[{shown}]:{address[1]}" if ":" in shown else f"http://{shown}:{address[1]}"
    stop = _Stop(ending)
    try:
        async with open_box(_home, settings, failed=lambda error: ending.begin(f"{type(error).__name__}: {error}", _INTERNAL)) as box:
            server = make_server(box.app)
            stop.serves(server)
            _home.announce(url)
            get_logger(__name__).info("box_ready", url=url)
            if os.environ.get("APPLIANCE_WELCOME"):
                _welcome(url)
            try:
                await server.serve(sockets=[listening])
            finally:
                _home.withdraw()
    except asyncio.CancelledError:
        if stop.ended_the_start:
            raise _StoppedError from None
        raise


class _Stop:
    """What SIGTERM and SIGINT do: stop the server; while there is none yet, cancel the task that starts it."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._starting = asyncio.current_task()
        self._server: GatewayServer | None = None
        self._asked = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    @property
    def ended_the_start(self) -> bool:
        """A signal came before there was a server."""
        return self._asked and self._server is None

    def serves(self, server: GatewayServer) -> None:
        """The box is open."""
        self._server = server
        server.should_exit = self._asked

    def _stop(self) -> None:
        self._ending.begin("it was asked to stop", 0)
        if self._server is not None:
            self._server.should_exit = True
        elif self._starting is not None and not self._asked:
            self._starting.cancel()
        self._asked = True


def _welcome(url: str) -> None:
    from appliance.cli.up import welcome_lines

    print("\n".join(welcome_lines(_home, url)), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
