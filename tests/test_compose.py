"""What can be said of docker-compose.yml without an engine to run it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def dockerfile() -> str:
    text: str = SERVICES["runner"]["build"]["dockerfile_inline"]
    return text


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_watched_and_not_root(name: str) -> None:
    service = SERVICES[name]
    image = service.get("image") or re.search(r"^FROM (\S+)", dockerfile(), re.MULTILINE)[1]  # type: ignore[index]
    assert re.search(r":\d+\.\d+", image)
    assert service["healthcheck"]["test"]
    assert service.get("user", "") == "postgres" or "\nUSER evomerge" in dockerfile()
    assert "ports" not in service  # nothing here is for the outside


def test_the_password_comes_from_the_environment() -> None:
    given = [
        value for service in SERVICES.values() for key, value in service["environment"].items() if "PASSWORD" in key
    ]
    assert given
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in given)


def test_all_that_the_image_copies_exists() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)", dockerfile(), re.MULTILINE)]
    assert copied
    assert all((ROOT / name).exists() for names in copied for name in names)


def test_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose to ask")
    environment = {"POSTGRES_PASSWORD": "secret"}
    subprocess.run([docker, "compose", "config", "--quiet"], cwd=ROOT, env=environment, check=True)
