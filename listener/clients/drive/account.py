"""A Google service account: its key file, and the request for an access token (RFC 7523), signed by google-auth."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from listener.core.errors import ConfigError

SCOPE = "https://www.googleapis.com/auth/drive.readonly"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_S = 3_600


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """One account. token_base, token_path: where tokens are given. assertion: makes a signed request, as a form."""

    email: str
    token_base: str
    token_path: str
    assertion: Callable[[], bytes]


def read_account(path: Path) -> ServiceAccount:
    """Read a key file. Raises ConfigError, which says nothing of the key."""
    from google.auth import crypt, exceptions, jwt  # 60 ms and 11 MiB, for the few who use Drive

    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        email, token_uri = str(info["client_email"]), str(info["token_uri"])
        signer = crypt.RSASigner.from_service_account_info(info)  # type: ignore[no-untyped-call]
        parts = urlsplit(token_uri)
    except (OSError, ValueError, KeyError, TypeError, exceptions.GoogleAuthError) as error:
        raise ConfigError(
            f"DRIVE_SERVICE_ACCOUNT_FILE {path}: {type(error).__name__}: it is no key file of a service account "
            "(JSON with client_email, private_key and token_uri)"
        ) from None

    def assertion() -> bytes:
        now = int(time.time())
        claims = {"iss": email, "scope": SCOPE, "aud": token_uri, "iat": now, "exp": now + _TOKEN_S}
        signed = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
        return urlencode({"grant_type": _GRANT, "assertion": signed.decode()}).encode()

    return ServiceAccount(email, f"{parts.scheme}://{parts.netloc}", parts.path, assertion)
