"""Promotion: the ledger is the truth, nothing worse or equal gets in, and a kill at any step is made good."""

import os
import shutil
from pathlib import Path

import promotion_play as play
import pytest
import small_project

from rootstock import layout
from rootstock.ops import locks
from rootstock.ops.promotion import champion, promote, registry
from rootstock.ops.promotion.registry import Mirrored
from rootstock.ops.store import StoreError
from rootstock.schema import promotion as ledger
from rootstock.schema.contract import write_json

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's own


class FakeRegistry:
    """A registry in memory: what it was told."""

    versions: list[str]
    alias: str | None
    reachable: bool

    def __init__(self, project: Path) -> None:
        if not self.reachable:
            raise StoreError("nobody answers")

    def mirror(self, model, champion, *, folder, serving, line) -> Mirrored:
        cls, before = type(self), self.alias
        is_new = champion["bundle_hash"] not in cls.versions
        if is_new:
            cls.versions.append(champion["bundle_hash"])
        cls.alias = str(cls.versions.index(champion["bundle_hash"]) + 1)
        return Mirrored(cls.alias, is_new, before)

    def withdraw(self, model) -> str | None:
        before, type(self).alias = self.alias, None
        return before


@pytest.fixture
def project(small, monkeypatch) -> Path:
    """A reproduced project to be in, with everything slow replaced."""
    monkeypatch.chdir(small)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROOTSTOCK_DEVICE", "cpu")
    monkeypatch.setenv("ROOTSTOCK_THREADS", "1")
    play.simplify(monkeypatch)
    return small


@pytest.fixture
def store(project, monkeypatch) -> type[FakeRegistry]:
    """The registry's stand-in."""
    for name, value in {"versions": [], "alias": None, "reachable": True}.items():
        setattr(FakeRegistry, name, value)
    monkeypatch.setattr(promote, "Registry", FakeRegistry)
    return FakeRegistry


def lines() -> list[dict]:
    return ledger.read(layout.PROMOTIONS)


def actions() -> list[str]:
    return [line["action"] for line in lines()]


def model() -> str:
    return promote.load_section(layout.PARAMS, promote.Promote, "promote").model


def failed(line: dict) -> list[str]:
    return [check["name"] for check in line["verdict"]["checks"] if not check["passed"]]


def test_a_life_of_promotions(store, capsys):
    # the first champion must beat chance alone
    play.challenge(accuracy=0.3, seed=1)
    assert promote.promote()["action"] == "refuse"
    assert store.versions == []
    assert not layout.champion(model()).exists()
    first = play.challenge(accuracy=0.9, seed=2)
    line = promote.promote()
    assert (line["action"], line["challenger"]["dvc_hash"], line["version"]) == ("promote", first, "1")
    assert line["champion_before"] is None
    assert line["verdict"]["evidence"]["num_judged_before"] == 1
    # again: nothing
    assert promote.promote() == line
    assert len(lines()) == 2
    assert "is the champion already: line 2; nothing to decide" in capsys.readouterr().out
    # the champion is scored anew, by its weights, which always say the first of three classes
    play.challenge(accuracy=1 / 3, seed=3)
    equal = promote.promote()
    assert equal["action"] == "refuse"
    assert equal["verdict"]["evidence"]["champion"]["top1"] == pytest.approx(1 / 3)
    assert "better" in failed(equal)
    play.challenge(accuracy=0.1, seed=4)
    assert promote.promote()["action"] == "refuse"
    assert store.alias == "1"
    assert (layout.champion(model()) / champion.SERVING).is_file()
    # a better one
    play.challenge(accuracy=0.95, seed=5)
    better = promote.promote()
    assert (better["action"], better["version"], failed(better)) == ("promote", "2", [])
    assert better["champion_before"] == line["champion_after"]
    assert better["verdict"]["evidence"]["num_judged_before"] == 4
    assert champion._hash(layout.champion(model())) == better["champion_after"]["bundle_hash"]
    # back, and it stays back: the same question has been answered
    capsys.readouterr()
    back = promote.rollback(reason="too slow on phones")
    said = capsys.readouterr().out
    assert "rolled back from full-" in said
    assert "(too slow on phones); reports/promotions.jsonl, line 6" in said
    assert back["champion_after"] == line["champion_after"]
    assert (store.alias, back["version"]) == ("1", "1")
    assert champion._hash(layout.champion(model())) == back["champion_after"]["bundle_hash"]
    assert promote.promote()["number"] == 5
    assert "already decided: line 5, the same challenger, champion, data and limits" in capsys.readouterr().out
    assert actions() == ["refuse", "promote", "refuse", "refuse", "promote", "rollback"]
    # a third champion over the first, and back over the one that was rolled back
    play.challenge(accuracy=1.0, seed=6)
    assert promote.promote()["action"] == "promote"
    assert promote.rollback(reason=None)["champion_after"] == line["champion_after"]
    with pytest.raises(promote.PromotionError, match=r"full-\d alone, wanted a champion before the present one"):
        promote.rollback(reason=None)
    assert not (layout.state() / "promotion/pending.json").exists()
    assert not (layout.state() / "promotion/packed").exists()


