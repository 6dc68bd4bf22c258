"""Where channels are: conda's own settings of this machine and user (https://docs.conda.io, Using the .condarc
configuration file), as far as they say how to reach channels. Everything else of them does not count here.
"""

from __future__ import annotations

import os

from nbhull.runtime.builder.conda.file import load
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FILES = ("/etc/conda/.condarc", "/etc/conda/condarc", "~/.config/conda/.condarc", "~/.condarc")
"""later ones win"""
DEFAULT_CHANNEL = "conda-forge"
"""repo2docker's"""
LARGEST = 1 << 20


class Settings(Record):
    """How channels are reached."""

    channels: tuple[str, ...]
    """where a file names none"""
    alias: str
    """address before a channel's name; empty: py-rattler's own"""
    named: dict[str, tuple[str, ...]]
    """addresses of channels that are not at the alias, `defaults` among them"""
    certificates: str
    """file of the authorities to trust; empty: the machine's"""
    proxies: dict[str, str]
    """by scheme"""


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings as they are now. Raises InvalidInput for a file that is no YAML."""
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for path in (*FILES, environ.get("CONDARC", "")):
        if path:
            merged.update(contents(os.path.expanduser(path)))
    alias = environ.get("CONDA_CHANNEL_ALIAS") or merged.get("channel_alias")
    channels = environ.get("CONDA_CHANNELS", "").split(",") if environ.get("CONDA_CHANNELS") else merged.get("channels")
    named: dict[str, tuple[str, ...]] = {}
    custom = merged.get("custom_channels")
    for name, address in (custom if isinstance(custom, dict) else {}).items():
        named[str(name)] = (f"{str(address).rstrip('/')}/{name}",)
    if defaults := lines(merged.get("default_channels")):
        named["defaults"] = defaults
    verify = environ.get("CONDA_SSL_VERIFY") or merged.get("ssl_verify")
    proxies = merged.get("proxy_servers")
    return Settings(
        lines(channels) or (DEFAULT_CHANNEL,),
        str(alias or "").rstrip("/"),
        named,
        os.path.expanduser(verify) if isinstance(verify, str) and "/" in verify else "",
        {str(scheme): str(url) for scheme, url in proxies.items()} if isinstance(proxies, dict) else {},
    )


def contents(path: str) -> dict[str, Any]:
    """A file of settings; empty if there is none that this user may read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            data = load(file.read(LARGEST), path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        return {}
    return data if isinstance(data, dict) else {}


def lines(value: Any) -> tuple[str, ...]:
    """A list of texts; anything else is none."""
    return tuple(str(item).strip() for item in value if str(item).strip()) if isinstance(value, list) else ()


def addresses(channels: tuple[str, ...], settings: Settings, folder: str) -> list[str]:
    """The addresses of channels, or their names where the library knows the address; `folder`: where relative paths
    begin. Raises InvalidInput for one that is not known."""
    found: list[str] = []
    for channel in channels or settings.channels:
        if channel == "nodefaults":
            continue  # conda's way to leave out `defaults`, which is never added here
        if channel in settings.named:
            found += [address_of(one, settings, folder) for one in settings.named[channel]]
        elif channel == "defaults":
            raise InvalidInput(
                "the channel 'defaults' stands for no address on this machine",
                "name the channels that are meant, such as conda-forge, or set default_channels in ~/.condarc",
            )
        else:
            found.append(address_of(channel, settings, folder))
    return list(dict.fromkeys(found))


def address_of(channel: str, settings: Settings, folder: str) -> str:
    """One channel's address."""
    from pathlib import Path

    if "://" in channel:
        if not channel.startswith(("https://", "http://", "file:///")):
            raise InvalidInput(f"the channel {channel!r} is not at an address that can be read", "use https://")
        return channel.rstrip("/")
    if channel.startswith(("/", "./", "../", "~")) or channel == ".":
        path = Path(folder, os.path.expanduser(channel)).resolve()
        if not path.is_dir():
            raise InvalidInput(f"there is no channel in the folder {str(path)!r}", "correct the path")
        return path.as_uri()
    return f"{settings.alias}/{channel}" if settings.alias else channel
