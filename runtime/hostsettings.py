"""Behind a company's proxy: the host's proxies, certificates, and settings of pip, npm and apt, handed to build steps
and kernels as variables and read-only files, so that nothing of them ends in an image.

Only what says how to reach the network is handed on: no tokens of npm's or passwords of netrc's, and no path of the
host. An index's address is handed on as it is, a name and password in it too.
"""

from __future__ import annotations

import os
import re

from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "/run/nbhull/host"
"""where the files are found inside"""
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""where distributions keep all certificates that are trusted"""
NAMED_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
"""variables of the host that may name another"""
BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "HTTPLIB2_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
"""variables by which programs take their certificates from a file"""
PROXIES = tuple(
    name
    for base in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (base, base.upper())
)
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
NPM_KEYS = ("registry", "proxy", "https-proxy", "noproxy", "strict-ssl")
APT_LINE = re.compile(r'(Acquire::[^\s"]*(?:Proxy|Verify-Peer|Verify-Host|Timeout|Retries)[^\s"]*) "([^"]*)";')


class HostSettings(Record):
    """What a process in a container needs to reach the network as the host does."""

    env: dict[str, str]
    files: dict[str, bytes]
    """by their path inside"""


def read(environ: Mapping[str, str] | None = None) -> HostSettings:
    """The host's settings as they are now. What cannot be read is as if it were not there."""
    environ = os.environ if environ is None else environ
    env = {name: environ[name] for name in PROXIES if environ.get(name)}
    files: dict[str, bytes] = {}
    bundle = certificates(environ)
    if bundle:
        files[f"{FOLDER}/ca.crt"] = bundle
        env.update(dict.fromkeys(BUNDLE_VARIABLES, f"{FOLDER}/ca.crt"))
    for name, text, variable in (
        ("pip.conf", pip(environ), "PIP_CONFIG_FILE"),
        ("npmrc", npm(environ), "NPM_CONFIG_GLOBALCONFIG"),
        ("apt.conf", apt(environ, has_bundle=bool(bundle)), "APT_CONFIG"),
    ):
        if text:
            files[f"{FOLDER}/{name}"] = text.encode()
            env[variable] = f"{FOLDER}/{name}"
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        if is_address(environ.get(name, "")):
            env[name] = environ[name]
    return HostSettings(env, files)


def certificates(environ: Mapping[str, str]) -> bytes:
    """The certificates that the host trusts; empty if there is no file of them."""
    for path in (*(environ.get(name, "") for name in NAMED_BUNDLES), *BUNDLES):
        if path and (data := contents(path)):
            return data
    return b""


def contents(path: str) -> bytes:
    """A file's bytes; empty if there is none that this user may read."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(8 << 20)
    except OSError:
        return b""


def is_address(text: str) -> bool:
    """Whether it leads to the network, and not to a folder of the host."""
    return text.startswith(("http://", "https://"))


def pip(environ: Mapping[str, str]) -> str:
    """pip's settings (https://pip.pypa.io/en/stable/topics/configuration/), later files winning as with pip."""
    import configparser

    values: dict[str, str] = {}
    config_home = environ.get("XDG_CONFIG_HOME") or "~/.config"
    for path in ("/etc/pip.conf", "~/.pip/pip.conf", f"{config_home}/pip/pip.conf", environ.get("PIP_CONFIG_FILE", "")):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(contents(path).decode(errors="replace") if path else "")
        except configparser.Error:
            continue  # pip itself will tell
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update({key: parser.get(section, key) for key in PIP_KEYS if parser.has_option(section, key)})
    for key in PIP_KEYS:
        if value := environ.get(f"PIP_{key.upper().replace('-', '_')}"):
            values[key] = value
    for key in ("index-url", "extra-index-url"):
        if key in values:
            values[key] = " ".join(word for word in values[key].split() if is_address(word))
    lines = [f"{key} = {' '.join(value.split())}" for key, value in values.items() if value]
    return "\n".join(["[global]", *lines, ""]) if lines else ""


def npm(environ: Mapping[str, str]) -> str:
    """npm's settings (https://docs.npmjs.com/cli/configuring-npm/npmrc), without tokens."""
    values: dict[str, str] = {}
    for path in ("/etc/npmrc", "/usr/etc/npmrc", "~/.npmrc", environ.get("NPM_CONFIG_USERCONFIG", "")):
        for line in contents(path).decode(errors="replace").splitlines() if path else []:
            key, equals, value = line.partition("=")
            if equals and (key.strip() in NPM_KEYS or key.strip().endswith(":registry")):
                values[key.strip()] = value.strip()
    for key in NPM_KEYS:
        for name in (f"npm_config_{key.replace('-', '_')}", f"NPM_CONFIG_{key.replace('-', '_').upper()}"):
            if environ.get(name):
                values[key] = environ[name]
    return "".join(f"{key}={value}\n" for key, value in values.items())


def apt(environ: Mapping[str, str], *, has_bundle: bool) -> str:
    """apt's proxies and certificates (apt.conf(5)); its sources are the image's own."""
    lines = []
    try:
        names = sorted(os.listdir("/etc/apt/apt.conf.d"))
    except OSError:
        names = []
    for path in (*(f"/etc/apt/apt.conf.d/{name}" for name in names), "/etc/apt/apt.conf"):
        lines += [f'{key} "{value}";' for key, value in APT_LINE.findall(contents(path).decode(errors="replace"))]
    if has_bundle:
        lines.append(f'Acquire::https::CaInfo "{FOLDER}/ca.crt";')
    return "".join(f"{line}\n" for line in lines)