def test_other_limits_are_another_question(store):
    play.challenge(accuracy=0.9, seed=1)
    promote.promote()
    play.challenge(accuracy=0.3, seed=2)
    promote.promote()
    promote.promote()
    assert len(lines()) == 2
    layout.PARAMS.write_text(layout.PARAMS.read_text().replace("class_floor: 0.2", "class_floor: 0.1"))
    promote.promote()
    assert actions() == ["promote", "refuse", "refuse"]


def test_speed_alone_is_judged_again_and_says_nothing_twice(store, monkeypatch, capsys):
    play.challenge(accuracy=0.9, seed=1)
    monkeypatch.setattr(promote.gate_run, "_latency_ms", lambda *args, **kwargs: 1e6)
    assert failed(promote.promote()) == ["latency"]
    promote.promote()
    assert "judged again, since latency alone had refused it in line 1" in capsys.readouterr().out
    assert len(lines()) == 1
    monkeypatch.setattr(promote.gate_run, "_latency_ms", lambda *args, **kwargs: 5.0)
    line = promote.promote()
    assert (line["number"], line["action"], line["verdict"]["evidence"]["num_judged_before"]) == (2, "promote", 0)


def test_the_registry_may_be_away_and_is_brought_in_line_later(store, capsys):
    play.challenge(accuracy=0.9, seed=1)
    store.reachable = False
    assert promote.promote()["version"] is None
    captured = capsys.readouterr()
    assert "full-" in captured.out
    assert "WARNING: the model registry is out of reach (nobody answers); the ledger is right" in captured.err
    store.reachable = True
    promote.promote()
    assert (len(lines()), store.alias) == (1, "1")
    assert "had no version of its champion; registered as version 1" in capsys.readouterr().out


def test_an_alias_moved_by_hand_is_set_back(store, capsys):
    store.alias = "7"
    play.challenge(accuracy=0.3, seed=1)
    promote.promote()
    assert "pointed to version 7, but the ledger has no champion; taken away" in capsys.readouterr().out
    play.challenge(accuracy=0.9, seed=2)
    promote.promote()
    store.alias = "7"
    promote.promote()
    assert store.alias == "1"
    assert "pointed to version 7, which the ledger does not say; set back to version 1" in capsys.readouterr().out


