"""Nodes that cannot ask the router share the work all the same."""

from collections import Counter

from agent.swarm.turns import Turns

NODES = [f"node-{number}" for number in range(8)]
PIECES = range(400)


def test_nodes_that_know_one_another_begin_with_different_pieces() -> None:
    turns = [Turns(node) for node in NODES]
    for own in turns:
        for node in NODES:
            own.know(node)

    first = Counter(piece for own in turns for piece in PIECES if own.of(piece) == 0)
    shares = [sum(own.of(piece) == 0 for piece in PIECES) for own in turns]

    assert first == Counter(PIECES)
    assert min(shares) > len(PIECES) / len(NODES) / 2


def test_a_node_that_knows_no_other_has_no_order() -> None:
    turns = Turns("node-1")

    assert {turns.of(piece) for piece in PIECES} == {0}
