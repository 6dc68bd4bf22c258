"""Who the user is to a registry: passwords, tokens, helpers, certificates."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Denied, HostUnable, HullError, InvalidInput
from nbhull.runtime.registry import credentials
from nbhull.runtime.registry.client import Repository, check_login
from nbhull.runtime.registry.credentials import Credentials
from nbhull.runtime.registry.transport import Transport
from support.registry import PASSWORD, USER, Answers, Registry

NBHULL = Path(sys.executable).with_name("nbhull")

registries = pytest.mark.requires("docker-registry", "htpasswd", "busybox")


@pytest.fixture
def trusted(user_files: Path, secure_registry: Registry) -> Registry:
    """The secure registry, its authority put where a user puts it."""
    folder = user_files / "containers/certs.d" / secure_registry.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(secure_registry.authority.read_bytes())
    return secure_registry


@registries
def test_an_unknown_authority(secure_registry: Registry, shared_engine: Engine) -> None:
    with pytest.raises(HostUnable, match="is not trusted") as caught:
        shared_engine.pull(f"{secure_registry.host}/a/b:1")
    assert "ca.crt" in caught.value.hint


@registries
def test_login_push_pull_logout(trusted: Registry, shared_engine: Engine, small: str, user_files: Path) -> None:
    name = f"{trusted.host}/secret/small:1"
    with pytest.raises(Denied) as caught:
        shared_engine.push(small, name)
    assert caught.value.hint == f"nbhull login {trusted.host}"

    def nbhull(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([NBHULL, *words], input=given, capture_output=True, text=True, check=False)

    wrong = nbhull("login", "-u", USER, "--password-stdin", trusted.host, given="wrong\n")
    assert wrong.returncode == 1
    assert "refuses these credentials" in wrong.stderr
    assert not (user_files / "containers/auth.json").exists()
    done = nbhull("login", "-u", USER, "--password-stdin", trusted.host, given=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    kept = user_files / "containers/auth.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in done.stdout + done.stderr
    shared_engine.push(small, name)
    assert shared_engine.pull(name).id == shared_engine.catalog.get(small).id
    assert nbhull("logout", trusted.host).returncode == 0
    with pytest.raises(Denied):
        shared_engine.pull(name)
    assert nbhull("logout", trusted.host).returncode == 1


@registries
def test_what_docker_login_has_kept(trusted: Registry, tmp_path: Path) -> None:
    entry = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {trusted.host: {"auth": entry}}}))
    assert credentials.find(trusted.host, "a/b") == Credentials(USER, PASSWORD)
    Repository(Transport(trusted.host), "a/b").has_blob("sha256:" + "0" * 64)


def test_the_most_special_entry(user_files: Path) -> None:
    def entry(name: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{name}:x".encode()).decode()}

    path = user_files / "containers/auth.json"
    path.parent.mkdir(parents=True)
    auths = {"r.example:5000": entry("all"), "r.example:5000/team": entry("team"), "r.example:5000/team/a": entry("a")}
    path.write_text(json.dumps({"auths": auths}))
    for repository, name in (("team/a", "a"), ("team/b", "team"), ("other", "all")):
        assert credentials.find("r.example:5000", repository) == Credentials(name, "x")
    assert credentials.find("elsewhere.example", "team/a") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}', '{"auths": {"r.example": {"auth": "%%%"}}}'])
def test_a_file_that_is_damaged(text: str, user_files: Path) -> None:
    path = user_files / "containers/auth.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InvalidInput, match=str(path)):
        credentials.find("r.example", "a")


def test_a_credential_helper(user_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin/docker-credential-tests"
    helper.parent.mkdir()
    kept = tmp_path / "kept"
    helper.write_text(
        f"#!/bin/sh\ncase $1 in store) cat > {kept};; erase) rm {kept};; "
        f"get) test -e {kept} && cat {kept} || {{ echo credentials not found in native keychain; exit 1; }};; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    path = user_files / "containers/auth.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"credHelpers": {"r.example": "tests"}}))
    assert credentials.find("r.example", "a") is None
    assert credentials.keep("r.example", Credentials("ada", "secret")) == "docker-credential-tests"
    assert "secret" not in path.read_text()
    assert credentials.find("r.example", "a") == Credentials("ada", "secret")
    assert credentials.forget("r.example") == ["docker-credential-tests"]
    assert credentials.find("r.example", "a") is None
    path.write_text(json.dumps({"credsStore": "not-installed"}))
    with pytest.raises(HullError, match="docker-credential-not-installed is not installed"):
        credentials.find("r.example", "a")


class TokenServer:
    """A registry that wants a token, and the server that gives them."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.granted: list[str] = []
        answers.decide = self.decide  # type: ignore[method-assign]

    def decide(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path == "/token":
            self.granted.append(headers.get("Authorization", ""))
            if headers.get("Authorization") == "Basic " + base64.b64encode(b"ada:wrong").decode():
                return 401, {}, b"{}"
            return 200, {}, json.dumps({"token": f"t{len(self.granted)}"}).encode()
        asked = sum(path.startswith("/v2/a/") for _, path, _ in self.answers.seen)
        # each token serves twice, as if it ran out
        if headers.get("Authorization") != f"Bearer t{len(self.granted)}" or asked % 3 == 0:
            realm = f'Bearer realm="http://{self.answers.host}/token",service="s",scope="repository:a/b:pull"'
            return 401, {"WWW-Authenticate": realm}, b"{}"
        return 200, {}, b""


def test_a_token_is_asked_for_and_renewed(answers: Answers) -> None:
    server = TokenServer(answers)
    repository = Repository(Transport(answers.host), "a/b")
    for _ in range(6):
        assert repository.has_blob("sha256:" + "0" * 64)
    assert len(server.granted) > 1
    assert set(server.granted) == {""}
    queries = [path for _, path, _ in answers.seen if path.startswith("/token?")]
    assert "scope=repository%3Aa%2Fb%3Apull" in queries[0]
    assert "service=s" in queries[0]


def test_credentials_go_to_the_token_server(answers: Answers) -> None:
    server = TokenServer(answers)
    credentials.keep(answers.host, Credentials("ada", "lovelace"))
    Repository(Transport(answers.host), "a/b").has_blob("sha256:" + "0" * 64)
    assert server.granted == ["Basic " + base64.b64encode(b"ada:lovelace").decode()]
    shown = [headers.get("Authorization", "") for _, path, headers in answers.seen if path.startswith("/v2")]
    assert not any(text.startswith("Basic") for text in shown)
    with pytest.raises(Denied, match="refuses these credentials"):
        check_login(answers.host, Credentials("ada", "wrong"))


def test_credentials_do_not_follow_a_redirection(answers: Answers) -> None:
    other = Answers()
    try:
        credentials.keep(answers.host, Credentials("ada", "lovelace"))

        def decide(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if "Authorization" not in headers:
                return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
            return 307, {"Location": f"http://{other.host.replace('localhost', '127.0.0.1')}/blob"}, b""

        answers.decide = decide  # type: ignore[method-assign]
        other.answers["GET", "/blob"] = 200, {}, b"data"
        assert b"".join(Repository(Transport(answers.host), "a/b").blob("sha256:" + "0" * 64, 4, 0)) == b"data"
        assert other.seen
        assert all("Authorization" not in headers for _, _, headers in other.seen)
    finally:
        other.close()


def test_a_realm_that_is_not_encrypted() -> None:
    from nbhull.runtime.registry.authorization import Anonymous

    state = Anonymous(Transport("r.example"), Credentials("ada", "lovelace"))
    with pytest.raises(InvalidInput, match="not encrypted"):
        state.escalate(['Bearer realm="http://elsewhere.example/token",service="s"'], "repository:a:pull")


def test_credentials_are_in_no_traceback() -> None:
    assert "lovelace" not in repr(Credentials("ada", "lovelace"))
