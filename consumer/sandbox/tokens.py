"""Member tokens: signed JWTs whose `sub` is the member."""

from __future__ import annotations

import secrets
import time
import uuid

import jwt

__all__ = ["MemberTokens"]

_ALGORITHM = "HS256"
_ISSUER = "thrive-sandbox"


class MemberTokens:
    """Mints and reads member tokens. The key is random, so a token does not outlive the sandbox that made it."""

    def __init__(self, lifetime: int) -> None:
        self.lifetime = lifetime
        """Seconds."""
        self._key = secrets.token_bytes(32)

    def mint(self, user_id: str) -> str:
        """A token for a member."""
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "sub": user_id,
            "scope": "member",
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def subject(self, token: str) -> str | None:
        """Whose token it is; None if it is none of ours, or has expired."""
        try:
            claims = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], issuer=_ISSUER, options={"require": ["exp", "sub"]}
            )
        except jwt.InvalidTokenError:
            return None
        return str(claims["sub"])

    def expire_all(self) -> None:
        """Make every token minted so far worthless."""
        self._key = secrets.token_bytes(32)