def test_what_a_model_has_seen_does_not_judge_it(store, capsys):
    play.challenge(accuracy=0.9, seed=1)
    promote.promote()
    name, folder = model(), layout.champion(model())
    index = promote.gate_run.read_table(layout.shards("target") / "index.parquet", promote.gate_run.INDEX)
    val = index[index["split"] == "val"]["sha256"].tolist()
    # as if the images of val had been train images of the champion's time
    pretend_seen(name, folder, val[:10])
    play.challenge(accuracy=0.95, seed=2)
    line = promote.promote()
    assert (line["data"]["num_images"], line["verdict"]["evidence"]["num_seen_by_champion"]) == (len(val) - 10, 10)
    assert line["action"] == "promote"
    pretend_seen(name, folder, val[:-5])
    play.challenge(accuracy=1.0, seed=3)
    line = promote.promote()
    assert (line["action"], failed(line), line["data"]["num_images"]) == ("refuse", ["images"], 5)
    assert "5 gate images that neither model was trained on, wanted at least 15, 5 a class" in capsys.readouterr().out
    promote.promote()
    assert len(lines()) == 3


def pretend_seen(name: str, folder: Path, sums: list[str]) -> None:
    """Change the champion's table and, everywhere, its hash."""
    before = champion._hash(folder)
    (folder / champion.TRAINED_ON).unlink()
    ledger.write_trained_on(folder / champion.TRAINED_ON, sums)
    play.fake_dvc("add", str(folder))
    layout.PROMOTIONS.write_text(layout.PROMOTIONS.read_text().replace(before, champion._hash(folder)))


def test_classes_are_matched_by_name():
    moved = promote.gate_run.by_name(
        promote.gate_run.np.array([[0.2, 0.5, 0.3]], "float32"), theirs=["b", "gone", "a"], present=["a", "b", "new"]
    )
    assert moved.tolist() == promote.gate_run.np.array([[0.3, 0.2, 0.0, 0.5]], "float32").tolist()


