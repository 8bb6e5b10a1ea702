"""The swarm's words on the wire, and its clock."""

import asyncio
import contextlib

from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2 as agent
from router.domain.swarm import Result
from router.services.swarm import Grants, Join, News, Outcome, Question, Swarms

log = get_logger(__name__)

_RESULT_OF = {agent.PieceResult.Value(f"PIECE_RESULT_{result.name}"): result for result in Result}
_SHORTEST_PAUSE = 0.01  # seconds
_AFTER_A_FAULT = 1.0


def news_from(message: agent.PieceNews) -> News:
    """What a node says of a file; outcomes of a kind that we do not know are left out."""
    join = None
    if message.HasField("join"):
        join = Join(
            size_bytes=message.join.size_bytes,
            piece_bytes=message.join.piece_bytes,
            have=message.join.have,
            digests=[(one.piece, one.digest) for one in message.join.digests],
        )
    return News(
        sha256=message.sha256,
        join=join,
        outcomes=[
            Outcome(
                piece=outcome.piece,
                result=_RESULT_OF[outcome.result],
                holder_id=outcome.holder_node_id,
                digest=outcome.digest,
                elapsed=_elapsed_from(outcome),
            )
            for outcome in message.outcomes
            if outcome.result in _RESULT_OF
        ],
        capacity=message.capacity,
        leave=message.leave,
    )


def _elapsed_from(outcome: agent.PieceOutcome) -> float | None:
    """Seconds; None also when time ran backwards."""
    if not outcome.HasField("elapsed"):
        return None
    seconds = outcome.elapsed.seconds + outcome.elapsed.nanos / 1e9
    return seconds if seconds >= 0 else None


def command(message: Grants | Question) -> agent.ConnectResponse:
    """What a node is to be told of a file that is shared."""
    if isinstance(message, Question):
        return agent.ConnectResponse(
            digest_request=agent.DigestRequest(
                sha256=message.sha256,
                size_bytes=message.size_bytes,
                piece_bytes=message.piece_bytes,
                pieces=message.pieces,
            )
        )
    return agent.ConnectResponse(
        piece_grants=agent.PieceGrants(
            sha256=message.sha256,
            grants=[
                agent.PieceGrant(
                    piece=piece.piece,
                    holder_node_id=piece.holder_id,
                    addresses=piece.addresses,
                    digest=piece.digest,
                )
                for piece in message.pieces
            ],
            alone=message.alone,
        )
    )


async def keep_time(swarms: Swarms) -> None:
    """Ends leases that last too long, for ever; the clock of `swarms` is the event loop's."""
    loop, sooner = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(sooner.set)

    swarms.on_sooner(tell)
    while True:
        sooner.clear()
        try:
            at = swarms.tick()
        except Exception:  # nodes whose leases do not end help themselves
            log.exception("the swarm's clock has stopped for a moment")
            at = loop.time() + _AFTER_A_FAULT
        await asyncio.sleep(_SHORTEST_PAUSE)
        try:
            async with asyncio.timeout_at(at):
                await sooner.wait()
        except TimeoutError:
            pass
