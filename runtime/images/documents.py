"""Manifests, indexes and configurations: checked, typed, written canonically.

OCI image-spec (manifest.md, image-index.md, config.md) and Docker's image manifest version 2, schema 2, which have the
same shape under other media types. All of it is hostile input: whatever is not of the form it must have is refused.
"""

from __future__ import annotations

import json
import platform
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.images.blobs import LARGEST_DOCUMENT, parse_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEXES, MANIFESTS = (OCI_INDEX, DOCKER_INDEX), (OCI_MANIFEST, DOCKER_MANIFEST)
LAYERS = {
    OCI_LAYER: "none",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
}
"""media types of layers, and how they are compressed"""
MOST_LAYERS = 500
"""lower folders that overlayfs takes"""
MOST_MANIFESTS = 1000
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""of uname(2), in the words of GOARCH"""


def malformed(what: str, why: str) -> InvalidInput:
    """The error for a document that cannot be used."""
    return InvalidInput(f"the {what} is malformed: {why}", "get the image again, or ask where it comes from")


@dataclass(frozen=True)
class Descriptor:
    """What a document says of another blob (descriptor.md)."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a document."""
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            data["annotations"] = self.annotations
        if self.platform:
            data["platform"] = self.platform
        return data


@dataclass(frozen=True)
class Manifest:
    """One image: its configuration and its layers, the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        """The document, the same bytes for the same content."""
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.to_json(),
                "layers": [layer.to_json() for layer in self.layers],
            }
        )


@dataclass(frozen=True)
class Index:
    """Several images, for several machines."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        """The document, the same bytes for the same content."""
        manifests = [manifest.to_json() for manifest in self.manifests]
        return canonical({"schemaVersion": 2, "mediaType": self.media_type, "manifests": manifests})


def canonical(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON without spaces, keys in their order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def load(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput."""
    if len(data) > LARGEST_DOCUMENT:
        raise malformed(what, f"it has more than {LARGEST_DOCUMENT} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise malformed(what, "it is not valid JSON") from error
    if not isinstance(document, dict):
        raise malformed(what, "it is not a table")
    return document


def parse_descriptor(data: Any, what: str) -> Descriptor:
    """A descriptor. Raises InvalidInput."""
    if not isinstance(data, dict):
        raise malformed(what, "a descriptor is not a table")
    size = data.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise malformed(what, f"a blob has the impossible size {str(size)[:40]!r}")
    media_type = data.get("mediaType")
    if not isinstance(media_type, str) or len(media_type) > 255:
        raise malformed(what, "a blob has no media type")
    annotations = data.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
        raise malformed(what, "annotations are not of the right form")
    target = data.get("platform") or {}
    if not isinstance(target, dict):
        raise malformed(what, "a platform is not a table")
    digest = parse_digest(data.get("digest"), f"digest in the {what}")
    return Descriptor(media_type, digest, size, annotations, target)


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index, whichever it is. `media_type`: what the registry, or the descriptor to it, says.

    Raises InvalidInput for one that could be read as both, or that says it is something else (CVE-2021-41190)."""
    document = load(data, "manifest")
    if document.get("schemaVersion") != 2:
        raise InvalidInput("the manifest is not of schema version 2", "have the image pushed again by a newer tool")
    own = document.get("mediaType", "")
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index == is_manifest:
        raise malformed("manifest", "it is neither a manifest nor an index, or both")
    known = INDEXES if is_index else MANIFESTS
    said = own or media_type or known[0]
    if said not in known or (own and media_type in (*INDEXES, *MANIFESTS) and own != media_type):
        raise malformed("manifest", f"its media type {str(said)[:100]!r} does not fit its content")
    if is_index:
        entries = document["manifests"]
        if not isinstance(entries, list) or len(entries) > MOST_MANIFESTS:
            raise malformed("index", f"it is not a list of at most {MOST_MANIFESTS} manifests")
        return Index(said, tuple(parse_descriptor(entry, "index") for entry in entries))
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise malformed("manifest", f"it is not a list of at most {MOST_LAYERS} layers")
    manifest = Manifest(
        said,
        parse_descriptor(document.get("config"), "manifest"),
        tuple(parse_descriptor(layer, "manifest") for layer in layers),
    )
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise InvalidInput(
            f"this is no image but an artifact of the type {manifest.config.media_type[:100]!r}", "choose an image"
        )
    for layer in manifest.layers:
        if layer.media_type not in LAYERS:
            raise InvalidInput(f"a layer has the media type {layer.media_type[:100]!r}, which is not supported", "")
    return manifest


def machine() -> tuple[str, str]:
    """This machine's architecture and variant, in the words of GOARCH."""
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    return architecture, "v8" if architecture == "arm64" else ""


def choose(index: Index, what: str) -> Descriptor:
    """The image of an index for this machine. Raises NotFound that names those there are."""
    architecture, variant = machine()
    fitting = [
        entry
        for entry in index.manifests
        if (entry.platform.get("os", "linux"), entry.platform.get("architecture", architecture))
        == ("linux", architecture)
        and entry.platform.get("variant", variant) in ("", variant)
    ]
    if not fitting:
        others = sorted(
            {f"{e.platform.get('os', '?')}/{e.platform.get('architecture', '?')}"[:40] for e in index.manifests}
        )
        raise NotFound(f"{what} has no image for linux/{architecture}", f"it has: {', '.join(others) or 'none'}")
    return fitting[0]


@dataclass(frozen=True)
class ImageConfig:
    """An image's configuration (config.md): how its processes run, and the digests of its plain layers."""

    document: dict[str, Any]
    """all of it, as it was"""
    diff_ids: tuple[str, ...]
    """the lowest first"""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: int = signal.SIGTERM
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """What containers need of it, as plain data."""
        return {
            "env": list(self.env),
            "entrypoint": list(self.entrypoint),
            "cmd": list(self.cmd),
            "working_dir": self.working_dir,
            "user": self.user,
            "stop_signal": int(self.stop_signal),
            "volumes": list(self.volumes),
            "labels": self.labels,
        }


def parse_config(data: bytes) -> ImageConfig:
    """A configuration. Raises InvalidInput."""
    document = load(data, "image configuration")
    return check_config(document)


def check_config(document: dict[str, Any]) -> ImageConfig:
    """A configuration from its table. Raises InvalidInput that names what is wrong."""
    what = "image configuration"
    root = document.get("rootfs")
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) > MOST_LAYERS:
        raise malformed(what, "rootfs.diff_ids is not a list of digests")
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise malformed(what, "config is not a table")
    history = document.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise malformed(what, "history is not a list of tables")
    env = texts(config, "Env")
    if not all("=" in variable and not variable.startswith("=") for variable in env):
        raise malformed(what, "Env has an entry that is no NAME=VALUE")
    working_dir, user = text(config, "WorkingDir"), text(config, "User")
    if ".." in working_dir.split("/"):
        raise malformed(what, "WorkingDir climbs")
    volumes = config.get("Volumes") or {}
    labels = config.get("Labels") or {}
    if not isinstance(volumes, dict) or not all(is_text(key) and key.startswith("/") for key in volumes):
        raise malformed(what, "Volumes is not a table of absolute paths")
    if not isinstance(labels, dict) or not all(is_text(k) and isinstance(v, str) for k, v in labels.items()):
        raise malformed(what, "Labels is not a table of texts")
    return ImageConfig(
        document=document,
        diff_ids=tuple(parse_digest(entry, "diff id") for entry in diff_ids),
        env=env,
        entrypoint=texts(config, "Entrypoint"),
        cmd=texts(config, "Cmd"),
        working_dir=working_dir,
        user=user,
        stop_signal=parse_signal(config.get("StopSignal") or "SIGTERM"),
        volumes=tuple(volumes),
        labels=labels,
        shell=texts(config, "Shell"),
    )


