"""Ways to a source: TLS, proxies, IPv6."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from agent.transfer import Proxies, SourceUrl, TransferError
from tests.agent.transfer.conftest import MIB, Scene
from tests.agent.transfer.test_faults import PASSING, bent
from tests.fakes.http_source import FaultySource, times


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


def serving(certificate: Path) -> ssl.SSLContext:
    """What a server needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_file_arrives_over_tls(scene: Scene, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    with FaultySource(scene.source.content, tls=serving(certificate)) as secure:
        scene.resolve = lambda file: SourceUrl(secure.url)

        scene.transfer(tls=trusting).run()

    scene.assert_whole()


def test_a_certificate_that_is_not_trusted_ends_the_transfer_at_once(
    scene: Scene, certificate: Path
) -> None:
    with FaultySource(scene.source.content, tls=serving(certificate)) as secure:
        scene.resolve = lambda file: SourceUrl(secure.url)

        with pytest.raises(TransferError, match="certificate is not trusted") as raised:
            scene.transfer().run()

    assert (raised.value.code, raised.value.retryable) == ("source_untrusted", False)


def test_a_connection_that_breaks_inside_tls_is_tried_again(
    scene: Scene, certificate: Path
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    with FaultySource(scene.source.content, tls=serving(certificate)) as secure:
        secure.rule = times(3, bent(secure, PASSING["cut short"], lambda asked: asked.start > MIB))
        scene.resolve = lambda file: SourceUrl(secure.url)

        scene.transfer(tls=trusting).run()

    scene.assert_whole()


def test_plain_requests_go_through_the_proxy_with_its_credentials(scene: Scene) -> None:
    proxy = f"http://user:p%40ss@127.0.0.1:{scene.source.port}"
    scene.resolve = lambda file: SourceUrl("http://models.invalid/model.gguf")

    scene.transfer(proxies=Proxies({"http": proxy})).run()

    scene.assert_whole()
    assert {asked.target for asked in scene.source.asked} == {"http://models.invalid/model.gguf"}
    credentials = {asked.fields["proxy-authorization"] for asked in scene.source.asked}
    assert credentials == {"Basic dXNlcjpwQHNz"}


def test_secure_requests_go_through_a_tunnel_that_sees_nothing(
    scene: Scene, certificate: Path
) -> None:
    scene.source.tunnel_tls = serving(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    proxy = f"http://127.0.0.1:{scene.source.port}"
    scene.resolve = lambda file: SourceUrl("https://localhost/model.gguf", {"Authorization": "x"})

    scene.transfer(proxies=Proxies({"https": proxy}), tls=trusting).run()

    scene.assert_whole()
    tunnels = [asked for asked in scene.source.asked if asked.method == "CONNECT"]
    assert {asked.target for asked in tunnels} == {"localhost:443"}
    assert not any("authorization" in asked.fields for asked in tunnels)


def test_hosts_without_a_proxy_are_asked_directly(scene: Scene) -> None:
    proxies = Proxies({"http": "http://no-such-host.invalid:1", "no": "127.0.0.1"})

    scene.transfer(proxies=proxies).run()

    scene.assert_whole()


def test_the_environment_names_the_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")

    proxies = Proxies.from_environment()

    assert proxies.by_scheme["https"] == "http://proxy.example:3128"
    assert proxies.by_scheme["no"] == "localhost"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_source_may_have_an_ipv6_address(scene: Scene) -> None:
    with FaultySource(scene.source.content, host="::1") as source:
        scene.resolve = lambda file: SourceUrl(source.url)

        scene.transfer().run()

    scene.assert_whole()
