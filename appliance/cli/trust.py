"""``appliance trust``: keys and roots of trust of a build station. Owns the words; keys and roots are ``appliance.bundle.keys`` and ``station_roots``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.bundle.format.dsse import Envelope
from appliance.bundle.format.manifest import format_time
from appliance.bundle.format.trust_root import TrustedKey, parse_chain
from appliance.bundle.key_ring import KeyRing, passphrase_from_environment, read_public_key
from appliance.bundle.keys import CHAIN_NAME, DEFAULT_VALID_DAYS, Station, station_folder
from appliance.bundle.station_roots import PROPOSAL_NAME, RootChange, read_proposal, rotate, sign_next
from appliance.hub.model_trust import PUBLIC_NAME
from appliance.identity.console import home_folder, print_json, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Keys and roots of trust: init, show, fingerprint, key, rotate, sign, accept. The station is $APPLIANCE_STATION (default ./var/station); "
    "$APPLIANCE_STATION_PASSPHRASE_FILE names a file with the passphrase of its private keys.",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ValidDays = Annotated[int, typer.Option(min=1, max=36500, help="Until the root expires.")]


@app.callback()
def trust() -> None:
    """Keys and roots of trust."""


@app.command("init")
def init(
    *,
    keys: Annotated[int, typer.Option(min=0, max=32, help="How many keys of role bundle to make here.")] = 1,
    threshold: Annotated[int, typer.Option(min=1, max=32, help="How many of them must sign a bundle.")] = 1,
    root_keys: Annotated[
        int, typer.Option(min=0, max=32, help="How many further keys of role root to make; 0: the bundle keys have both roles.")
    ] = 0,
    root_threshold: Annotated[int, typer.Option(min=0, max=32, help="How many must sign a root; 0: as many as a bundle needs.")] = 0,
    public_key: Annotated[list[Path] | None, typer.Option(help="Public key (PEM) of another machine that may sign bundles. Repeat.")] = None,
    model_key: Annotated[list[Path] | None, typer.Option(help="Public key (PEM, P-256) that signs models; default: that of $APPLIANCE_HOME.")] = None,
    valid_days: ValidDays = DEFAULT_VALID_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make keys and the first root of trust. Write its fingerprint on paper: it is what a site compares.

    Examples:
        appliance trust init --keys 3 --threshold 2
        appliance trust init --keys 2 --threshold 2 --root-keys 3 --root-threshold 2 --valid-days 1825
    """
    station = Station.create(
        station_folder(),
        keys=keys,
        threshold=threshold,
        root_keys=root_keys,
        root_threshold=root_threshold,
        public_keys=[read_public_key(path) for path in public_key or ()],
        model_keys=[read_public_key(path) for path in model_key] if model_key else _home_model_keys(),
        valid_days=valid_days,
    )
    _report(station, as_json=as_json)
    if len(station.here("bundle")) > 1 and not as_json:
        say("all private keys are on this machine: move each keys/<id>.pem to the officer who will hold it")


@app.command("show")
def show(*, as_json: AsJson = False) -> None:
    """Show the root of trust: version, fingerprint, roles, keys, expiry.

    Example: `appliance trust show`
    """
    _report(Station.open(station_folder()), as_json=as_json)


@app.command("fingerprint")
def fingerprint() -> None:
    """Print the fingerprint of the first root, for paper.

    Example: `appliance trust fingerprint`
    """
    sys.stdout.write(f"sha256:{Station.open(station_folder()).fingerprint}\n")


@app.command("key")
def key(*, comment: Annotated[str, typer.Option(help="What the key is called.")] = "bundle", as_json: AsJson = False) -> None:
    """Make one more key pair here, in no role yet, and print the file of its public part. A station of `init` takes it with --public-key.

    Example: `APPLIANCE_STATION=/media/officer-2 appliance trust key --comment "officer 2"`
    """
    ring = KeyRing(station_folder() / "keys", passphrase_from_environment())
    made = ring.make(comment)
    if as_json:
        print_json({"keyid": made.keyid, "public": str(ring.public_path(made.keyid))})
    else:
        sys.stdout.write(f"{ring.public_path(made.keyid)}\n")


