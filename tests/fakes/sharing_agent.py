"""A node that shares pieces as the test wants: it says what it got, and keeps what it was granted.

with SharingAgent(router.call.agent, "node-1") as agent:
    agent.join(sha256, size)
    (piece,) = agent.granted(1)
    agent.got(sha256, piece.piece, digest=b"…")
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from protos import pieces
from protos.llmrouter.v1 import agent_pb2, agent_pb2_grpc
from tests.fakes.agent import PATIENCE_SECONDS, FakeAgent, hello


class SharingAgent(FakeAgent):
    """One stream of one node that serves pieces at `addresses`."""

    def __init__(
        self,
        stub: agent_pb2_grpc.AgentServiceStub,
        node_id: str,
        *,
        site: str = "a",
        addresses: Sequence[str] = ("127.0.0.1:7070",),
    ) -> None:
        first = hello(node_id)
        first.hello.labels["site"] = site
        first.hello.peer_addresses.extend(addresses)
        self.node_id = node_id
        super().__init__(stub, node_id, first=first)

    def join(
        self,
        sha256: str,
        size: int,
        have: Iterable[int] = (),
        *,
        capacity: int = 1,
        piece_bytes: int | None = None,
        digests: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Wants a file, and has some of its pieces."""
        mask = sum(1 << piece for piece in have)
        join = agent_pb2.SwarmJoin(
            size_bytes=size,
            piece_bytes=pieces.piece_bytes(size) if piece_bytes is None else piece_bytes,
            have=mask.to_bytes(-(-mask.bit_length() // 8), "little"),
            digests=[agent_pb2.PieceDigest(piece=piece, digest=one) for piece, one in digests],
        )
        self.news(sha256, join=join, capacity=capacity)

    def got(
        self, sha256: str, piece: int, *, holder: str = "", digest: bytes = b"", capacity: int = 1
    ) -> None:
        """Has a piece."""
        self.ended_piece(
            sha256, piece, agent_pb2.PIECE_RESULT_GOT, holder, digest=digest, capacity=capacity
        )

    def ended_piece(
        self,
        sha256: str,
        piece: int,
        result: "agent_pb2.PieceResult.ValueType",
        holder: str = "",
        *,
        digest: bytes = b"",
        capacity: int = 1,
    ) -> None:
        """Says what became of a piece."""
        outcome = agent_pb2.PieceOutcome(
            piece=piece, result=result, holder_node_id=holder, digest=digest
        )
        outcome.elapsed.FromMilliseconds(100)
        self.news(sha256, outcomes=[outcome], capacity=capacity)

    def news(
        self,
        sha256: str,
        *,
        join: agent_pb2.SwarmJoin | None = None,
        outcomes: Iterable[agent_pb2.PieceOutcome] = (),
        capacity: int = 1,
        leave: bool = False,
    ) -> None:
        """Says something of a file."""
        news = agent_pb2.PieceNews(
            sha256=sha256, join=join, outcomes=outcomes, capacity=capacity, leave=leave
        )
        self.say(agent_pb2.ConnectRequest(piece_news=news))

    def tell_digests(
        self, asked: agent_pb2.DigestRequest, digests: Iterable[tuple[int, bytes]]
    ) -> None:
        """Answers a question for digests."""
        told = [agent_pb2.PieceDigest(piece=piece, digest=digest) for piece, digest in digests]
        answer = agent_pb2.PieceDigests(sha256=asked.sha256, digests=told)
        self.say(agent_pb2.ConnectRequest(piece_digests=answer))

    def hold(self, sha256: str, size: int) -> None:
        """Lists the one file that it holds."""
        held = agent_pb2.HeldFile(
            repo="o/r", commit="c" * 40, path="m.gguf", size_bytes=size, sha256=sha256
        )
        held.verify_time.GetCurrentTime()
        inventory = agent_pb2.Inventory(files=[held])
        self.say(agent_pb2.ConnectRequest(inventory=inventory))

    def granted(self, count: int) -> list[agent_pb2.PieceGrant]:
        """The first so many pieces that it was granted; waits for them."""

        def all_of() -> list[agent_pb2.PieceGrant]:
            return [piece for command in self._heard for piece in command.piece_grants.grants]

        with self._arrived:
            self._arrived.wait_for(lambda: len(all_of()) >= count or self._ended, PATIENCE_SECONDS)
            found = all_of()
        assert len(found) >= count, f"{len(found)} granted; the stream: {self.error or 'goes on'}"
        return found[:count]

    def granted_where(self, wanted: Callable[[agent_pb2.PieceGrant], bool]) -> agent_pb2.PieceGrant:
        """The first grant that is as wanted; waits for it."""

        def fitting(command: agent_pb2.ConnectResponse) -> Iterator[agent_pb2.PieceGrant]:
            return (piece for piece in command.piece_grants.grants if wanted(piece))

        return next(fitting(self.heard(lambda command: any(fitting(command)))))

    def told_alone(self, *said: bool) -> None:
        """Waits until this is the last that it was told, in this order, of whether it is alone."""

        def changes() -> list[bool]:
            told = [
                command.piece_grants.alone
                for command in self._heard
                if command.HasField("piece_grants")
            ]
            new = [one for place, one in enumerate(told) if place == 0 or told[place - 1] != one]
            return new[-len(said) :]

        with self._arrived:
            self._arrived.wait_for(lambda: changes() == list(said), PATIENCE_SECONDS)
            assert changes() == list(said)

    def asked(self) -> agent_pb2.DigestRequest:
        """The first question for digests."""
        return self.heard(lambda command: command.HasField("digest_request")).digest_request
