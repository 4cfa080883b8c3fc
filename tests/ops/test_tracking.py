"""Runs end with the truth, whatever happens to the process or to the store; nothing is lost, nothing doubled."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootstock.ops import process, store, tracking
from rootstock.ops.locks import take
from rootstock.ops.tracking import Point

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's own
CHILD = """
import os, signal, sys, time
from pathlib import Path
from rootstock.ops import tracking
project, stop, points = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
with tracking.start("finetune", names=("full", 0), params={"optim": {"lr": 0.1}}, inputs={}, facts={}, tags={},
                    state=project / "state", store=project) as run:
    run.log(points)
    if stop == "at-once":
        os.kill(os.getpid(), signal.SIGKILL)
    while stop == "wait" and run._journal.pending(1)[0]:
        time.sleep(0.05)
    print("delivered", flush=True)
    while stop == "wait":
        time.sleep(0.05)
print("left", flush=True)
"""


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A project with a store and its experiment: making one takes seconds."""
    project = tmp_path_factory.mktemp("project")
    store.Store(project)
    return project


@pytest.fixture
def project(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.2)
    shutil.copy(empty_store / "mlflow.db", tmp_path / "mlflow.db")
    return tmp_path


def start(project, *, params=None, inputs=None, tags=None, facts=None, names=("full", 0), state="state"):
    return tracking.start(
        "finetune",
        names=names,
        params=params or {},
        inputs=inputs or {},
        facts=facts or {},
        tags=tags or {},
        state=project / state,
        store=project,
    )


@pytest.fixture
def child():
    """Start a stage of its own process; ended and closed with the test."""
    started = []

    def begin(project, stop, points, **settings):
        command = [sys.executable, "-c", CHILD, str(project), stop, repr([tuple(point) for point in points])]
        environment = {**os.environ, **settings}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield begin
    for process_ in started:
        process_.kill()
        process_.wait()
        process_.stdout.close()


def wait_for(started, line):
    assert started.stdout.readline().strip() == line


def query(project, sql):
    connection = sqlite3.connect(project / "mlflow.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def runs(project):
    return query(project, "select run_uuid, status from runs order by start_time")


def curve(project, key="loss"):
    return query(project, f"select step, value, timestamp from metrics where key = '{key}' order by step, timestamp")


def tags_of(project):
    return dict(query(project, "select key, value from tags"))


def unsent(project):
    folder = project / ".rootstock" / "runs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


LOSSES = [Point("loss", 1.0, 1, 1000), Point("loss", 0.5, 2, 2000)]


def test_a_killed_stage_continues_its_run_and_no_point_is_doubled(project, child):
    first = child(project, "wait", LOSSES)
    wait_for(first, "delivered")
    first.kill()
    first.wait()
    [(run_id, status)] = runs(project)
    assert status == "RUNNING"
    # what its checkpoint held comes again with the same times; a repeated step comes with another time
    again = [*LOSSES, Point("loss", 0.5, 2, 2500), Point("loss", 0.25, 3, 3000)]
    second = child(project, "end", again)
    assert second.wait() == 0
    assert runs(project) == [(run_id, "FINISHED")]
    assert curve(project) == [(1, 1.0, 1000), (2, 0.5, 2000), (3, 0.25, 3000)]
    assert tags_of(project)["rootstock.attempt"] == "2"
    assert unsent(project) == []


def test_a_stage_killed_before_the_store_was_open_loses_nothing(project, child):
    killed = child(project, "at-once", LOSSES)
    assert killed.wait() == -signal.SIGKILL
    assert runs(project) == []
    assert len(unsent(project)) == 1
    closed = tracking.reconcile(store=project)
    assert runs(project) == [(closed[0], "KILLED")]
    assert [row[1] for row in curve(project)] == [1.0, 0.5]
    assert dict(query(project, "select key, value from params")) == {"optim.lr": "0.1"}
    assert unsent(project) == []


def test_what_an_early_attempt_left_does_not_end_the_run_of_a_later_one(project, child, monkeypatch):
    assert child(project, "at-once", LOSSES).wait() == -signal.SIGKILL
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_deliver_leftovers", lambda *arguments, **options: [])
        with start(project):
            pass
    assert len(tracking.reconcile(store=project)) == 1
    assert [status for _, status in runs(project)] == ["FINISHED"]
    assert [row[1] for row in curve(project)] == [1.0, 0.5]


def test_reconcile_closes_the_run_of_a_killed_process_and_spares_the_living(project, child):
    # as another checkout sees it: the store only, without the journal
    killed, living = child(project, "wait", []), child(project / "living", "wait", [], MLFLOW_TRACKING_URI=uri(project))
    wait_for(killed, "delivered")
    wait_for(living, "delivered")
    killed.kill()
    killed.wait()
    shutil.rmtree(project / ".rootstock" / "runs")
    [closed] = tracking.reconcile(store=project)
    assert dict(runs(project))[closed] == "KILLED"
    assert sorted(status for _, status in runs(project)) == ["KILLED", "RUNNING"]
    [(end,)] = query(project, f"select end_time from runs where run_uuid = '{closed}'")
    assert abs(end / 1000 - time.time()) < 60  # its last heartbeat
    living.terminate()
    assert living.wait() == 128 + signal.SIGTERM
    assert [status for _, status in runs(project)] == ["KILLED", "KILLED"]
    assert unsent(project / "living") == []


def uri(project):
    return f"sqlite:///{project / 'mlflow.db'}"


def test_several_processes_and_projects_make_one_store_at_once(tmp_path):
    code = "import sys; from pathlib import Path; from rootstock.ops.store import Store; Store(Path(sys.argv[1]))"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri(tmp_path)}
    commands = [[sys.executable, "-c", code, str(tmp_path / str(number))] for number in range(3)]
    started = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process_.wait() for process_ in started] == [0, 0, 0]
    assert query(tmp_path, "select name from experiments order by name") == [("Default",), (store.EXPERIMENT,)]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RuntimeError("boom"), "FAILED", "RuntimeError: boom"),
        (SystemExit(2), "FAILED", "SystemExit: 2"),
        (SystemExit(0), "FINISHED", None),
        (KeyboardInterrupt(), "KILLED", None),
    ],
)
def test_the_status_is_what_happened(project, error, status, said):
    with pytest.raises(type(error)), start(project):
        raise error
    assert [row[1] for row in runs(project)] == [status]
    assert tags_of(project).get("error") == said