def test_a_champion_of_other_classes_cannot_be_right_about_new_ones(store):
    names = list(small_project.CLASSES)
    play.challenge(accuracy=0.9, seed=1, names=["gone", *names[:2]])  # it always says the first
    promote.promote()
    play.challenge(accuracy=0.95, seed=2, names=names)
    assert promote.promote()["verdict"]["evidence"]["champion"]["top1"] == 0.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("models", r"^models/finetune/full-\d: found hash [0-9a-f]{32}.dir, wanted [0-9a-f]{32}.dir, which its stage "),
        (
            "predictions",
            r"^reports/evaluate/full-\d/predictions.parquet: found hash .*, which its stage wrote; `make re",
        ),
        ("shards", r"^data/shards/target: found hash .* its stage wrote; `make repro` brings everything to one state$"),
        ("stale", r"^models/finetune/full-\d: found hash .*, which evaluate@full-\d ran on; `make repro` brings"),
        ("other", r"^reports/evaluate: found hash .*, which select ran on; `make repro` brings everything to one"),
        ("selection", r"^reports/select/challenger.json is missing; `make repro` makes it$"),
        ("gone", r"^models/finetune/full-\d is missing; `dvc checkout` or `dvc pull` brings it, `make repro` brings"),
    ],
)
def test_a_tree_of_two_states_is_refused(store, changed, message):
    name = play.selected()
    folder, table = layout.finetune(*name), layout.predictions(*name)
    if changed == "models":
        (folder / "note.txt").write_text("mine")
    elif changed == "predictions":
        data = table.read_bytes()
        table.unlink()
        table.write_bytes(data + b"x")
    elif changed == "shards":
        (layout.shards("target") / "extra.tar").write_bytes(b"")
    elif changed == "stale":
        old = champion._hash(folder)
        (folder / "note.txt").write_text("mine")
        text = layout.DVC_LOCK.read_text()
        place = text.index(old, text.index(f"finetune@{layout.replica(*name)}:"))
        new = champion._hash(folder)
        layout.DVC_LOCK.write_text(text[:place] + new + text[place + len(old) :])
    elif changed == "other":
        (layout.metrics("full", 1 - name[1])).write_text("{}")
    elif changed == "selection":
        layout.SELECTION.unlink()
    else:
        shutil.rmtree(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        promote.promote()
    assert not layout.PROMOTIONS.exists()


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_ROOT"])
def test_an_experiment_never_changes_the_champion(store, monkeypatch, tmp_path, action, variable):
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(promote.PromotionError) as caught:
        promote.promote() if action == "promote" else promote.rollback(reason=None)
    assert str(caught.value) == (
        f"{action}: found a DVC experiment ({tmp_path}), wanted a checkout of its own: an experiment never changes the "
        "champion; `dvc exp apply` it, commit, then run this again"
    )


def test_one_promotion_at_a_time(store, monkeypatch):
    # the lock is per open file: our own second opening is as good as another process
    with locks.stage_lock(layout.state() / "promotion.lock"):
        original = locks.stage_lock
        monkeypatch.setattr(promote, "stage_lock", lambda path: original(path, timeout_s=0.1))
        with pytest.raises(locks.LockedError, match=r"promotion.lock: found it locked by pid"):
            promote.promote()


def test_there_is_nothing_before_the_first(store):
    with pytest.raises(promote.PromotionError) as caught:
        promote.rollback(reason=None)
    assert str(caught.value) == (
        f"reports/promotions.jsonl: {model()}: found no champion, wanted a champion before the present one to go back "
        "to; a model that was once promoted is never left without a champion"
    )


def test_a_champion_is_brought_back_from_the_cache_or_the_remote(store):
    play.challenge(accuracy=0.9, seed=1)
    line = promote.promote()
    folder, wanted = layout.champion(model()), line["champion_after"]["bundle_hash"]
    for missing in (False, True):  # in the cache, then in the remote alone
        shutil.rmtree(folder)
        if missing:
            play.REMOTE.mkdir(parents=True)
            (play.CACHE / wanted).rename(play.REMOTE / wanted)
        promote.promote()
        assert champion._hash(folder) == wanted
    shutil.rmtree(folder)
    shutil.rmtree(play.CACHE)
    shutil.rmtree(play.REMOTE)
    play.challenge(accuracy=0.9, seed=2)
    with pytest.raises(champion.ChampionError) as caught:
        promote.promote()
    assert str(caught.value) == (
        f"{folder}: the champion of hash {wanted} is neither here, nor in DVC's cache, nor in its remote; `dvc push` "
        "where it was promoted, then run this again\n  dvc checkout: checkout found nothing\n  dvc pull: pull found "
        'nothing\nor, where nobody has it: `rootstock promote --without-champion "why"` judges the challenger against '
        "nobody, and the ledger says so"
    )


def lose(folder: Path) -> None:
    """Take a champion's files from everywhere, as in the clone of someone who has no access to the remote."""
    shutil.rmtree(folder)
    shutil.rmtree(play.CACHE)


def test_a_lost_champion_is_passed_over_only_when_a_person_says_so(store, capsys):
    play.challenge(accuracy=0.9, seed=1)
    first = promote.promote()
    lose(layout.champion(model()))
    play.challenge(accuracy=0.3, seed=2)  # no better than chance
    refused = promote.promote(without_champion="its remote is gone")
    assert (refused["action"], refused["champion_after"]) == ("refuse", first["champion_after"])
    play.challenge(accuracy=0.8, seed=3)
    capsys.readouterr()
    line = promote.promote(without_champion="its remote is gone")
    captured = capsys.readouterr()
    name, challenger = first["challenger"]["replica"], line["challenger"]["replica"]
    assert f"WARNING: {name}, the champion, is lost; judging against nobody" in captured.err
    assert f"{challenger} without a champion to replace: promoted on 60 images" in captured.out
    assert f"not compared with {name}, the champion, whose files are lost: its remote is gone" in captured.out
    assert (line["champion_before"], line["reason"]) == (first["champion_after"], "its remote is gone")
    assert line["verdict"]["evidence"]["champion"] is None
    # from here on all is as ever, and the lost one is no way back
    assert promote.promote()["number"] == line["number"]
    with pytest.raises(champion.MissingError, match="is neither here"):
        promote.rollback(reason=None)
    assert champion._hash(layout.champion(model())) == line["champion_after"]["bundle_hash"]


def test_a_lost_champion_is_put_back_where_the_challenger_is_the_same(store, capsys):
    play.challenge(accuracy=0.9, seed=1)
    line = promote.promote()
    lose(layout.champion(model()))
    assert promote.promote() == line
    assert "the champion, was lost; what was reproduced here is the same to the byte" in capsys.readouterr().out
    folder = layout.champion(model())
    assert champion._hash(folder) == champion._held(folder) == line["champion_after"]["bundle_hash"]
    assert not (layout.state() / "promotion/packed").exists()


@pytest.mark.parametrize("first", [False, True])
def test_a_champion_that_is_here_is_never_passed_over(store, first):
    play.challenge(accuracy=0.9, seed=1)
    if first:
        promote.promote()
        play.challenge(accuracy=0.95, seed=2)
    before = lines()
    found = r"full-\d, the champion, whole" if first else "no champion in the ledger"
    with pytest.raises(promote.PromotionError, match=f"found {found}, wanted one whose files are lost"):
        promote.promote(without_champion="I like this one")
    assert lines() == before


def test_each_model_is_judged_in_its_own_view(store, monkeypatch):
    play.challenge(accuracy=0.9, seed=1)
    first = promote.promote()
    serve(layout.champion(model()), view="ten")
    views, predict = [], promote.gate_run.inference.predict

    def spy(*arguments, **options):
        views.extend(options["views"])
        return predict(*arguments, **options)

    monkeypatch.setattr(promote.gate_run.inference, "predict", spy)
    # equal weights, which serve otherwise, are a question of their own
    line = promote.promote()
    assert (line["number"], line["action"], line["challenger"]) == (2, "promote", first["challenger"])
    assert views == ["ten"]
    assert (line["data"]["view"], line["verdict"]["evidence"]["champion_view"]) == ("center", "ten")
    assert champion.read_serving(layout.champion(model())).view == "center"
    assert promote.promote() == line


def serve(folder: Path, *, view: str) -> None:
    """Let the champion be one that was judged, and is served, in another view."""
    before, serving = champion._hash(folder), champion.read_serving(folder)
    (folder / champion.SERVING).unlink()
    write_json(folder / champion.SERVING, {**serving.model_dump(), "view": view})
    play.fake_dvc("add", str(folder))
    layout.PROMOTIONS.write_text(layout.PROMOTIONS.read_text().replace(before, champion._hash(folder)))


def test_an_old_decision_is_told_as_it_was(store):
    for seed, accuracy in ((1, 0.8), (2, 0.95)):
        play.challenge(accuracy=accuracy, seed=seed)
        line = promote.promote()
    promote.rollback(reason=None)
    assert promote.describe(line).endswith("became the champion, version 2; reports/promotions.jsonl, line 2")


def test_a_rollback_to_a_champion_that_is_lost_changes_nothing_and_blocks_nothing(store):
    for seed, accuracy in ((1, 0.8), (2, 0.9)):
        play.challenge(accuracy=accuracy, seed=seed)
        promote.promote()
    before, folder = lines(), layout.champion(model())
    first, second = (line["champion_after"]["bundle_hash"] for line in before)
    shutil.rmtree(play.CACHE / first)  # as `dvc gc --workspace` does
    with pytest.raises(champion.MissingError, match=f"the champion of hash {first} is neither here"):
        promote.rollback(reason=None)
    assert lines() == before
    assert champion._hash(folder) == champion._held(folder) == second
    play.challenge(accuracy=1.0, seed=3)
    assert promote.promote()["action"] == "promote"


def test_a_model_that_was_replaced_while_it_was_judged_is_no_champion(store, monkeypatch):
    play.challenge(accuracy=0.9, seed=1)
    judge = promote.gate_run.judge

    def meanwhile(*arguments, **options):
        verdict = judge(*arguments, **options)
        play.challenge(accuracy=0.1, seed=2)
        return verdict

    monkeypatch.setattr(promote.gate_run, "judge", meanwhile)
    with pytest.raises(champion.ChampionError, match="which was judged; run this again"):
        promote.promote()
    assert not layout.champion(model()).exists()
    assert lines() == []


def test_a_decision_is_dropped_when_the_ledger_went_on(store, capsys):
    play.challenge(accuracy=0.9, seed=1)
    line = promote.promote()
    write_json(layout.state() / "promotion/pending.json", {**line, "number": 5})
    promote.promote()
    assert "pending.json: dropped: reports/promotions.jsonl has changed since it was decided" in capsys.readouterr().out
    assert lines() == [line]


# ------------------------------------------------------------------------------------------------- killed at each step

STEPS = {
    "decided": (promote, "write_json"),
    "folder in place": (champion, "_replace"),
    "held by DVC": (champion, "_dvc"),
    "packed for the registry": (registry.registered_package, "save"),
    "uploaded": (registry.Registry, "_logged"),
    "registered": (registry.Registry, "_register"),
    "alias moved": (registry.Registry, "mirror"),
    "line appended": (ledger, "append"),
    "pending removed": (champion, "forget_packed"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_promotion_is_completed_by_the_next(project, monkeypatch, step):
    former = play.challenge(accuracy=0.9, seed=1)
    promote.promote()
    before = registered()
    assert before == {"versions": ["1"], "alias": "1"}
    play.challenge(accuracy=0.95, seed=2)
    play.killed(promote.promote, after=STEPS[step])
    promote.promote()
    assert actions() == ["promote", "promote"]
    assert registered() == {"versions": ["1", "2"], "alias": "2"}
    after = lines()[-1]["champion_after"]
    assert champion._hash(layout.champion(model())) == champion._held(layout.champion(model())) == after["bundle_hash"]
    assert former == lines()[-1]["champion_before"]["dvc_hash"]
    assert not (layout.state() / "promotion/pending.json").exists()


def test_a_killed_rollback_asked_for_again_goes_back_once(store):
    for seed, accuracy in ((1, 0.8), (2, 0.9), (3, 1.0)):
        play.challenge(accuracy=accuracy, seed=seed)
        promote.promote()
    assert actions() == ["promote"] * 3
    play.killed(lambda: promote.rollback(reason="slow"), after=(champion, "_dvc"))
    line = promote.rollback(reason="slow")
    assert (line["number"], line["reason"]) == (4, "slow")
    assert line["champion_after"] == lines()[1]["champion_after"]
    assert actions() == ["promote"] * 3 + ["rollback"]


def registered() -> dict:
    """What the real store has, seen by a client of our own."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    found = client.search_model_versions(f"name = '{model()}'")
    alias = client.get_registered_model(model()).aliases.get("champion")
    return {"versions": sorted(str(one.version) for one in found), "alias": alias and str(alias)}


# --------------------------------------------------------------------------------------------------------- real things


def test_promotion_and_rollback_with_dvc_and_mlflow(small):
    """A person's commands, nothing replaced; the second champion is made by hand."""

    def say(*arguments: str) -> str:
        return small_project.rootstock(small, *arguments)

    params = small / "params.yaml"
    params.write_text(params.read_text().replace("max_latency_ms: 100.0", "max_latency_ms: 100000.0"))
    here = Path.cwd()
    os.chdir(small)
    try:
        play.challenge(accuracy=0.9, seed=1)
        assert "became the champion, version 1; reports/promotions.jsonl, line 1" in say("promote")
        folder = layout.champion(model())
        first = champion._held(folder)
        assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.dvc"], "no litter"
        small_project.commit(small, "First champion")
        play.challenge(accuracy=0.95, seed=2)
        assert "became the champion, version 2" in say("promote")
        shutil.rmtree(folder)
        assert "rolled back" in say("rollback", "--reason", "a try")
        assert champion._hash(folder) == champion._held(folder) == first
        assert small_project.run(small, "git", "status", "--porcelain", "models") == "", (
            "the first champion's .dvc again"
        )
        assert "to date" in small_project.run(small, "dvc", "status", f"{folder}.dvc")
    finally:
        os.chdir(here)
