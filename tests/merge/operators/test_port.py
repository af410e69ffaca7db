import pytest

from evomerge.errors import PluginError, RecipeError
from evomerge.merge.operators.linear import TaskArithmetic
from evomerge.merge.operators.port import Parameter, operator
from evomerge.merge.operators.slerp import Slerp


def test_unknown_operators_and_options_are_named() -> None:
    with pytest.raises(PluginError, match="slerp"):
        operator("slrep")
    with pytest.raises(RecipeError, match="sideways"):
        operator("slerp", (("angle", "sideways"),))
    with pytest.raises(RecipeError, match="no operator"):
        operator("evomerge.merge.pool:ModelPool")


def test_a_wrong_number_of_sources_is_named() -> None:
    with pytest.raises(RecipeError, match="takes 2 sources, the recipe has 3"):
        Slerp().check_sources(3)
    with pytest.raises(RecipeError, match="1 to any"):
        TaskArithmetic().check_sources(0)


def test_impossible_values_say_what_is_possible() -> None:
    density = Parameter("density", 0.05, 1.0, 1.0, limits=(0.0, 1.0), above=True)
    for bad in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(RecipeError, match=f"density = {bad}"):
            density.check(bad)
    with pytest.raises(RecipeError, match=r"must be in \(0, 1\]"):
        density.check(0.0)
    with pytest.raises(RecipeError, match="whole number"):
        Parameter("k", 1, 4, 2, kind="integer").check(1.5)
