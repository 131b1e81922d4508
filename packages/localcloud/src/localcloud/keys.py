"""Whose secret it is: the home's own, and temporary keys that are made from it for whatever localcloud starts.

An account's access key id is its 12 digits, so that it can be read; its secret is the home's, for all accounts.
A job, a function and a model server get a temporary key of their role, as on AWS. It is stateless (a macaroon without
caveats): the session token says whose it is, under a MAC by the home's secret, and id and secret follow from the token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from localcloud.home import ControlError

ACCOUNT = re.compile(r"[0-9]{12}")
SECRET_FILE = "localcloud.secret"  # noqa: S105
_LEAST_CHARACTERS = 32
_TOKEN_PREFIX = "localcloud."  # noqa: S105
_SESSION = "SageMaker"
"""What SageMaker calls the sessions of the roles that its jobs and models run as."""


@dataclass(frozen=True)
class Credential:
    """A key whose secret is known. `arn` is the assumed role's, for temporary keys that localcloud made."""

    access_key: str
    secret: str
    account: str
    token: str = ""
    arn: str = ""


class Keys:
    """All keys that follow from one secret."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    @staticmethod
    def of_home(home: Path) -> Keys:
        """Of the secret in a home directory, made at the first start; ControlError when others could know it."""
        path = home / SECRET_FILE
        try:
            if not path.exists():
                _write_new(path, secrets.token_urlsafe(30))
            status = path.stat()
            secret = path.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise ControlError(f"{path} can't be read or made: {error}. Its directory must be yours") from None
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ControlError(f"{path} is open to others (mode {status.st_mode & 0o777:o}): delete it, begin anew")
        if len(secret) < _LEAST_CHARACTERS:
            raise ControlError(f"{path} holds no secret: delete it, and the next start makes a new one")
        return Keys(secret)

    @staticmethod
    def random() -> Keys:
        """Of a cloud that nobody else has to reach."""
        return Keys(secrets.token_urlsafe(30))

    def account(self, account: str) -> Credential:
        """An account's own key."""
        return Credential(account, self.secret, account)

    def role(self, account: str, role_arn: str, session: str = _SESSION) -> Credential:
        """The temporary key of a role: `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`."""
        name = role_arn.rpartition("/")[2] or "localcloud"
        arn = f"arn:aws:sts::{account}:assumed-role/{name}/{session}"
        payload = base64.urlsafe_b64encode(json.dumps({"account": account, "arn": arn}).encode()).decode()
        return self._of(payload, account, arn)

    def environment(self, credential: Credential) -> dict[str, str]:
        """The variables that hand a key to a process."""
        found = {"AWS_ACCESS_KEY_ID": credential.access_key, "AWS_SECRET_ACCESS_KEY": credential.secret}
        return {**found, "AWS_SESSION_TOKEN": credential.token} if credential.token else found

    def find(self, access_key: str, token: str) -> Credential | None:
        """An account's key or a temporary one that was made here; None for every other."""
        if ACCOUNT.fullmatch(access_key):
            return None if token else self.account(access_key)
        payload, dot, _ = token.removeprefix(_TOKEN_PREFIX).rpartition(".")
        if not token.startswith(_TOKEN_PREFIX) or not dot or not self._same(token, self._token(payload)):
            return None
        whose = json.loads(base64.urlsafe_b64decode(payload))  # ours, as the MAC says
        found = self._of(payload, whose["account"], whose["arn"])
        return found if self._same(found.access_key, access_key) else None

    def prove(self, text: str) -> str:
        """Shows whoever knows the secret too that this is the cloud of that home."""
        return self._mac("proof", text).hex()

    def _of(self, payload: str, account: str, arn: str) -> Credential:
        key = "ASIA" + base64.b32encode(self._mac("id", payload)).decode()[:16]
        secret = base64.b64encode(self._mac("secret", payload)).decode()[:40]
        return Credential(key, secret, account, self._token(payload), arn)

    def _token(self, payload: str) -> str:
        return f"{_TOKEN_PREFIX}{payload}.{self._mac('token', payload).hex()}"

    def _mac(self, purpose: str, text: str) -> bytes:
        return hmac.digest(
            self.secret.encode(), f"{purpose}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256
        )

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _write_new(path: Path, text: str) -> None:
    """Make a file that only its owner reads; whoever sees it sees all of it, also when two start at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another start was faster
    finally:
        temporary.unlink()
