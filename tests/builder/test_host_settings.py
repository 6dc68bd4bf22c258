"""What containers are given of the host to reach the network as it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbhull.runtime import hostsettings
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import Box, run

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n"


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A company's settings; the folder of its files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://pip.example/simple\nextra-index-url = file:///x https://more.example/\n"
        "cert = /x\n[install]\ntrusted-host = pip.example\n"
    )
    (tmp_path / ".npmrc").write_text(
        "registry=https://npm.example/\n//npm.example/:_authToken=s3cr3t\n@a:registry=https://a/\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    for name in [name for name in os.environ if name.lower().startswith(("pip_", "npm_config_"))]:
        monkeypatch.delenv(name)
    return tmp_path


def test_settings_are_read_without_tokens_and_paths_of_the_host(company: Path) -> None:
    found = hostsettings.read()
    assert found.env["https_proxy"] == "http://proxy.example:3128"
    assert found.files[found.env["SSL_CERT_FILE"]].decode() == CERTIFICATE
    pip = found.files[found.env["PIP_CONFIG_FILE"]].decode()
    assert "index-url = https://pip.example/simple\n" in pip
    assert "extra-index-url = https://more.example/\n" in pip
    assert "trusted-host = pip.example\n" in pip
    assert "cert" not in pip.replace("certs", "")
    npm = found.files[found.env["NPM_CONFIG_GLOBALCONFIG"]].decode()
    assert "registry=https://npm.example/\n" in npm
    assert "@a:registry=https://a/\n" in npm
    assert f'CaInfo "{hostsettings.FOLDER}/ca.crt"' in found.files[found.env["APT_CONFIG"]].decode()
    everything = b"".join(found.files.values()) + repr(found.env).encode()
    assert b"s3cr3t" not in everything
    assert b"file://" not in everything


def test_nothing_is_made_up(tmp_path: Path) -> None:
    bare = {"SSL_CERT_FILE": str(tmp_path / "missing"), "XDG_CONFIG_HOME": str(tmp_path)}
    assert set(hostsettings.read(bare).env) & set(hostsettings.PROXIES) == set()


@pytest.mark.requires("busybox")
def test_images_get_them_for_as_long_as_the_container_runs(base_engine: Engine, company: Path) -> None:
    box = Box(base_engine, ContainerSpec(image="base"))
    try:
        assert box.out("cat $SSL_CERT_FILE").strip() == CERTIFICATE.strip()
        assert box.out("echo $https_proxy; grep -c pip.example $PIP_CONFIG_FILE") == "http://proxy.example:3128\n2"
        assert box.run("touch $SSL_CERT_FILE").returncode != 0
        taken_over = ProcessSpec(("sh", "-c", "cat $SSL_CERT_FILE"), env={"SSL_CERT_FILE": str(company / "ca.pem")})
        assert run(base_engine, box.id, taken_over).stdout == CERTIFICATE
        own = ProcessSpec(("sh", "-c", "echo $SSL_CERT_FILE"), env={"SSL_CERT_FILE": "/own"})
        assert run(base_engine, box.id, own).stdout == "/own\n"
        image = base_engine.snapshot(box.id)
    finally:
        base_engine.remove(box.id, force=True)
    without = Box(base_engine, ContainerSpec(image=image.id, host_settings=False))
    try:
        assert without.out("env | grep -E 'proxy|CERT' || true; test ! -e /run/nbhull/host") == ""
    finally:
        base_engine.remove(without.id, force=True)


def test_the_host_s_own_system_has_its_files_already(
    engine: Engine, company: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    box = Box(engine, ContainerSpec())
    assert box.out("echo $https_proxy $CURL_CA_BUNDLE $SSL_CERT_FILE") == (
        "http://proxy.example:3128 /etc/ssl/certs/ca-certificates.crt"
    )
    engine.remove(box.id, force=True)
