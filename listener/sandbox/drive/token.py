"""The token address: a service account's signed request becomes an access token, if the clocks agree."""

import json
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions, jwt

from listener.sandbox.clock import Clock

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EMAIL = "listener@sandbox.example"
_MOST_SKEW_S, _MOST_TOKEN_S = 300.0, 3_600
_ANY = 10**9


class Keys:
    """The account's key, and the tokens that were given out. token_s: how long one is good."""

    def __init__(self, clock: Clock, token_s: int) -> None:
        self._clock = clock
        self._token_s = token_s
        self._until: dict[str, float] = {}
        self._given = 0
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self._private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self._public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def key_file(self, base_url: str) -> dict[str, str]:
        """Give the account's key file. base_url: of this sandbox."""
        return {
            "type": "service_account",
            "client_email": _EMAIL,
            "private_key_id": "1",
            "private_key": self._private,
            "token_uri": f"{base_url}/token",
        }

    def revoke(self) -> None:
        """Let no token that was given out be good any more."""
        self._until.clear()

    def is_good(self, authorization: str) -> bool:
        """Tell whether an `Authorization` header carries a token."""
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and self._until.get(token, 0.0) > self._clock.ticks()

    def give(self, form: bytes, audience: str) -> tuple[int, dict[str, Any]]:
        """Answer a request for a token: status and JSON."""
        fields = parse_qs(form.decode("utf-8", "replace"))
        if fields.get("grant_type") != [_GRANT]:
            return 400, {"error": "unsupported_grant_type", "error_description": f"Invalid grant_type, not {_GRANT}"}
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                fields.get("assertion", [""])[0], certs=self._public, audience=audience, clock_skew_in_seconds=_ANY
            )
            wrong = self._wrong(claims)
        except (ValueError, exceptions.GoogleAuthError, json.JSONDecodeError) as error:
            wrong = f"Invalid JWT Signature ({type(error).__name__})."
        if wrong is not None:
            return 400, {"error": "invalid_grant", "error_description": wrong}
        self._given += 1
        token = f"sandbox-token-{self._given}"
        self._until[token] = self._clock.ticks() + self._token_s
        return 200, {"access_token": token, "expires_in": self._token_s, "token_type": "Bearer"}

    def _wrong(self, claims: Any) -> str | None:
        now = self._clock.epoch_s() + self._clock.offset_s
        if claims["exp"] - claims["iat"] > _MOST_TOKEN_S or abs(claims["iat"] - now) > _MOST_SKEW_S:
            return (
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim."
            )
        if claims.get("iss") != _EMAIL:
            return "Invalid JWT: unknown issuer."
        return None if "drive" in str(claims.get("scope")) else "Invalid JWT: no scope."
