"""Between the swarm's words and the contract's messages; whatever comes in is checked."""

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from agent.swarm.digests import DIGEST_BYTES
from agent.swarm.values import Grant, Join, News, Outcome, Result
from protos import pieces
from protos.llmrouter.v1 import agent_pb2

_RESULTS = {
    Result.GOT: agent_pb2.PIECE_RESULT_GOT,
    Result.UNREACHABLE: agent_pb2.PIECE_RESULT_UNREACHABLE,
    Result.FAILED: agent_pb2.PIECE_RESULT_FAILED,
    Result.WRONG: agent_pb2.PIECE_RESULT_WRONG,
    Result.RETURNED: agent_pb2.PIECE_RESULT_RETURNED,
}


def news_to_pb(sha256: str, news: News, *, leave: bool = False) -> agent_pb2.ConnectRequest:
    """News of one file."""
    return agent_pb2.ConnectRequest(
        piece_news=agent_pb2.PieceNews(
            sha256=sha256,
            join=None if news.join is None else _join_to_pb(news.join),
            outcomes=[_outcome_to_pb(outcome) for outcome in news.outcomes],
            capacity=news.capacity,
            leave=leave,
        )
    )


def digests_to_pb(
    sha256: str, digests: Mapping[int, bytes], missing: Iterable[int]
) -> agent_pb2.ConnectRequest:
    """The answer to a part of a DigestRequest."""
    return agent_pb2.ConnectRequest(
        piece_digests=agent_pb2.PieceDigests(
            sha256=sha256, digests=_digests_to_pb(digests), missing=missing
        )
    )


def grants_from_pb(message: agent_pb2.PieceGrants) -> list[Grant]:
    """The grants; a digest of another length is none."""
    return [
        Grant(
            grant.piece,
            grant.holder_node_id,
            tuple(grant.addresses),
            grant.digest if len(grant.digest) == DIGEST_BYTES else b"",
        )
        for grant in message.grants
    ]


def _join_to_pb(join: Join) -> agent_pb2.SwarmJoin:
    bitmap = bytearray(-(-pieces.piece_count(join.size) // 8))
    for piece in join.have:
        bitmap[piece // 8] |= 1 << piece % 8
    return agent_pb2.SwarmJoin(
        size_bytes=join.size,
        piece_bytes=pieces.piece_bytes(join.size),
        have=bytes(bitmap),
        digests=_digests_to_pb(join.digests),
    )


def _outcome_to_pb(outcome: Outcome) -> agent_pb2.PieceOutcome:
    message = agent_pb2.PieceOutcome(
        piece=outcome.piece,
        result=_RESULTS[outcome.result],
        holder_node_id=outcome.holder,
        digest=outcome.digest,
    )
    if outcome.seconds is not None:
        elapsed = Duration()
        elapsed.FromNanoseconds(int(outcome.seconds * 1e9))
        message.elapsed.CopyFrom(elapsed)
    return message


def _digests_to_pb(digests: Mapping[int, bytes]) -> list[agent_pb2.PieceDigest]:
    return [
        agent_pb2.PieceDigest(piece=piece, digest=digest)
        for piece, digest in sorted(digests.items())
    ]
