"""The schema's versions: made, recognised, upgraded, refused."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from evomerge.errors import SchemaError, StudyExistsError, StudyNotFoundError
from evomerge.store import migrations, open_store, schema
from evomerge.testing.stores.samples import RECORD, turn

Sql = Callable[[Connection], Any]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.pg)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def in_one_go(engine: Engine, work: Sql) -> Any:
    with engine.begin() as connection:
        return work(connection)


def create(url: str) -> None:
    with open_store(url) as store:
        store.create(RECORD)


def structure(engine: Engine) -> Any:
    """All that the database knows about its tables."""
    if engine.dialect.name == "sqlite":
        return in_one_go(engine, lambda c: c.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")).all())
    columns = "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"  # noqa: E501
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
    return [in_one_go(engine, lambda c, query=query: c.execute(text(query)).all()) for query in (columns, indexes)]


def test_tables_made_at_once_equal_migrated_ones(url: str, engine: Engine) -> None:
    create(url)
    at_once = structure(engine)
    in_one_go(engine, lambda connection: migrations.downgrade(connection, "base"))
    in_one_go(engine, migrations.upgrade)
    assert structure(engine) == at_once


def test_tables_equal_the_metadata(url: str, engine: Engine) -> None:
    create(url)

    def differences(connection: Connection) -> Any:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)

    assert in_one_go(engine, differences) == []


def test_every_version_is_known() -> None:
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        scripts = ScriptDirectory.from_config(migrations.config(connection)).walk_revisions()
        assert tuple(script.revision for script in scripts)[::-1] == schema.VERSIONS
    connection.engine.dispose()


def test_all_tables_have_our_prefix() -> None:
    assert all(name.startswith("evomerge_") for name in [*schema.metadata.tables, schema.VERSION_TABLE])


def test_a_newer_schema_is_refused(url: str, engine: Engine) -> None:
    create(url)
    in_one_go(engine, lambda c: c.execute(text("UPDATE evomerge_alembic_version SET version_num = '9999'")))
    with open_store(url) as store:
        for use in (store.studies, lambda: store.open(RECORD.name, write=True), lambda: store.create(RECORD)):
            with pytest.raises(SchemaError, match=r"schema 9999.*newer evomerge"):
                use()


def test_an_older_schema_is_upgraded_by_a_driver_only(url: str, engine: Engine) -> None:
    in_one_go(engine, migrations.upgrade)
    in_one_go(engine, lambda connection: migrations.downgrade(connection, "base"))
    with open_store(url) as store:
        with pytest.raises(SchemaError, match=r"older schema.*upgrade"):
            store.studies()
        with pytest.raises(StudyNotFoundError):
            store.open(RECORD.name, write=True)
        store.create(RECORD)
        store.open(RECORD.name, write=True).save_turn(turn(0))


def test_a_database_may_be_shared_on_a_server(postgres_url: str) -> None:
    engine = sqlalchemy.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    in_one_go(engine, lambda c: c.execute(text("CREATE TABLE studies (name text)")))
    create(postgres_url)
    in_one_go(engine, lambda c: c.execute(text("SELECT * FROM studies, evomerge_studies")))
    engine.dispose()


def test_many_may_create_the_tables_at_once(url: str) -> None:
    def one(number: int) -> str:
        try:
            create(url)
        except StudyExistsError:
            return "second"
        return "first"

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(one, range(6))) == ["first"] + ["second"] * 5


# --- files that are not ours --------------------------------------------------------------------------------------


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE recipes (cake TEXT)")
    other.close()
    before = file.read_bytes()
    with open_store(f"sqlite:///{file}") as store:
        for use in (store.studies, lambda: store.open("cake", write=True), lambda: store.create(RECORD)):
            with pytest.raises(SchemaError, match=r"other\.db belongs to another program.*store\.url"):
                use()
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database, but a text that is longer than any header of one would be " * 20)
    before = file.read_bytes()
    with open_store(f"sqlite:///{file}") as store:
        for use in (store.studies, lambda: store.create(RECORD)):
            with pytest.raises(SchemaError, match=r"notes\.txt is damaged or no database"):
                use()
    assert file.read_bytes() == before


def test_looking_creates_no_file(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    with open_store(f"sqlite:///{file}") as store:
        assert store.studies() == ()
        with pytest.raises(StudyNotFoundError):
            store.open("digits", write=True)
    assert list(tmp_path.iterdir()) == []


def test_heavy_libraries_are_imported_only_when_needed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    create(url)
    script = f"""
import sys
from evomerge.store import open_store
assert "sqlalchemy" not in sys.modules
open_store("memory://").close()
assert "sqlalchemy" not in sys.modules
with open_store({url!r}) as store:
    store.open("digits", write=True)
assert not {{"alembic", "torch", "psycopg", "hypothesis", "pytest"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
