"""HTTP to one registry: TLS, private authorities, proxies, retries. Requests go through urllib3."""

from __future__ import annotations

import functools
import http.client
import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, SSLError
from urllib3.util import Retry, Timeout

from nbhull import __version__
from nbhull.runtime.errors import HostUnable, HullError, InvalidInput

CONNECT, READ = 15.0, 60.0
"""seconds to wait for a connection, and for the next bytes of an answer"""
ATTEMPTS = 4
"""of a request that the registry, or the way to it, failed in passing"""
PASSING = frozenset({429, 500, 502, 503, 504})
REDIRECTS = 5
CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")
"""folders, one for each registry, with its `*.crt`, and `*.cert` with `*.key` for a client (docker certs.d)"""

Response = urllib3.BaseHTTPResponse


class Transport:
    """Connections to one registry, shared by threads."""

    def __init__(self, host: str, *, plain_http: bool = False) -> None:
        """`host`: with its port. `plain_http`: speak without TLS, which is else done on this machine alone, and
        only to a server that answers as a registry so, or does not understand TLS."""
        self.host = host
        self.may_be_plain = plain_http or is_loopback(host)
        self.scheme = "http" if plain_http or (self.may_be_plain and answers_plainly(host)) else "https"
        self.pool = make_pool(host)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        attempts: int = ATTEMPTS,
    ) -> Response:
        """One request; `path` may be a whole URL that this registry gave. The body of the answer is left to be read.

        Redirections are followed, credentials only to the same host. Raises HostUnable when the registry cannot
        be reached, InvalidInput for a URL that leaves TLS."""
        url = self.url(path)
        retries = Retry(
            total=attempts,
            connect=attempts,
            read=attempts,
            redirect=REDIRECTS,
            status=attempts,
            other=0,  # a certificate does not get better
            status_forcelist=PASSING,
            allowed_methods=None if body is None else frozenset({"GET", "HEAD"}),
            backoff_factor=0.2,
            raise_on_status=False,
            remove_headers_on_redirect=["Authorization", "Cookie", "Proxy-Authorization"],
        )
        try:
            return self.pool.request(
                method,
                url,
                headers={"User-Agent": f"nbhull/{__version__}", **(headers or {})},
                body=body,
                retries=retries,
                preload_content=False,
            )
        except MaxRetryError as error:
            tried_tls = path.startswith("/") and url.startswith("https:")
            if tried_tls and self.may_be_plain and self.speaks_plainly(error):
                self.scheme = "http"  # for the other threads too
                return self.request(method, path, headers=headers, body=body, attempts=attempts)
            raise unreachable(self.host, error.reason or error) from error
        except (HTTPError, OSError) as error:
            raise unreachable(self.host, error) from error

    def url(self, path: str) -> str:
        """The whole URL of a path, or of a URL that the registry gave. Raises InvalidInput if that leaves TLS."""
        if path.startswith("/"):
            return f"{self.scheme}://{self.host}{path}"
        parts = urlsplit(path)
        if parts.scheme not in ("https", self.scheme) or not parts.hostname:
            raise InvalidInput(f"the registry {self.host} leads to {path[:200]!r}, which is not encrypted")
        return path

    @staticmethod
    def speaks_plainly(error: MaxRetryError) -> bool:
        """Whether a handshake failed because the server has no TLS."""
        reason = error.reason
        return isinstance(reason, SSLError) and any(
            word in str(reason) for word in ("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure")
        )

    def close(self) -> None:
        """Close the connections."""
        self.pool.clear()


def is_loopback(host: str) -> bool:
    """Whether a host, perhaps with a port, is this machine by name or address."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def answers_plainly(host: str) -> bool:
    """Whether a server of this machine's answers as a registry without TLS. One that wants TLS answers otherwise; it
    was shown nothing. Asked first, since a handshake that fails takes longer, in each thread."""
    connection = http.client.HTTPConnection(host, timeout=CONNECT)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def make_pool(host: str) -> urllib3.PoolManager:
    """Connections as the user's environment has them: proxies and authorities. Raises InvalidInput."""
    options: dict[str, Any] = {
        "timeout": Timeout(connect=CONNECT, read=READ),
        "maxsize": 8,
    }
    proxies = getproxies_environment()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or is_loopback(host) or proxy_bypass(host):
        return with_authorities(urllib3.PoolManager(**options), host)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if parts.username:
        headers = urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}")
    try:
        url = f"{parts.scheme}://{parts.hostname}:{parts.port or 80}"
        return with_authorities(urllib3.ProxyManager(url, proxy_headers=headers, **options), host)
    except (LocationParseError, HTTPError, ValueError) as error:
        raise InvalidInput("the proxy named by https_proxy is not a URL", "write it like http://host:port") from error


def with_authorities(manager: urllib3.PoolManager, host: str) -> urllib3.PoolManager:
    """Have TLS trust `make_context`'s authorities; they are read when it is first spoken, which takes as long as a
    small transfer without it."""
    context = functools.cache(make_context)

    class Secured(urllib3.HTTPSConnectionPool):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, ssl_context=context(host), **options)

    manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": Secured}
    return manager


def make_context(host: str) -> ssl.SSLContext:
    """The authorities that are trusted: the system's (or $SSL_CERT_FILE's), and the registry's own of certs.d."""
    context = ssl.create_default_context()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (bundle := os.environ.get(name)) and os.path.isfile(bundle):
            load_authorities(context, bundle)
    for folder in certificate_folders(host):
        names = sorted(os.listdir(folder))
        for name in names:
            if name.endswith(".crt"):
                load_authorities(context, f"{folder}/{name}")
        for name in names:
            key = name.removesuffix(".cert") + ".key"
            if name.endswith(".cert") and key in names:
                context.load_cert_chain(f"{folder}/{name}", f"{folder}/{key}")
    return context


def certificate_folders(host: str) -> list[str]:
    """The folders of certificates that exist for a registry; the user's own come last."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [f"{base}/{host}" for base in (*CERTIFICATES, f"{config}/containers/certs.d")]
    return [folder for folder in folders if os.path.isdir(folder)]


def load_authorities(context: ssl.SSLContext, path: str) -> None:
    """Trust the certificates of a file. Raises InvalidInput that names it."""
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(f"the certificates in {path!r} cannot be used: {error.strerror or error}") from error


def unreachable(host: str, error: BaseException) -> HullError:
    """What a failed connection means to the user."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return HostUnable(
            f"the certificate of the registry {host} is not trusted: {reason(text)}",
            f"put its authority's certificate into {CERTIFICATES[0]}/{host}/ca.crt, or name it by SSL_CERT_FILE",
        )
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text or "record layer failure" in text:
        return HostUnable(f"the registry {host} does not speak TLS", "if that is meant: --plain-http")
    return HostUnable(
        f"the registry {host} cannot be reached: {reason(text)}", "check its name, the network and the proxy settings"
    )


def reason(text: str) -> str:
    """The telling part of a nested error's text."""
    return text.rpartition(": ")[2].strip("()'\" ")[:200] or text[:200]
