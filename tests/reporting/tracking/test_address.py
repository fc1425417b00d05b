"""Addresses of stores: wrong ones are said in one line and in seconds, secrets are never, and any path can be one."""

import os
import re
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.__main__ import main
from benchmark.reporting.tracking.address import OFF, database_of, tracking_uri, uri_of
from benchmark.reporting.tracking.mirror import mirror
from benchmark.reporting.tracking.store import TrackingUnavailable, create_store, load, look_at_store
from benchmark.system.errors import hide_secrets
from tests.helpers.run_folders import begin_run, finished_run, points, train_to
from tests.helpers.servers import free_port

SECRET = "s3cr3t"
WRONG = {
    f"postgresql://a:{SECRET}@127.0.0.1:{{port}}/x": "Connection refused; check MLFLOW_TRACKING_URI",
    f"http://127.0.0.1:{{port}}/?api_key={SECRET}": "Connection refused; check MLFLOW_TRACKING_URI",
    f"mysql://a:{SECRET}@127.0.0.1:{{port}}/x": "pip install mysqlclient",
    f"mssql+pyodbc://a:{SECRET}@127.0.0.1:{{port}}/x?driver={SECRET}": "pip install pyodbc",
    "http://[::1": "is no address (Invalid IPv6 URL); set MLFLOW_TRACKING_URI to ",
    f"http://a:{SECRET}@127.0.0.1:99999": "is no address (Port out of range 0-65535)",
    "sqlite:///": "names no file",
    f"sqlite:///?password={SECRET}": "names no file",
    "sqlite://": "names no file",
    "sqlite:///:memory:": "names no file",
    f"sqlite:///file:/tmp/x.db?uri=true&key={SECRET}": "names no file",
    "./mlruns": "is a folder, which MLflow takes for a store no longer",
    "file:///tmp/x": "is a folder, which MLflow takes for a store no longer",
    f"foo://a:{SECRET}@x": "cannot be used: ",
}


@pytest.mark.parametrize("uri", WRONG)
def test_store_that_cannot_be_used_is_said_in_one_line_and_in_seconds_by_every_command(
    uri, monkeypatch, capsys, tmp_path
):
    if uri.startswith("postgresql"):
        pytest.importorskip("psycopg2", reason="needs psycopg2-binary, which requirements.lock has")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=free_port()))
    folder = begin_run(tmp_path / "results")
    load(uri)  # what MLflow itself takes to be imported depends on the disk
    for use in (lambda: mirror(folder), lambda: create_store("quick"), look_at_store):
        began_s = time.monotonic()
        with pytest.raises(TrackingUnavailable) as caught:
            use()
        assert time.monotonic() - began_s < 15
        said = str(caught.value)
        assert WRONG[uri] in said
        assert (said.count("\n"), len(said) < 700, SECRET in said) == (0, True, False), said
    assert main(["sync", "--protocol", "quick", "--results-dir", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: MLflow store ")


@pytest.mark.parametrize("written", ["off", " off", "OFF", "Off\n"])
def test_off_is_off_however_it_is_written(monkeypatch, written):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", written)
    assert tracking_uri() == OFF
    assert look_at_store() == "switched off by MLFLOW_TRACKING_URI=off"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:p@host:5/x now", "at http://host:5/x now"),
        ("http://h/?api_key=s3 cannot", "http://h/?api_key=... cannot"),
        ("http://h/?a=1&b=2;c=3", "http://h/?a=...&b=...;c=..."),
        ("url: /api?token=s3/2.0 (x)", "url: /api?token=... (x)"),
        ("postgresql://u:a/b@h/x?user=me&password=s3: refused", "postgresql://h/x?user=...&password=...: refused"),
        ("store sqlite:///x.db?timeout=5; check", "store sqlite:///x.db?timeout=...; check"),
        ("is it? a=b", "is it? a=b"),
    ],
)
def test_user_password_and_query_are_hidden_wherever_a_uri_stands(text, shown):
    assert hide_secrets(text) == shown


@given(st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="&;?=@:,.)\"'`"), min_size=5))
def test_no_value_of_a_query_is_shown(value):
    assert "zz" + value not in hide_secrets(f"MLflow store http://host/?key=zz{value}&more=zz{value} cannot be used")


NAMES = [
    "a b",
    "it's",
    '"',
    "$(touch planted)",
    "a%20b",
    "100%",
    "a#b",
    "new\nline",
    "ü",
    "a&b;c=d",
    "-x",
    "a\\b",
]


@pytest.mark.parametrize("name", NAMES)
def test_run_in_a_folder_of_any_name_lands_in_the_store_of_that_folder(empty_database, tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    run = finished_run(folder / "results")
    run_id = mirror(run, store="sqlite:///mlflow.db")
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlruns", "results"}
    assert (folder / "mlruns" / "quick" / run_id / "artifacts" / "run.yaml").read_bytes() == (
        run / "run.yaml"
    ).read_bytes()
    assert points(uri_of(folder / "mlflow.db"), run_id)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"\xff", r"\$'.*/\\xff/mlflow.db' cannot be used: MLflow keeps no path that is no UTF-8; "),
        (b"a?b", r"'.*/a\?b/mlflow.db' cannot be used: a URI cannot name its path, which has a `\?`; "),
        (b"a\n?b", r"\$'.*/a\\x0a\?b/mlflow.db' cannot be used: a URI cannot name its path, which has a `\?`; "),
    ],
)
def test_store_in_a_folder_that_mlflow_cannot_name_is_refused_in_one_line(tmp_path, monkeypatch, name, why):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingUnavailable, match=why) as caught:
        mirror(begin_run(tmp_path / "results"), store="sqlite:///mlflow.db")
    assert "\n" not in str(caught.value)
    with pytest.raises(TrackingUnavailable, match=why):
        look_at_store()
    assert list(folder.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "results"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0?"), min_size=1, max_size=60))
def test_uri_of_a_path_gives_that_path_to_sqlalchemy_and_back(name):
    import sqlalchemy

    if name in (".", "..") or len(os.fsencode(name)) > 250:
        return
    with tempfile.TemporaryDirectory() as place:
        database = Path(place) / name
        uri = uri_of(database)
        assert database_of(uri) == database
        with sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect() as connection:
            connection.execute(sqlalchemy.text("create table t (x)"))
        assert [path.name for path in Path(place).iterdir()] == [name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user")
def test_link_that_another_user_put_in_place_of_the_store_is_refused(empty_database, tmp_path):
    mine = tmp_path / "mine.db"
    mine.write_bytes(empty_database.read_bytes())
    link = tmp_path / "mlflow.db"
    link.symlink_to(mine)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(TrackingUnavailable, match=r"mlflow\.db cannot be used: it is a symbolic link of another user"):
        mirror(begin_run(tmp_path / "results"), store=f"sqlite:///{link}")
    assert mine.read_bytes() == empty_database.read_bytes()


@pytest.mark.parametrize("lock", [".mirror.lock", "mlflow.db.lock"])
def test_lock_of_a_mirror_that_is_a_link_is_refused_and_nothing_is_written(tmp_path, lock):
    folder = begin_run(tmp_path / "results")
    train_to(folder, 20)
    (tmp_path / "victim").write_text("precious")
    (folder if lock == ".mirror.lock" else tmp_path).joinpath(lock).symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=re.escape(lock) + r": is a symbolic link"):
        mirror(folder, store=f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "victim").read_text() == "precious"
