import json
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

SERVER = """\
pool: {members: {low: models/low, high: models/high}}
fitness: {name: arrays, data: digits}
splits: {search: "0:1437", selection: "1437:1617", report: "1617:1797"}
"""
SLOW = """\
import time
def score(model, indices, split):
    open("inside", "w").close()
    time.sleep(1)
    return 1.0
"""


@pytest.fixture
def file(study: Path) -> Path:
    found = study.parent / "server.yaml"
    found.write_text(SERVER)
    return found


def begun(running: Any) -> str:
    """The address, once it listens."""
    url: str = json.loads("".join(iter(running.process.stdout.readline, "}\n")) + "}")["url"]
    return url


@pytest.mark.slow
def test_a_study_over_http_from_the_command_line(  # noqa: PLR0917 - fixtures
    evomerge: Any, study: Path, file: Path, start: Any, history: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = evomerge("serve-token", "alice", "--tokens", "tokens.json")
    assert token.code == 0
    assert token.out.startswith("evomerge_")
    running = start("serve-pool", file, "--tokens", "tokens.json", "--port", 0, "--json")
    url = begun(running)
    assert evomerge("run", "study.yaml").code == 0
    there = study.parent / "there.yaml"
    lines = [
        line
        for line in study.read_text().replace("name: arrays", f'name: pool_server\n  url: "{url}"').splitlines()
        if not line.strip().startswith(("data:", "pool:", "members:", "low:", "high:"))
    ]
    there.write_text("\n".join(lines).replace("pool_server", "pool_server\n  token_env: POOL_TOKEN"))
    lacking = evomerge("check", there)
    assert (lacking.code, "POOL_TOKEN holds no token" in lacking.err) == (2, True)
    monkeypatch.setenv("POOL_TOKEN", token.out.strip())
    checked = evomerge("check", there)
    assert checked.code == 0, checked.err
    assert url in checked.out
    assert evomerge("run", there).code == 0
    assert history(study.parent / "there.db") == history(study.parent / "study.db")
    assert token.out.strip().encode() not in (study.parent / "there.db").read_bytes()
    exported = evomerge("export", "digits", "out", "--db", "there.db")
    assert (exported.code, "are on a server" in exported.err) == (2, True)
    assert evomerge("verify", "--db", "there.db").code == 0
    running.signal(signal.SIGINT)
    ended = running.end()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "ended" in ended.err
    assert all(json.loads(line)["holder"] == "alice" for line in Path("server.yaml.audit").read_text().splitlines())
    gone = evomerge("check", there)
    assert gone.code == 6
    assert "gave no usable answer" in gone.err


@pytest.mark.slow
def test_requests_inside_finish_after_sigterm(file: Path, start: Any) -> None:
    (file.parent / "slow.py").write_text(SLOW)
    file.write_text(SERVER.replace("name: arrays, data: digits", "name: callable, function: 'slow.py:score'"))
    running = start("serve-pool", file, "--port", 0, "--json")
    url = begun(running)
    question = {"control": {"operator": "linear", "values": [0.5, 0.5]}}

    def end() -> None:
        running.wait_until(Path("inside").exists)
        running.signal(signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    with httpx.Client(trust_env=False, timeout=60) as client:
        reply = client.post(f"{url}/v1/score", json=question)
    thread.join()
    assert reply.json()["objectives"] == [["score", 1.0]]
    assert running.end().code == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--host", "0.0.0.0"], "can be reached by others, so tokens are needed"),
        (["--host", "example.org"], "can be reached by others"),
        (["--tokens", "none.json"], "there is no tokens file none.json"),
        (["--tls-cert", "cert.pem"], "belong together"),
        (["--tls-cert", "cert.pem", "--tls-key", "key.pem"], "there is no file cert.pem"),
        (["--audit", "none/audit"], "cannot keep the audit log"),
    ],
)
def test_what_cannot_be_served_is_said(evomerge: Any, file: Path, arguments: list[str], why: str) -> None:
    ended = evomerge("serve-pool", file, "--port", 0, *arguments)
    assert (ended.code, why in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("pool: ", "pools: ", "unknown key 'pools'; did you mean 'pool'?"),
        ("models/low", "models/none", "pool member low"),
        ("name: arrays", "name: arays", "did you mean 'arrays'?"),
        ("splits:", "operators: [liner]\nsplits:", "did you mean 'linear'?"),
        ("splits:", "operators: ['os:system']\nsplits:", "is no registered name"),
        ("splits:", "operators: []\nsplits:", "operators is empty"),
        ("splits:", "executor: {kind: threads}\nsplits:", "a server scores candidates itself"),
        ("splits:", "executor: {time_limit: 5}\nsplits:", "needs executor.kind: ray"),
        ("splits:", "limits: {waiting: 0}\nsplits:", "limits.waiting is 0; give a whole number > 0"),
        ("name: arrays, data: digits", "name: pool_server, url: 'http://127.0.0.1:1'", "has its models elsewhere"),
    ],
)
def test_a_wrong_server_file_is_explained(evomerge: Any, file: Path, old: str, new: str, why: str) -> None:
    file.write_text(SERVER.replace(old, new, 1))
    ended = evomerge("serve-pool", file, "--port", 0)
    assert (ended.code, why in " ".join(ended.err.split())) == (2, True), ended.err


def test_a_port_that_is_taken_is_named(evomerge: Any, file: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = evomerge("serve-pool", file, "--port", taken.getsockname()[1])
    assert (ended.code, "choose another --port" in ended.err) == (2, True)


def test_a_token_is_shown_once(evomerge: Any, study: Path) -> None:
    made = evomerge("serve-token", "alice", "--tokens", "tokens.json", "--evaluations", 5, "--json")
    document = json.loads(made.out)
    assert document["token"] not in Path("tokens.json").read_text()
    assert stat.S_IMODE(Path("tokens.json").stat().st_mode) == 0o600
    again = evomerge("serve-token", "alice", "--tokens", "tokens.json")
    assert (again.code, "has a token in" in again.err) == (2, True)