def test_a_run_records_what_it_was_given(project, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "finetune@full-0")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-fern")
    file = tmp_path / "curve.csv"
    file.write_text("epoch\n")
    digest = "d41d8cd98f00b204e9800998ecf8427e.dir"
    with start(
        project,
        params={"optim": {"lr": 0.1, "steps": [3, 5]}, "name": "x"},
        inputs={"data/shards/target": digest},
        facts={"hardware": {"cpu": "fast", "gpus": []}, "environment": {"git_dirty": None}},
        tags={"collection": "demo"},
    ) as run:
        run.artifact(file)
        run.tag("later", 3)
        run.input("data/more", "0" * 32)
        run_id = run.id
    assert dict(query(project, "select key, value from params")) == {
        "optim.lr": "0.1",
        "optim.steps": "[3, 5]",
        "name": "x",
    }
    found = tags_of(project)
    assert found["mlflow.runName"] == "brave-fern finetune-full-0"
    assert (found["group"], found["data"]) == ("brave-fern finetune-full", "d41d8cd9")
    assert (found["dvc.stage"], found["dvc.experiment"]) == ("finetune@full-0", "brave-fern")
    assert (found["hardware.cpu"], found["hardware.gpus"], found["later"], found["collection"]) == (
        "fast",
        "[]",
        "3",
        "demo",
    )
    assert "environment.git_dirty" not in found
    assert found["input.data/shards/target"] == digest
    datasets = set(query(project, "select name, digest from datasets"))
    assert datasets == {("data/shards/target", digest), ("data/more", "0" * 32)}
    assert query(project, "select count(*) from metrics where key = 'system/cpu_utilization_percentage'") == [(1,)]
    from mlflow.tracking.client import MlflowClient

    assert [entry.path for entry in MlflowClient(uri(project)).list_artifacts(run_id)] == ["curve.csv"]
    assert json.loads((project / "state" / "tracking.json").read_text())["run_id"] == run_id


def test_parameters_changed_by_a_later_attempt_become_tags(project):
    with start(project, params={"workers": 2, "lr": 0.1}):
        pass
    with start(project, params={"workers": 4, "lr": 0.1, "new": 1}) as run:
        assert run.attempts == 2
    assert dict(query(project, "select key, value from params")) == {"workers": "2", "lr": "0.1", "new": "1"}
    assert {key: value for key, value in tags_of(project).items() if key.startswith("attempt.")} == {
        "attempt.2.workers": "4"
    }
    assert len(runs(project)) == 1


def test_the_store_keeps_one_of_two_equal_points_and_not_a_number_is_one(project):
    point, nan = Point("loss", 1.0, 1, 1000), Point("ratio", float("nan"), 1, 1000)
    with start(project) as run:
        run.log([point, nan, point])
        run.log([point, nan])
    assert curve(project) == [(1, 1.0, 1000)]
    assert len(curve(project, "ratio")) == 1


def test_an_outage_does_not_raise_and_the_next_run_delivers(project, monkeypatch, capfd):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.client import MlflowClient

    def away(*arguments, **settings):
        raise MlflowException("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", away)
        with start(project) as run:
            run.log(LOSSES)
    errors = capfd.readouterr().err
    assert errors.count("the database is away") == 1
    assert "sent when a run starts next" in errors
    assert curve(project) == []
    with start(project, names=("linear", 0), state="other"):
        pass
    assert len(curve(project)) == 2
    assert [status for _, status in runs(project)] == ["FINISHED", "FINISHED"]
    assert unsent(project) == []


