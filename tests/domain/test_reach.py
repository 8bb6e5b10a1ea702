"""Where nodes reach one another."""

import pytest

from router.domain.reach import Reach, reach


@pytest.mark.parametrize(
    ("listed", "seen", "near", "far"),
    [
        # On the router's machine: the loopback address first, for those who are there too.
        (
            ["10.0.0.5:7", "127.0.0.1:7"],
            "127.0.0.1",
            ["127.0.0.1:7", "10.0.0.5:7"],
            ["10.0.0.5:7"],
        ),
        (["10.0.0.5:7"], "::1", ["[::1]:7", "10.0.0.5:7"], ["10.0.0.5:7"]),
        # On another: where the router sees it first, when the node has that address itself.
        (
            ["172.17.0.1:7", "10.0.0.5:7", "127.0.0.1:7"],
            "10.0.0.5",
            ["10.0.0.5:7", "172.17.0.1:7", "127.0.0.1:7"],
            ["10.0.0.5:7", "172.17.0.1:7"],
        ),
        (["[fd00::5]:7"], "fd00:0::5", ["[fd00::5]:7"], ["[fd00::5]:7"]),
        # Behind a translator of addresses: that one last.
        (
            ["192.168.1.2:7"],
            "::ffff:203.0.113.9",
            ["192.168.1.2:7", "203.0.113.9:7"],
            ["192.168.1.2:7", "203.0.113.9:7"],
        ),
        (["box.lan:7"], "10.0.0.5", ["box.lan:7", "10.0.0.5:7"], ["box.lan:7", "10.0.0.5:7"]),
        # It listens on its loopback alone.
        (["127.0.0.1:7"], "10.0.0.5", ["127.0.0.1:7"], ["127.0.0.1:7"]),
        # It serves nothing, or we do not know where it is.
        ([], "10.0.0.5", [], []),
        (["10.0.0.5:7"], "", ["10.0.0.5:7"], ["10.0.0.5:7"]),
    ],
)
def test_the_likeliest_address_comes_first(
    listed: list[str], seen: str, near: list[str], far: list[str]
) -> None:
    found = reach(listed, seen)

    assert (list(found.near), list(found.far)) == (near, far)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.5",
        "10.0.0.5:0",
        "10.0.0.5:65536",
        "0.0.0.0:7",
        "[::]:7",
        "224.0.0.1:7",
        "a b:7",
        "http://x:7",
        "[10.0.0.5]x:7",
        "::1:7",
        "-x:7",
        "a" * 300 + ":7",
        "x:7/",
        "x\n:7",
    ],
)
def test_what_is_no_address_is_left_out(text: str) -> None:
    assert reach([text, "10.0.0.5:7"], "").near == ("10.0.0.5:7",)


def test_a_list_of_addresses_has_an_end() -> None:
    assert len(reach([f"10.0.0.{number}:7" for number in range(1, 100)], "").near) == 16


def test_only_those_seen_at_one_place_are_told_of_a_loopback_address() -> None:
    holder = reach(["10.0.0.5:7", "127.0.0.1:7"], "127.0.0.1")

    assert holder.addresses_for(reach([], "127.0.0.9"))[0] == "127.0.0.1:7"
    assert holder.addresses_for(reach([], "10.0.0.6")) == ("10.0.0.5:7",)
    assert Reach().addresses_for(Reach()) == ()
