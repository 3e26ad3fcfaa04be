"""Checks where the trainer is and how it may be reached: TLS, proxy, and where a token may go."""

from __future__ import annotations

import re
import ssl
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from pydantic import Field

from wm_core.contract.errors import SettingsError
from wm_core.contract.frozen import Frozen
from wm_core.link.robot.sockets import is_this_machine

NO_PROXY = "none"


class AccessSettings(Frozen):
    """Says whom the robot trusts to be its trainer, and the way there."""

    ca_file: str = Field(
        "",
        description="File of the certificates that the trainer's must be signed by; empty: those "
        "of the system",
    )
    client_certificate: str = Field(
        "", description="File with the robot's own certificate, for mutual TLS; empty: none"
    )
    client_key: str = Field(
        "",
        description="File with that certificate's key, without a passphrase; empty: it is in the "
        "same file",
    )
    proxy: str = Field(
        "",
        description="Address of a proxy on the way to the trainer; empty: as the environment "
        "says; none: no proxy",
    )
    allow_plain_http: bool = Field(
        False, description="Whether the token may leave this machine without TLS, readable to all"
    )


class Address(NamedTuple):
    """Holds a trainer's address in parts."""

    scheme: str
    host: str
    port: int
    prefix: str  #: path before ``/v1``, without a slash at its end

    @property
    def base(self) -> str:
        """Give the URL to which paths are added."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}{self.prefix}"


def parse_address(url: str, setting: str = "trainer_url") -> Address:
    """Take an http or https URL apart.

    Raises:
        SettingsError: for anything else, and for one with a user, a query or a control character.
    """
    wanted = f"{setting}: expected a URL like https://trainer:8765"
    if not re.fullmatch(r"[!-~]+", url):
        raise SettingsError(f"{wanted}, got {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise SettingsError(f"{wanted}, got {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{wanted}, got {url!r}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError(f"{wanted}, without user, query and fragment; tokens have token_file")
    return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def check_token(token: str | None) -> None:
    """Raise ``SettingsError`` for a token that cannot stand in a header."""
    if token is not None and not re.fullmatch(r"[!-~]{1,4096}", token):
        raise SettingsError("token_file: expected a token of visible ASCII letters in one piece")


def check_plain(address: Address, token: str | None, access: AccessSettings) -> bool:
    """Tell whether only this machine may be connected to, because a token travels without TLS.

    Raises:
        SettingsError: where the address is of another machine.
    """
    if token is None or address.scheme == "https" or access.allow_plain_http:
        return False
    if not is_this_machine(address.host):
        raise SettingsError(
            f"trainer_url: a token would travel readable to {address.host}; use https, or set "
            "allow_plain_http where the network is trusted, as within a VPN"
        )
    return True


def tls_context(access: AccessSettings, *, needed: bool = True) -> ssl.SSLContext:
    """Make the context that verifies the trainer and shows the robot's own certificate.

    Args:
        access: whom to trust.
        needed: False where no connection is encrypted, so that reading the system's many
            certificates is spared; files that are set are checked all the same.

    Raises:
        SettingsError: for files that are missing, damaged or locked by a passphrase.
    """
    try:
        context = (
            ssl.create_default_context(cafile=access.ca_file or None)
            if needed or access.ca_file
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
        )
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"ca_file: expected a file of PEM certificates, got {access.ca_file!r}: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if access.client_certificate:
        key = access.client_key or access.client_certificate
        try:
            context.load_cert_chain(access.client_certificate, key, password=_no_passphrase)
        except OSError as error:
            raise SettingsError(
                "client_certificate, client_key: expected files of a PEM certificate and its key, "
                f"got {access.client_certificate!r} and {key!r}: {error}"
            ) from error
    elif access.client_key:
        raise SettingsError("client_key is set, and client_certificate is not; set both")
    return context


def _no_passphrase() -> str:
    """Refuse instead of asking a terminal that a robot does not have."""
    raise SettingsError("client_key: expected a key without a passphrase")


def proxy_for(address: Address, access: AccessSettings) -> str:
    """Give the URL of the proxy on the way to the trainer; empty for none.

    Raises:
        SettingsError: for one that is no http or https URL.
    """
    if access.proxy == NO_PROXY or is_this_machine(address.host):
        return ""
    proxy = access.proxy or _proxy_of_environment(address)
    if not proxy:
        return ""
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", proxy):
        raise SettingsError(
            "proxy: expected a URL like http://proxy:3128, from the setting or the environment's "
            f"{address.scheme.upper()}_PROXY"
        )  # which may hold a password: it is not repeated
    return proxy


def _proxy_of_environment(address: Address) -> str:
    if urllib.request.proxy_bypass(address.host):  # no_proxy
        return ""
    found = urllib.request.getproxies()
    return found.get(address.scheme) or found.get("all", "")


def pool_manager(proxy: str, context: ssl.SSLContext) -> urllib3.PoolManager:
    """Make the manager of one client's connection, through ``proxy`` unless that is empty."""
    options: dict[str, Any] = {"num_pools": 2, "maxsize": 1, "block": True, "ssl_context": context}
    if not proxy:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    headers = None
    if parts.username:
        user = unquote(parts.username)
        password = unquote(parts.password or "")
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
        proxy = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=context, **options)


def read_token(path: str) -> str | None:
    """Read the first word of a token file; None for an empty path.

    Raises:
        SettingsError: where there is none.
    """
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError) as error:
        raise SettingsError(f"token_file: expected a file with a token, got {path!r}") from error
