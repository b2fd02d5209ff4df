"""Five hundred mutants are read or refused with a reason; ``make soak`` reads ten thousand."""

import mutants


def test_a_mutant_is_a_slice_or_has_a_typed_reason() -> None:
    told = mutants.run(500, seed=int.from_bytes(b"ct"))
    outcomes = told["outcomes"]
    assert isinstance(outcomes, dict)
    assert told["crashes"] == 0
    assert "untyped" not in outcomes
    assert sum(outcomes.values()) == 500
    assert outcomes["read"] > 20
    assert len(outcomes) > 8
