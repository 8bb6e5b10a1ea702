"""One node of a libtorrent swarm with a web seed, for `bench.swarm`: a process of its own.

    python -m bench.torrent_node TORRENT FOLDER

Prints the port it listens on, reads the ports of the others (one line, separated by blanks),
fetches, prints `done` when every piece is verified, and goes on seeding until its input ends.
"""

import sys
import time

import libtorrent

_LOOK_SECONDS = 0.02


def main() -> None:
    """Runs until standard input is closed."""
    torrent, folder = sys.argv[1:]
    session = libtorrent.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "allow_multiple_connections_per_ip": True,
            "ssrf_mitigation": False,  # the web seed is on this machine
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
        }
    )
    print(session.listen_port(), flush=True)
    ports = [int(word) for word in sys.stdin.readline().split()]
    wanted = libtorrent.add_torrent_params()
    wanted.ti = libtorrent.torrent_info(torrent)
    wanted.save_path = folder
    handle = session.add_torrent(wanted)
    for port in ports:
        handle.connect_peer(("127.0.0.1", port))
    while not handle.status().is_seeding:
        time.sleep(_LOOK_SECONDS)
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
