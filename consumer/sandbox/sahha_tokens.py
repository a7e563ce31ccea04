"""Sahha's tokens in the sandbox: JWTs for the account and for single profiles, under their literal schemes."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

import jwt

__all__ = ["MAX_LIFETIME", "Holder", "Refused", "Tokens"]

MAX_LIFETIME = 86_400
"""How long a token lives, in seconds, and the longest life that can be asked for [S, D; the bound is our own]."""

Kind = Literal["account", "profile"]


class Refused(Exception):
    """A request that shows no right to what it asks. `foreign_scheme`: it came under a scheme that is not Sahha's."""

    def __init__(self, why: str, *, foreign_scheme: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.foreign_scheme = foreign_scheme


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a token speaks for."""

    kind: Kind
    external_id: str | None = None
    """Of a profile's token."""
    read_only: bool = False


class Tokens:
    """Makes and reads tokens. Nothing else can make one that it accepts: the key is random and stays here."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._refresh: dict[str, str] = {}
        self._generation = 0
        self.lifetime = MAX_LIFETIME
        """Of tokens made from now on, in real seconds; for tests of renewal."""

    def revoke(self) -> None:
        """Make every token so far worthless, as if it had expired; refresh tokens stay good."""
        self._generation += 1

    def account(self, client_id: str) -> dict[str, Any]:
        """The answer to a request for an account token."""
        token = self._issue("account", self.lifetime, {"sub": client_id})
        return {"accountToken": token, "expiresIn": self.lifetime, "tokenType": "Account"}

    def profile(self, external_id: str, *, read_only: bool = False, lifetime: int | None = None) -> dict[str, Any]:
        """The answer to a request for a profile's token; `lifetime` is in seconds."""
        lifetime = self.lifetime if lifetime is None else lifetime
        refresh = secrets.token_urlsafe(24)
        self._refresh[refresh] = external_id
        while len(self._refresh) > 10_000:  # noqa: PLR2004  a bound, so that a sandbox left alone does not grow
            del self._refresh[next(iter(self._refresh))]
        return {
            "profileToken": self._issue("profile", lifetime, {"sub": external_id, "readOnly": read_only}),
            "expiresIn": lifetime,
            "tokenType": "Profile",
            "refreshToken": refresh,
        }

    def refreshes(self, refresh_token: str, external_id: str) -> bool:
        """Whether this refresh token is the profile's."""
        return self._refresh.get(refresh_token) == external_id

    def read(self, authorization: str | None, *, expired: bool = False) -> Holder:
        """Whom an Authorization header speaks for; with `expired`, its token may be past its time.

        The scheme is `account` or `profile`, in any letter case (SDKs send `Profile`). Raises `Refused`.
        """
        if not authorization:
            raise Refused("no Authorization header")
        scheme, _, token = authorization.partition(" ")
        kind: Kind
        if scheme.lower() == "account":
            kind = "account"
        elif scheme.lower() == "profile":
            kind = "profile"
        else:
            raise Refused("the scheme is neither account nor profile", foreign_scheme=True)
        claims = self._claims(token.strip(), expired=expired)
        if claims.get("kind") != kind:
            raise Refused(f"the token is not of the kind that the scheme {kind} names")
        if kind == "account":
            return Holder(kind)
        return Holder(kind, str(claims["sub"]), bool(claims.get("readOnly")))

    def _issue(self, kind: Kind, lifetime: int, claims: dict[str, Any]) -> str:
        now = int(time.time())
        own = {"kind": kind, "iat": now, "exp": now + lifetime, "gen": self._generation, "jti": secrets.token_hex(8)}
        return jwt.encode({**own, **claims}, self._key, algorithm="HS256")

    def _claims(self, token: str, *, expired: bool) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                token, self._key, algorithms=["HS256"], options={"require": ["exp", "sub"], "verify_exp": not expired}
            )
        except jwt.InvalidTokenError:
            raise Refused("the token is invalid or has expired") from None
        if claims.get("gen") != self._generation and not expired:
            raise Refused("the token is invalid or has expired")
        return dict(claims)
