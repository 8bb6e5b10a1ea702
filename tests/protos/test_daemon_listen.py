"""Who a daemon listens to before there are credentials."""

import click
import pytest

from protos.daemon.listen import address, exposure_warning, is_own_host, require_loopback

LOOPBACK = ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "::1", "[::1]", "::ffff:127.0.0.1"]
REACHABLE = [
    "0.0.0.0",
    "::",
    "",
    "192.168.1.5",
    "node-1",
    "127.0.0.1.example.com",
    "localhost.evil",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_permission(host: str) -> None:
    require_loopback(host, insecure=False)

    assert exposure_warning(host) is None


@pytest.mark.parametrize("host", REACHABLE)
def test_any_other_host_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(click.UsageError, match="--insecure"):
        require_loopback(host, insecure=False)


@pytest.mark.parametrize("host", REACHABLE)
def test_any_other_host_is_allowed_when_asked_for_and_warned_about(host: str) -> None:
    require_loopback(host, insecure=True)

    assert "INSECURE" in str(exposure_warning(host))


@pytest.mark.parametrize(
    ("header", "own"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("[::1]:8080", True),
        ("evil.example:8080", False),
        ("192.168.1.5:8080", False),
        ("", False),
        (None, False),
    ],
)
def test_a_server_on_loopback_answers_to_loopback_names_only(header: str | None, own: bool) -> None:
    assert is_own_host(header, "127.0.0.1") is own


def test_a_server_beyond_loopback_answers_to_every_name() -> None:
    assert is_own_host("router.example:8080", "0.0.0.0")


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert address("::1", 80) == "[::1]:80"
    assert address("127.0.0.1", 80) == "127.0.0.1:80"
