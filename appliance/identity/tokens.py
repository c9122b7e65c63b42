"""Access tokens: short-lived JWTs signed with ES256 by a key of the box, and the JWKS by which others verify them.

ES256 rather than EdDSA because every OIDC library verifies it (ADR 0006). Refresh tokens are not JWTs: see ``keys`` and ``service``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from appliance.audit.durable_files import write_once
from appliance.kit.errors import ApplianceError

KEY_NAME: Final = "issuer.key.pem"
_ALGORITHM: Final = "ES256"
_LONGEST_TOKEN: Final = 4096
_CLOCK_SKEW_SECONDS: Final = 0  # one box, one clock


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says.

    Attributes:
        user: user name (``sub`` is ``user:<name>``).
        session: family of refresh tokens it belongs to (``sid``); ends with it.
        expires_at: seconds since the epoch.
    """

    user: str
    session: str
    expires_at: int


class TokenIssuer:
    """Makes and reads access tokens.

    Args:
        key: EC P-256 private key with its ``kid`` set.
        issuer, audience: ``iss`` and ``aud``, checked on reading.
        lifetime_seconds: from ``iat`` to ``exp``.
        now: clock, seconds since the epoch.
    """

    def __init__(self, key: ECKey, *, issuer: str, audience: str, lifetime_seconds: int, now: Callable[[], float] = time.time) -> None:
        self._keys = KeySet([key])
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self.lifetime_seconds = lifetime_seconds
        self._now = now

    def issue(self, user: str, roles: frozenset[str], session: str) -> str:
        """A signed access token for ``user``."""
        issued_at = int(self._now())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": f"user:{user}",
            "roles": sorted(roles),
            "sid": session,
            "jti": secrets.token_hex(16),
            "iat": issued_at,
            "exp": issued_at + self.lifetime_seconds,
        }
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid, "typ": "at+jwt"}, claims, self._key)

    def read(self, token: str) -> AccessClaims:
        """The claims of a token that is ours, whole and not expired.

        Raises:
            ApplianceError: ``unauthenticated`` for anything else; the message does not say which check failed.
        """
        if len(token) > _LONGEST_TOKEN:
            raise bad_token()
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[_ALGORITHM])
            self._registry().validate(decoded.claims)
            user = str(decoded.claims["sub"]).removeprefix("user:")
            return AccessClaims(user, str(decoded.claims["sid"]), int(decoded.claims["exp"]))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise bad_token() from error

    def jwks(self) -> dict[str, list[dict[str, object]]]:
        """Public keys, as served at ``/.well-known/jwks.json``."""
        public = dict(self._key.as_dict(private=False))
        return {"keys": [{**public, "use": "sig", "alg": _ALGORITHM, "kid": self._key.kid}]}

    def _registry(self) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self._now()),
            leeway=_CLOCK_SKEW_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            sub={"essential": True},
            sid={"essential": True},
            exp={"essential": True},
        )


def load_or_create_issuer_key(keys: Path) -> ECKey:
    """The issuer's key in folder ``keys`` (mode 0600), made when absent; its ``kid`` is the RFC 7638 thumbprint.

    Raises:
        ApplianceError: ``home_invalid`` when the file is not a P-256 private key.
    """
    path = keys / KEY_NAME
    if not path.exists():
        write_once(path, ECKey.generate_key("P-256").as_pem(private=True), mode=0o600)
    try:
        key = ECKey.import_key(path.read_bytes())
        if not key.is_private or key.curve_name != "P-256":
            raise ValueError(key.curve_name)
        key.ensure_kid()
    except (OSError, ValueError, JoseError) as error:
        raise ApplianceError(
            "home_invalid",
            f"{KEY_NAME} is not a readable P-256 key",
            hint="restore it from a backup, or delete it: everyone must log in again, nothing else is lost",
        ) from error
    return key


def bad_token() -> ApplianceError:
    """The one answer for every bearer that does not hold."""
    return ApplianceError("unauthenticated", "the access token or API key is not valid", hint="log in again")
