"""The whole box with one model that ticks: twenty tokens a second for each stream, each token with the time at which it was due. For ``bench.streams``.

    APPLIANCE_HOME=DIR python -m bench.streams_house PORT SECONDS

The model runs in the box's process, as the peers' scripts have theirs, so that what is measured is the box: authentication, audit, router, guard,
citation check, accounts, the wire. Digits of the time are written as letters: the guard holds digits back until it knows what they are.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncGenerator
from typing import Final

import uvloop

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Tokens, Usage
from appliance.home import Home
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.models_toml import load_home_models
from services.allinone.bootstrap import AllSettings, open_box
from services.allinone.guarded_loop import GuardedLoop
from services.gateway.server import listen, make_server
from services.router.served_model import ServedModel

RATE: Final = 20.0
LETTERS: Final = str.maketrans("0123456789.", "abcdefghijk")
ALIAS: Final = "ticks"


class TickingModel:
    """Satisfies ``ChatModel``."""

    capabilities: Final = Capabilities()

    def __init__(self, seconds: float) -> None:
        self._tokens = int(RATE * seconds)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """Tokens on time; behind time, as fast as they can be sent, and the lag shows."""
        begun = time.monotonic()
        for number in range(self._tokens):
            due = begun + number / RATE
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            yield Tokens((f" q{due:.6f}z".translate(LETTERS),))
        yield Finish("stop", Usage(10, self._tokens))

    async def health(self) -> None:
        """Always able."""


async def serve(port: int, seconds: float) -> None:
    """Until it is killed."""
    home = Home.default()
    home.create()
    catalog = load_home_models(home.path)
    catalog = ModelCatalog((*catalog.specs, ModelSpec("llm", ALIAS, "reader")))
    async with open_box(home, AllSettings.read(), catalog) as box:
        box.models.served[ALIAS] = ServedModel(ALIAS, TickingModel(seconds), version="1")
        await make_server(box.app).serve(sockets=[listen("127.0.0.1", port)])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])), loop_factory=GuardedLoop)
