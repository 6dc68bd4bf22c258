"""What speaks to py-rattler, as a program of its own: a JSON request on standard input, the answer as the last line
of standard output.

It runs apart for three reasons: py-rattler has threads, and nbhull forks; its certificates and proxies come from the
environment of the whole process; and packages, which nobody has looked into yet, are opened in a container alone, where
this text is all that is handed in. So it imports nothing of nbhull's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

TOGETHER = 8
"""downloads at the same time"""
CHUNK = 1 << 20


async def solve(request: dict[str, Any]) -> Any:
    """The packages that satisfy `specs` from `channels` (addresses, the most important first), with URLs and digests.
    `virtual`: names and versions of what the base system has."""
    import rattler

    virtual = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build))
        for name, version, build in request["virtual"]
    ]
    specs = [rattler.MatchSpec(text, strict=False) for text in request["specs"]]
    gateway = rattler.Gateway(cache_dir=Path(request["cache"]), client=rattler.Client.default_client())
    records = await rattler.solve(
        sources=[rattler.Channel(channel) for channel in request["channels"]],
        specs=specs,
        gateway=gateway,
        platforms=[request["platform"], "noarch"],
        virtual_packages=virtual,
    )
    return [
        {
            "url": str(record.url),
            "sha256": record.sha256.hex() if record.sha256 else "",
            "md5": record.md5.hex() if record.md5 else "",
        }
        for record in records
    ]


async def download(request: dict[str, Any]) -> Any:
    """Get `packages` (URL, what is known of its digests, the folder that it belongs into); their SHA-256, in order."""
    import rattler
    from rattler.package_streaming import download_to_path

    client = rattler.Client.default_client()
    places = asyncio.Semaphore(TOGETHER)

    async def get(package: dict[str, str]) -> str:
        name = package["url"].rpartition("/")[2]
        part = Path(request["folder"], f"{name}.{os.urandom(4).hex()}.part")
        async with places:
            try:
                if package["url"].startswith("file://"):
                    await asyncio.to_thread(shutil.copyfile, url2pathname(package["url"].removeprefix("file://")), part)
                else:
                    await download_to_path(client, package["url"], part)
                return await asyncio.to_thread(keep, part, name, package, request["folder"])
            finally:
                part.unlink(missing_ok=True)

    return await asyncio.gather(*(get(package) for package in request["packages"]))


def keep(part: Path, name: str, package: dict[str, str], folder: str) -> str:
    """Verify what was downloaded, and give it its place; its SHA-256."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with part.open("rb") as file:
        while piece := file.read(CHUNK):
            sha256.update(piece)
            md5.update(piece)
    for known, found in ((package["sha256"], sha256.hexdigest()), (package["md5"], md5.hexdigest())):
        if known and known != found:
            raise ValueError(f"{package['url']} has the digest {found}, and not {known}")
    place = Path(folder, sha256.hexdigest())
    place.mkdir(mode=0o700, exist_ok=True)
    part.rename(place / name)
    return sha256.hexdigest()


async def install(request: dict[str, Any]) -> Any:
    """Install `packages` (file, URL) into `prefix`."""
    import rattler

    os.umask(0o022)
    records = []
    for package in request["packages"]:
        record = await rattler.RepoDataRecord.from_package_archive(package["file"])
        record.url = f"file://{package['file']}"
        records.append(record)
    await rattler.install(
        records, request["prefix"], cache_dir=Path("/tmp/packages"), show_progress=False, execute_link_scripts=False
    )
    origins = {package["url"].rpartition("/")[2]: package["url"] for package in request["packages"]}
    tell_origins(Path(request["prefix"], "conda-meta"), origins)


def tell_origins(metadata: Path, origins: dict[str, str]) -> None:
    """Have conda's records name where packages came from, and nothing of the folders they were unpacked in."""
    for path in metadata.glob("*.json"):
        record = json.loads(path.read_bytes())
        url = origins[record["fn"]]
        record.update(url=url, channel=url.rpartition("/")[0].rpartition("/")[0])
        for key in ("extracted_package_dir", "link", "package_tarball_full_path"):
            record.pop(key, None)
        path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        path.chmod(0o644)


def main() -> None:
    """Serve one request."""
    request = json.load(sys.stdin)
    serve = {"solve": solve, "download": download, "install": install}[request["do"]]
    try:
        answer = {"answer": asyncio.run(serve(request))}
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told on the other side
        answer = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
    sys.stdout.write(f"\n{json.dumps(answer)}")
    sys.stdout.flush()
    os._exit(0)  # py-rattler's threads do not always stand the interpreter's end


if __name__ == "__main__":
    main()
