"""The simulation with small numbers: near the bound, each byte once from the source."""

import pytest

from bench.sim_swarm import MB, Outcome, Scenario, Simulation, main, scenarios

SIZE = 256 << 20


def run(**change: object) -> Outcome:
    return Simulation(Scenario("small", **({"nodes": 8, "size": SIZE} | change))).run()  # type: ignore[arg-type]


def test_eight_nodes_are_done_near_the_bound_and_the_source_sends_each_byte_once() -> None:
    outcome = run()

    assert outcome.over_bound <= 1.03
    assert outcome.source_ratio <= 1.01


def test_nodes_that_die_and_a_slow_one_cost_little() -> None:
    outcome = run(size=2 * SIZE, slow=(2,), slow_up=MB, dying={5: 4.0, 6: 8.0})

    assert outcome.over_bound <= 1.15
    assert outcome.source_ratio <= 1.05


def test_a_liar_is_found_out_and_costs_little() -> None:
    outcome = run(liars=(3,))

    assert set(outcome.accused) == {"node-3"}
    assert outcome.over_bound <= 1.1
    assert outcome.source_ratio <= 1.1


def test_a_router_that_is_away_for_a_while_does_not_stop_the_nodes() -> None:
    outcome = run(pause=(4.0, 5.0))

    assert outcome.over_bound <= 1.4


def test_who_comes_late_takes_all_from_peers() -> None:
    outcome = run(nodes=12, whole=2)

    assert outcome.source_bytes == 0
    assert outcome.over_bound <= 1.2


def test_each_site_fetches_its_own_copy() -> None:
    outcome = run(sites=2)

    assert outcome.source_ratio <= 1.01
    assert outcome.over_bound <= 1.03


@pytest.mark.parametrize("connection", [2 * MB, 20 * MB])
def test_leases_grow_until_the_line_is_full(connection: float) -> None:
    outcome = run(size=8 * SIZE, connection=connection)

    assert outcome.over_bound <= 1.1


def test_many_nodes_are_done_near_the_bound() -> None:
    outcome = run(nodes=40, size=2 * SIZE)

    assert outcome.over_bound <= 1.03
    assert outcome.source_ratio <= 1.01


def test_the_quick_run_prints_a_line_for_each_scenario(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["--quick", "--only", "8 nodes"])

    lines = capsys.readouterr().out.splitlines()[1:]
    names = [each.name for each in scenarios(quick=True) if "8 nodes" in each.name]
    assert code == 0
    assert [line[:38].strip() for line in lines] == names
