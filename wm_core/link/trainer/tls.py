"""TLS of the service: its certificate, those of robots, and when it may do without.

Off the loopback the service speaks TLS and asks who is there; whoever wants it otherwise says so.
A renewed certificate is read without a restart.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.settings import ServeSettings

log = logging.getLogger(__name__)

_LOOK_S = 60.0  # how often renewed certificates are looked for

PLAIN = (
    "anyone on the way can read and change what is sent, tokens included; for this machine, a VPN "
    "or a proxy that speaks TLS"
)


class Certificates:
    """Keeps the TLS context of the service, and renews it when its files change.

    Args:
        certificate: PEM file of the service's certificate and those between it and its authority.
        key: PEM file of its private key; None where the certificate's file has it too.
        client_ca: PEM file of the authority of robots' certificates, which are then demanded.
        clock: gives seconds that only grow.

    Raises:
        SettingsError: where a file cannot be read, or key and certificate do not belong together.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        client_ca: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._certificate, self._key, self._clock = certificate, key, clock
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._read = self._state()
        self._load()
        self._looked_s = clock()
        if client_ca is not None:
            try:
                self.context.load_verify_locations(client_ca)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"--tls-client-ca {client_ca}: {error}") from error
            self.context.verify_mode = ssl.CERT_REQUIRED

    def refresh(self) -> None:
        """Read the certificate anew if its files changed; what cannot be read changes nothing."""
        if self._clock() - self._looked_s < _LOOK_S:
            return
        self._looked_s = self._clock()
        try:
            state = self._state()
            if state != self._read:
                self._load()
                self._read = state
                log.warning("read the renewed certificate %s", self._certificate)
        except SettingsError as error:
            log.error("the certificate read before stays in use: %s", error)

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"--tls-cert {self._certificate} and --tls-key {self._key}: {error}; expected PEM "
                "files that belong together, the key without a password"
            ) from error

    def _state(self) -> tuple[int, ...]:
        try:
            files = [self._certificate.stat()] + ([self._key.stat()] if self._key else [])
        except OSError as error:
            raise SettingsError(f"--tls-cert, --tls-key: {error}") from error
        return tuple(value for file in files for value in (file.st_ino, file.st_mtime_ns))


def _no_password() -> str:
    raise SettingsError("--tls-key has a password; expected a key without one, of mode 0600")


def certificates_of(settings: ServeSettings) -> Certificates | None:
    """Read the certificates that ``settings`` name; None for plain HTTP."""
    if settings.tls_cert is None:
        if settings.tls_key or settings.tls_client_ca:
            raise SettingsError("--tls-key and --tls-client-ca need --tls-cert FILE")
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def risks_of(settings: ServeSettings, *, loopback: bool) -> list[str]:
    """List what an owner has to know of a service that listens as ``settings`` say.

    Args:
        settings: what the service was told.
        loopback: whether only this machine can reach it.

    Raises:
        SettingsError: where others can reach it without TLS, or no robot could be told from
            another, and ``insecure`` was not said.
    """
    if loopback:
        return []
    risks = []
    if settings.tls_cert is None:
        risks.append(f"without --tls-cert: {PLAIN}")
    if settings.tokens is None and settings.tls_client_ca is None:
        risks.append("without --tokens or --tls-client-ca: peers of other machines are refused")
    if risks and not settings.insecure:
        raise SettingsError(
            f"--host {settings.host} is reached from other machines: "
            f"{'; '.join(risks)}; give what is missing, or say --insecure"
        )
    return risks


def names_in(certificate: Mapping[str, Any] | None) -> set[str]:
    """Give the names that a peer's certificate holds: common names and DNS names."""
    if not certificate:
        return set()
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = {value for name, value in subject if name == "commonName"}
    other = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return common | other
