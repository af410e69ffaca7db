from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.serve.tokens import Tokens, add, read


def test_a_token_is_kept_as_its_hash_only(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    token = add(file, "alice", evaluations=5)
    assert token.startswith("evomerge_")
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    holder = Tokens(file).holder(token)
    assert holder is not None
    assert (holder.name, holder.evaluations, holder.items) == ("alice", 5, None)
    assert list(tmp_path.iterdir()) == [file]


def test_each_has_its_own(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    tokens = {name: add(file, name) for name in ("alice", "bob", "carol")}
    known = Tokens(file)
    for name, token in tokens.items():
        holder = known.holder(token)
        assert holder is not None
        assert holder.name == name
    for wrong in ("", "evomerge_", tokens["alice"][:-1], tokens["alice"] + "a", "\u00e9"):
        assert known.holder(wrong) is None


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    add(file, "alice")
    known = Tokens(file)
    late = add(file, "bob")
    assert known.holder(late) is not None
    file.write_text("{}")
    assert known.holder(late) is None


@pytest.mark.parametrize("text", ["", "[]", "[1]", '{"a": 1}', '{"a": {"colour": "red"}}', "\x00"])
def test_a_spoilt_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.json"
    token = add(file, "alice")
    known = Tokens(file)
    file.write_text(text)
    for _ in range(2):
        with pytest.raises(ConfigError, match="is no tokens file"):
            known.holder(token)
    with pytest.raises(ConfigError, match="is no tokens file"):
        read(file)


def test_names_are_plain_and_used_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    add(file, "alice@example.org")
    with pytest.raises(ConfigError, match="has a token in"):
        add(file, "alice@example.org")
    for name in ("", "a b", "a\nb", "x" * 65, '"'):
        with pytest.raises(ConfigError, match="is no name"):
            add(file, name)
    with pytest.raises(ConfigError, match="cannot write"):
        add(tmp_path / "none" / "tokens.json", "bob")
    with pytest.raises(ConfigError, match="there is no tokens file"):
        Tokens(tmp_path / "none.json")