@app.command("rotate")
def rotate_root(
    *,
    role: Annotated[str, typer.Option(help="bundle, root or models.")] = "bundle",
    add_key: Annotated[list[Path] | None, typer.Option(help="Public key (PEM) that joins the role. Repeat.")] = None,
    new_key: Annotated[int, typer.Option(min=0, max=32, help="How many keys to make here that join the role.")] = 0,
    remove_key: Annotated[list[str] | None, typer.Option(help="Id of a key that leaves the role, or its first 8 or more digits. Repeat.")] = None,
    threshold: Annotated[int | None, typer.Option(min=1, max=32, help="New threshold of the role; that of models is always 1.")] = None,
    valid_days: ValidDays = DEFAULT_VALID_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make the next root, signed by old and new keys. When keys on other machines must sign too, it waits in next-root.dsse.json.

    Examples:
        appliance trust rotate --role bundle --new-key 1 --remove-key 3a7b0c11
        appliance trust rotate --role root --add-key officer-4.pub.pem --threshold 3
    """
    station = Station.open(station_folder())
    if new_key and role == "models":
        raise ApplianceError("invalid_request", "keys that sign models are made by a home", hint="--add-key FILE")
    made = [station.ring.make(f"{role} of root {station.root.version + 1}") for _ in range(new_key)]
    joining = (*made, *(read_public_key(path) for path in add_key or ()))
    if not joining and not remove_key and threshold is None:
        say("nothing changes but the expiry")
    change = RootChange(role, joining, tuple(remove_key or ()), threshold, valid_days)
    _tell(station, *rotate(station, change), as_json=as_json)


@app.command("sign")
def sign_root(
    file: Annotated[Path | None, typer.Argument(help="next-root.dsse.json of another machine; default: that of this station.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add this machine's signatures to a root that waits for them. Bundles are signed with `appliance bundle sign`.

    Example: `appliance trust sign /media/usb/next-root.dsse.json`
    """
    station = Station.open(station_folder())
    _tell(station, *sign_next(station, read_proposal(file or station.folder / PROPOSAL_NAME)), as_json=as_json)


@app.command("accept")
def accept(
    file: Annotated[Path, typer.Argument(help="root-chain.json of another station.")],
    *,
    fingerprint: Annotated[str, typer.Option(help="Needed when this station has no root yet: sha256:… of the first root, from paper.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take over a chain of roots: a longer one of the same first root, or the first one of a station that only signs.

    Example: `appliance trust accept /media/usb/root-chain.json --fingerprint sha256:3a7b…`
    """
    from appliance.cli.bundle_read import pin_of_fingerprint, read_chain_file

    chain = parse_chain(read_chain_file(file))
    if (station_folder() / CHAIN_NAME).exists():
        station = Station.open(station_folder()).with_chain(chain)
    else:
        if not fingerprint:
            raise ApplianceError("trust_invalid", "this station has no root to compare with", hint="repeat with --fingerprint sha256:… from paper")
        station = Station.adopt(station_folder(), chain, pin_of_fingerprint(fingerprint).first_fingerprint)
    _report(station, as_json=as_json)


def _home_model_keys() -> list[TrustedKey]:
    path = home_folder() / "keys" / PUBLIC_NAME
    if path.is_file():
        return [read_public_key(path, "models")]
    say(f"no {path}: this root trusts no model yet; later: appliance trust rotate --role models --add-key FILE")
    return []


def _tell(before: Station, station: Station, envelope: Envelope, *, as_json: bool) -> None:
    if station.root.version > before.root.version:
        _report(station, as_json=as_json)
        return
    path = station.folder / PROPOSAL_NAME
    if as_json:
        print_json({"waiting": str(path), "signed_with": [entry.keyid for entry in envelope.signatures]})
        return
    say(
        f"the next root carries {len(envelope.signatures)} signatures and needs more: carry {path} to the other stations, appliance trust sign FILE there"
    )


def _report(station: Station, *, as_json: bool) -> None:
    root = station.root
    report: dict[str, Any] = {
        "station": str(station.folder),
        "version": root.version,
        "fingerprint": f"sha256:{station.fingerprint}",
        "issued_at": format_time(root.issued_at),
        "expires_at": format_time(root.expires_at),
        "development": station.is_development,
        "roles": {
            name: {
                "threshold": role.threshold,
                "keys": [
                    {"keyid": keyid, "type": root.keys[keyid].type, "comment": root.keys[keyid].comment, "here": station.ring.has(keyid)}
                    for keyid in role.keys
                ],
            }
            for name, role in sorted(root.roles.items())
        },
    }
    if as_json:
        print_json(report)
        return
    lines = [
        f"root of trust version {report['version']}, expires {report['expires_at']}" + (", FOR DEVELOPMENT" if station.is_development else ""),
        f"fingerprint of the first root: {report['fingerprint']}",
    ]
    for name, role in report["roles"].items():
        lines.append(f"{name}: {role['threshold']} of {len(role['keys'])}" if role["keys"] else f"{name}: nobody")
        lines += [f"  {row['keyid']}  {row['type']:10}  {'here' if row['here'] else '-':4}  {row['comment']}" for row in role["keys"]]
    sys.stdout.write("\n".join(lines) + "\n")
