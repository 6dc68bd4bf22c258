"""Manifests and blobs of one repository of a registry (the end points of the distribution specification)."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlencode

from urllib3.exceptions import HTTPError

from nbhull.runtime.errors import Denied, HullError, InvalidInput, NotFound
from nbhull.runtime.images.blobs import LARGEST_DOCUMENT, digest_of
from nbhull.runtime.images.documents import INDEXES, MANIFESTS
from nbhull.runtime.registry import credentials
from nbhull.runtime.registry.authorization import Anonymous, Authorization
from nbhull.runtime.registry.transport import Response, Transport, unreachable

ACCEPTED = ", ".join([*INDEXES, *MANIFESTS])
PIECE = 1 << 20
CUTS = 8
"""how often a transfer is taken up again without a byte of progress between"""
CHALLENGES = 3
"""refusals of one request that are answered with more"""


class Repository:
    """One repository; thread-safe."""

    def __init__(self, transport: Transport, path: str, *, push: bool = False) -> None:
        self.transport = transport
        self.path = path
        self.scope = f"repository:{path}:{'pull,push' if push else 'pull'}"
        found = credentials.find(transport.host, path)
        self.authorization: Authorization = Anonymous(transport, found)
        self.lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        expected: tuple[int, ...] = (200,),
        scope: str = "",
    ) -> Response:
        """One request, with what the registry needs to know of who asks. `body` makes the body anew for every try.

        Raises NotFound (404), Denied (401, 403), HullError for all other answers than `expected`."""
        for _ in range(CHALLENGES):
            authorization = self.authorization
            response = self.transport.request(
                method, path, headers={**(headers or {}), **authorization.header()}, body=body() if body else None
            )
            if response.status != 401:
                break
            challenges = list(response.headers.getlist("WWW-Authenticate"))
            drop(response)
            with self.lock:
                if self.authorization is authorization:  # no other thread was quicker
                    self.authorization = authorization.escalate(challenges, scope or self.scope)
        if response.status in expected:
            return response
        raise self.failure(response, method)

    def failure(self, response: Response, method: str) -> HullError:
        """What an answer that was not expected means."""
        said = self.explanation(response)
        where = f"{self.transport.host}/{self.path}"
        if response.status in (401, 403):
            return Denied(
                f"the registry {self.transport.host} does not allow that for {self.path}{said}",
                f"nbhull login {self.transport.host}",
            )
        if response.status == 404:
            return NotFound(f"the registry {self.transport.host} has no {self.path}{said}", "check the image's name")
        return HullError(f"{where} answered {response.status} to {method}{said}", "try again later")

    @staticmethod
    def explanation(response: Response) -> str:
        """The registry's own words, made safe to show."""
        with response:
            try:
                body = response.read(8192)
                message = json.loads(body)["errors"][0].get("message", "")
            except (HTTPError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
                return ""
        text = re.sub(r"[^ -~]+", " ", str(message)).strip()[:200]
        return f": {text}" if text else ""

    # Manifests

    def manifest(self, reference: str) -> tuple[bytes, str, str]:
        """A manifest or index by tag or digest: its bytes, media type and digest. Raises NotFound, InvalidInput."""
        response = self.request("GET", f"/v2/{self.path}/manifests/{reference}", headers={"Accept": ACCEPTED})
        try:
            with response:
                data = response.read(LARGEST_DOCUMENT + 1, decode_content=True)
        except (HTTPError, OSError) as error:
            raise unreachable(self.transport.host, error) from error
        if len(data) > LARGEST_DOCUMENT:
            raise InvalidInput(f"the manifest of {self.path} has more than {LARGEST_DOCUMENT} bytes")
        digest = digest_of(data)
        if ":" in reference and digest != reference:
            raise InvalidInput(
                f"the registry gave a manifest with the digest {digest} for {reference}", "do not trust this registry"
            )
        return data, response.headers.get("Content-Type", "").partition(";")[0].strip(), digest

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Give the repository a manifest, under a tag or its digest."""
        path = f"/v2/{self.path}/manifests/{reference}"
        drop(self.request("PUT", path, headers={"Content-Type": media_type}, body=lambda: data, expected=(200, 201)))

    # Blobs, down

    def small_blob(self, digest: str, size: int) -> bytes:
        """A blob that fits in memory, verified. Raises InvalidInput."""
        if size > LARGEST_DOCUMENT:
            raise InvalidInput(f"the configuration {digest} has more than {LARGEST_DOCUMENT} bytes")
        data = b"".join(self.blob(digest, size, 0))
        if digest_of(data) != digest:
            raise InvalidInput(f"the digest of what was received is {digest_of(data)}, not {digest}", "try again")
        return data

    def blob(self, digest: str, size: int, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from `offset` on, taken up again where the connection is cut.

        Not verified here: who writes them hashes them. Raises HostUnable when it goes on failing, InvalidInput
        when there are more than `size`."""
        idle = 0
        while offset < size:
            begun = offset
            cause: BaseException | None = None
            try:
                for piece in self.part(digest, offset):
                    offset += len(piece)
                    if offset > size:
                        raise InvalidInput(f"the blob {digest} has more than the {size} bytes that it should have")
                    yield piece
            except (HTTPError, OSError) as error:
                cause = error
            idle = idle + 1 if offset == begun else 0
            if offset < size and idle > CUTS:
                raise unreachable(self.transport.host, cause or EOFError("the blob ends too early")) from cause

    def part(self, digest: str, offset: int) -> Iterator[bytes]:
        """What one request gives of a blob, from `offset` on."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        response = self.request("GET", f"/v2/{self.path}/blobs/{digest}", headers=headers, expected=(200, 206))
        skip = offset
        if response.status == 206:
            found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            skip = offset - int(found[1]) if found and int(found[1]) <= offset else -1
        with response:
            if skip < 0:
                raise InvalidInput(f"the registry {self.transport.host} gave another part of {digest} than asked for")
            for piece in response.stream(PIECE, decode_content=False):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                yield piece[skip:] if skip else piece
                skip = 0

    # Blobs, up

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        response = self.request("HEAD", f"/v2/{self.path}/blobs/{digest}", expected=(200, 404))
        drop(response)
        return response.status == 200

    def mount(self, digest: str, origin: str) -> bool:
        """Have the registry take a blob from another of its repositories; whether it did."""
        query = urlencode({"mount": digest, "from": origin})
        scope = f"{self.scope} repository:{origin}:pull"
        response = self.request("POST", f"/v2/{self.path}/blobs/uploads/?{query}", expected=(201, 202), scope=scope)
        location = response.headers.get("Location", "")
        drop(response)
        if response.status == 202 and location:  # it began an upload instead, which nobody will end
            drop(self.request("DELETE", location, expected=(204, 404, 405, 202)))
        return response.status == 201

    def upload(self, file: BinaryIO, digest: str, size: int, advance: Callable[[int], None]) -> None:
        """Give the repository a blob, taken up again where the connection is cut. Raises HullError."""
        location = self.begin_upload()
        sent, idle = 0, 0
        while sent < size:
            rest = Upload(file, sent, size, advance)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size - sent),
                "Content-Range": f"{sent}-{size - 1}",
            }
            try:
                response = self.request("PATCH", location, headers=headers, body=rest.restarted, expected=(202, 204))
                location = self.location(response)
                break
            except Denied:
                raise
            except HullError:
                idle += 1
                if idle > CUTS:
                    raise
                location, arrived = self.progress(location)
                advance(arrived - rest.position)
                idle = 0 if arrived > sent else idle
                sent = arrived
        joint = "&" if "?" in location else "?"
        ending = f"{location}{joint}{urlencode({'digest': digest})}"
        drop(self.request("PUT", ending, headers={"Content-Length": "0"}, body=lambda: b"", expected=(201, 204)))

    def begin_upload(self) -> str:
        """Begin an upload; where it goes on."""
        return self.location(self.request("POST", f"/v2/{self.path}/blobs/uploads/", expected=(202,)))

    def progress(self, location: str) -> tuple[str, int]:
        """Where an upload that was cut goes on, and how much the registry has of it: from its beginning where the
        registry does not take up a part that came half (as that of the distribution project does not)."""
        response = self.request("GET", location, expected=(202, 204, 400, 404, 416))
        if response.status not in (202, 204):
            drop(response)
            return self.begin_upload(), 0
        found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("Range", ""))
        # `0-0` is also said where nothing has come at all.
        sent = int(found[1]) + 1 if found and int(found[1]) > 0 else 0
        return self.location(response, location), sent

    def location(self, response: Response, otherwise: str = "") -> str:
        """Where an upload goes on."""
        place = response.headers.get("Location", "") or otherwise
        drop(response)
        if not place:
            raise HullError(f"the registry {self.transport.host} does not say where to upload to", "try again later")
        return place


class Upload:
    """The rest of a file as the body of a request: read in pieces, progress told."""

    def __init__(self, file: BinaryIO, begin: int, size: int, advance: Callable[[int], None]) -> None:
        self.file = file
        self.begin = begin
        self.position = begin
        self.size = size
        self.advance = advance

    def restarted(self) -> Upload:
        """From its beginning again, for one more try."""
        self.advance(self.begin - self.position)
        self.position = self.begin
        return self

    def __iter__(self) -> Iterator[bytes]:
        while self.position < self.size:
            piece = os.pread(self.file.fileno(), min(PIECE, self.size - self.position), self.position)
            if not piece:
                raise HullError("the blob was cut short while it was sent", "pull or load the image again")
            yield piece
            self.position += len(piece)
            self.advance(len(piece))


def drop(response: Response) -> None:
    """Have done with an answer whose body does not matter."""
    response.drain_conn()
    response.release_conn()


def check_login(host: str, given: credentials.Credentials, *, plain_http: bool = False) -> None:
    """Ask a registry whether it takes these credentials (its end point /v2/). Raises Denied, HostUnable."""
    transport = Transport(host, plain_http=plain_http)
    try:
        state: Authorization = Anonymous(transport, given)
        for _ in range(CHALLENGES):
            response = transport.request("GET", "/v2/", headers=state.header())
            challenges = list(response.headers.getlist("WWW-Authenticate"))
            drop(response)
            if response.status != 401:
                break
            state = state.escalate(challenges, "")
        if response.status != 200:
            raise HullError(f"{host} does not answer as a registry (status {response.status})", "check its name")
    finally:
        transport.close()
