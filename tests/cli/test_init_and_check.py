import json
from pathlib import Path
from typing import Any

import pytest

from evomerge import config
from evomerge.errors import ConfigError


def test_init_writes_a_study_that_reads(template: Path) -> None:
    settings = config.read(template / "study.yaml").settings
    assert list(settings.pool.members) == ["low", "high"]
    splits = settings.splits
    assert [splits.size(name) for name in ("search", "selection", "report")] == [1437, 180, 180]
    assert sorted(path.name for path in template.iterdir()) == ["models", "study.yaml"]


@pytest.mark.parametrize("there", ["study.yaml", "models"])
def test_init_overwrites_nothing(evomerge: Any, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    ended = evomerge("init", tmp_path)
    assert ended.code == 2
    assert f"{there} is already there and is not overwritten; choose another folder" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_init_with_an_unknown_template(evomerge: Any, tmp_path: Path) -> None:
    ended = evomerge("init", tmp_path / "new", "--template", "digit")
    assert (ended.code, (tmp_path / "new").exists()) == (2, False)
    assert "unknown template 'digit'; did you mean 'digits'?" in ended.err


def test_init_into_a_place_that_cannot_be(evomerge: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = evomerge("init", tmp_path / "file" / "new")
    assert ended.code == 2
    assert "cannot write into" in ended.err


def test_check_tells_what_would_run_and_writes_nothing(evomerge: Any, study: Path) -> None:
    before = sorted(study.parent.rglob("*"))
    ended = evomerge("check", study)
    assert ended.code == 0, ended.err
    for text in ("19,210 parameters", "search 1437 items", "60 evaluations, 10 finalists", "per evaluation", "0.49"):
        assert text in ended.out
    assert sorted(study.parent.rglob("*")) == before


def test_check_as_json(evomerge: Any, study: Path) -> None:
    found = json.loads(evomerge("check", study, "--json").out)
    assert found["pool"]["groups"] == [{"name": "all", "size": 19210}]
    assert found["splits"] == {"search": 1437, "selection": 180, "report": 180}
    assert found["estimate"]["seconds"] > 0
    assert set(found["estimate"]["scores"]) == {"low", "high"}
    assert found["warnings"] == []


def test_check_warns_of_missing_splits(evomerge: Any, study: Path) -> None:
    lines = [line for line in study.read_text().splitlines() if not line.startswith(("  selection", "  report"))]
    study.write_text("\n".join(lines))
    out = evomerge("check", study).out
    assert "warning: splits.selection is empty" in out
    assert "warning: splits.report is empty" in out


def test_check_reports_all_errors_of_the_file_with_lines(evomerge: Any, study: Path) -> None:
    study.write_text(study.read_text().replace("population", "populaton").replace("seed: 42", "seed: x"))
    ended = evomerge("check", study)
    assert ended.code == 2
    assert "seed is 'x'; give a whole number >= 0" in ended.err
    assert "did you mean 'population'?" in ended.err
    with pytest.raises(ConfigError, match=r"study\.yaml:7: seed"):
        config.read(study)