def is_text(value: Any) -> bool:
    """Whether a value can be an argument of a process."""
    return isinstance(value, str) and "\0" not in value


def text(config: Mapping[str, Any], key: str) -> str:
    """A text; empty if there is none."""
    value = config.get(key) or ""
    if not is_text(value):
        raise malformed("image configuration", f"{key} is not a text")
    return str(value)


def texts(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; empty if there is none."""
    value = config.get(key) or []
    if not isinstance(value, list) or not all(map(is_text, value)):
        raise malformed("image configuration", f"{key} is not a list of texts")
    return tuple(value)


def parse_signal(value: Any) -> int:
    """A signal's number from `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`. Raises InvalidInput."""
    name = str(value).upper()
    if name.isdigit():
        number = int(name)
    else:
        base, plus, offset = name.removeprefix("SIG").partition("+")
        found = getattr(signal, f"SIG{base}", None)
        number = int(found) if isinstance(found, int) and not base.startswith("_") else 0
        number = number + int(offset) if plus and offset.isdigit() and number else number if not plus else 0
    if not 0 < number < 65:
        raise malformed("image configuration", f"StopSignal {str(value)[:40]!r} is no signal")
    return number


def make_config(
    settings: Mapping[str, Any], diff_ids: Sequence[str], history: Sequence[Mapping[str, Any]], created: str
) -> dict[str, Any]:
    """A configuration for this machine; `settings`: its `config` table; `created`: RFC 3339."""
    architecture, variant = machine()
    return {
        "created": created,
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [dict(entry) for entry in history],
    }
