import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Noise
from evomerge.merge.noise import normal

NOISE = Noise(0.01, 3, 11)
WHOLE = normal(NOISE, "all", 0, 3000)


@given(st.integers(0, 2999), st.integers(1, 200))
def test_any_stretch_is_a_stretch_of_the_whole(start: int, length: int) -> None:
    stop = min(start + length, 3000)
    assert np.array_equal(normal(NOISE, "all", start, stop), WHOLE[start:stop])


def test_seed_number_and_group_each_give_other_noise() -> None:
    others = [(Noise(0.01, 4, 11), "all"), (Noise(0.01, 3, 12), "all"), (NOISE, "rest")]
    for noise, group in others:
        assert abs(np.corrcoef(normal(noise, group, 0, 3000), WHOLE)[0, 1]) < 0.1


def test_it_is_normal() -> None:
    drawn = normal(Noise(1.0, 0, 0), "all", 0, 400_000).astype(np.float64)
    assert drawn.dtype == np.float64
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs((drawn**power).mean() - expected) < 0.03 * power
    for limit, share in ((1.0, 0.158655), (2.0, 0.022750), (3.0, 0.001350)):
        assert abs((drawn > limit).mean() - share) < 4 * np.sqrt(share / 400_000)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
