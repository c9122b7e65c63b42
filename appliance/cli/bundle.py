"""``appliance bundle``: the tree of its verbs; they live in ``bundle_build``, ``bundle_read``, ``bundle_media``, ``bundle_site``."""

from __future__ import annotations

import typer

from appliance.cli import bundle_build, bundle_media, bundle_read, bundle_site

app = typer.Typer(
    no_args_is_help=True,
    help="Signed bundles: build | sign on a station, verify | inspect | diff anywhere, split | join | delta for media, install | upgrade | rollback | history on a site.",
)
for verbs in (bundle_build, bundle_read, bundle_media, bundle_site):
    verbs.register(app)
