"""The front in `evomerge show`."""

import json
from pathlib import Path
from typing import Any


def test_a_study_with_several_objectives_shows_its_front(evomerge: Any, finished: Path) -> None:
    shown = json.loads(evomerge("show", "--json").out)["front"]
    assert shown["objectives"] == {"accuracy": "maximize", "cross_entropy": "minimize"}
    assert shown["reference_of"] == "pool members"
    assert shown["hypervolume"] > 0
    out = evomerge("show").out
    assert "that no other beats on every objective" in out
    assert "accuracy (maximize)" in out
    for one in shown["candidates"][:12]:
        assert f"#{one['number']}" in out
    scores = json.loads(evomerge("show", "-c", shown["candidates"][0]["number"], "--json").out)["scores"]["search"]
    assert scores == shown["candidates"][0]["search"]


def test_its_picture(evomerge: Any, finished: Path) -> None:
    ended = evomerge("show", "--picture", "front.png")
    assert (ended.code, "drew front.png" in ended.err) == (0, True)
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")
    wrong = evomerge("show", "--picture", "front.docx")
    assert (wrong.code, ".png, .svg, .pdf" in wrong.err) == (2, True)
    nowhere = evomerge("show", "--picture", "nowhere/front.png")
    assert (nowhere.code, "cannot write nowhere/front.png" in nowhere.err) == (2, True)


def test_with_one_objective_there_is_none(evomerge: Any, study: Path) -> None:
    text = study.read_text()
    assert "data: digits" in text
    study.write_text(text.replace("data: digits", "data: digits\n  losses: false"))
    evomerge("run", study, "--budget", 3)
    assert json.loads(evomerge("show", "--json").out)["front"] is None
    assert "hypervolume" not in evomerge("show").out
    refused = evomerge("show", "--picture", "front.png")
    assert (refused.code, "no front to draw: that takes two objectives" in refused.err) == (2, True)
    assert not Path("front.png").exists()


def test_a_strategy_for_several_objectives_refuses_a_fitness_with_one(evomerge: Any, study: Path) -> None:
    text = study.read_text().replace("data: digits", "data: digits\n  losses: false")
    assert "name: m2n2" in text
    study.write_text(text.replace("name: m2n2", "name: nsga2\n  popsize: 6").replace("  population: 20\n", ""))
    refused = evomerge("check", study)
    assert (refused.code, "given only accuracy" in refused.err) == (2, True)
    assert not Path("study.db").exists()