def test_a_short_outage_is_made_good_by_the_same_run(project, monkeypatch):
    from mlflow.tracking.client import MlflowClient

    log_batch, calls = MlflowClient.log_batch, []

    def twice_away(self, *arguments, **settings):
        calls.append(1)
        if len(calls) <= 2:
            raise OSError("connection reset")
        return log_batch(self, *arguments, **settings)

    monkeypatch.setattr(MlflowClient, "log_batch", twice_away)
    monkeypatch.setattr(tracking, "TICK_SECONDS", 0.05)
    with start(project) as run:
        run.log(LOSSES)
        deadline = time.monotonic() + 20
        while len(curve(project)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_server_that_is_not_there_costs_a_moment(project, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    with start(project) as run:
        run.log(LOSSES)
        assert run.id is None
    assert time.monotonic() - started < 20
    assert "tracking: " in capfd.readouterr().err
    assert len(unsent(project)) == 1
    # another store is not given what was meant for that one
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.reconcile(store=project) == []
    assert len(unsent(project)) == 1


def test_without_mlflow_training_goes_on(project, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with start(project) as run:
        run.log(LOSSES)
    assert run.id is None
    assert "MLflow cannot be imported" in capfd.readouterr().err


def test_a_full_disk_does_not_raise_and_what_was_said_is_sent_later(project, monkeypatch, capfd):
    with start(project) as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            run.log(LOSSES)
            tracking._remember(project / "state" / "tracking.json", {})
        run.tag("room", "again")
    assert "No space left on device" in capfd.readouterr().err
    assert len(curve(project)) == 2


def test_what_the_store_refuses_does_not_hold_up_the_rest(project, capfd):
    with start(project) as run:
        run.log([Point("loss", 1.0, 1, 1000), Point("what?!", 1.0, 1, 1000)])
        run.artifact(project / "never-written")
        run.log([Point("loss", 0.5, 2, 2000)])
    assert "refused" in capfd.readouterr().err
    assert [row[1] for row in curve(project)] == [1.0, 0.5]
    assert [status for _, status in runs(project)] == ["FINISHED"]
    assert unsent(project) == []


@pytest.mark.parametrize(("silence_s", "expected"), [(60.0, "RUNNING"), (700.0, "KILLED")])
def test_a_run_of_another_host_is_closed_only_after_a_long_silence(project, silence_s, expected):
    elsewhere = {**process.identity(), "place": "another host"}
    now_ms = int((time.time() - silence_s) * 1000)
    header = {
        "token": "t",
        "attempt": 1,
        "run_name": "x",
        "shown_name": "x",
        "stage": "pretrain",
        "start_ms": now_ms,
        "process": elsewhere,
    }
    store.Store(project).open_run(header)
    tracking.reconcile(store=project)
    assert [status for _, status in runs(project)] == [expected]


def test_a_run_that_a_person_began_is_left_alone(project):
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(uri(project))
    client.create_run(client.get_experiment_by_name(store.EXPERIMENT).experiment_id)
    assert tracking.reconcile(store=project) == []
    assert [status for _, status in runs(project)] == ["RUNNING"]


def test_sigterm_is_handled_only_within_the_run(project):
    before = signal.getsignal(signal.SIGTERM)
    with start(project):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_runs_cannot_share_a_state(project):
    with start(project):
        pass
    with pytest.raises(AssertionError, match="share a state"), start(project, names=("linear", 1)):
        pass


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, rootstock.ops.tracking; print(*{'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
    assert Path(store.__file__).exists()


def test_the_machine_is_sampled_once_a_step_also_in_the_second_of_leaving(project, monkeypatch):
    monkeypatch.setattr(tracking, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "TICK_SECONDS", 0.02)
    with start(project):
        time.sleep(0.3)
    counts = query(
        project, "select count(*) from metrics where key = 'system/cpu_utilization_percentage' group by step"
    )
    assert counts
    assert set(counts) == {(1,)}


def test_a_made_store_is_opened_while_another_process_opens_it(project, monkeypatch):
    monkeypatch.setattr(store, "CREATION_SECONDS", 0.0)
    with open(project / "mlflow.db.lock", "a") as held:
        assert take(held, timeout_s=0.0)
        store.Store(project)
        (project / "mlflow.db").unlink()  # a new one is made by one process at a time
        with pytest.raises(store.StoreError, match="another process has been opening"):
            store.Store(project)


def test_a_kill_while_the_store_is_made_leaves_no_half_store(tmp_path, child):
    for half in (0.0, 0.4):  # of its tables
        maker = child(tmp_path, "wait", LOSSES)
        new = tmp_path / "mlflow.db.new"
        deadline = time.monotonic() + 60
        while not new.exists():
            assert time.monotonic() < deadline
            assert not (tmp_path / "mlflow.db").exists()
            time.sleep(0.002)
        time.sleep(half)
        maker.kill()
        maker.wait()
        assert new.exists() != (tmp_path / "mlflow.db").exists()
    tracking.reconcile(store=tmp_path)
    assert [status for _, status in runs(tmp_path)] == ["KILLED"]
    assert len(curve(tmp_path)) == 2
    assert not new.exists()
