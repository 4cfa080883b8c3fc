"""A retraining's parts: its branch, what it refuses, its pull request; and that the schedule holds no logic."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from rootstock.config.load import read_yaml
from rootstock.ops.promotion import champion
from rootstock.ops.retraining import branch, pull_request, retrain

GIT = {
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture
def checkout(repository, tmp_path, monkeypatch) -> Path:
    """A repository with a remote, in which a reproduction has rewritten its files."""
    for name, value in GIT.items():
        monkeypatch.setenv(name, value)
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT", "GH_TOKEN", "GITHUB_TOKEN", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "own/.rootstock").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "own")
    write(".gitignore", (repository / ".gitignore").read_text())
    write("dvc.lock", "schema: '2.0'\nstages: {}\n")
    write("params.yaml", "a: 1\n")
    write("src/code.py", "1\n")
    write("README.md", "old\n")
    write("reports/metrics.json", "old\n")
    write("reports/dropped.json", "old\n")
    branch.git("init", "-q", "-b", "main")
    branch.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    branch.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    branch.git("add", "-A")
    branch.git("commit", "-q", "-m", "Begin")
    branch.git("push", "-q", "origin", "main")
    return tmp_path / "own"


def reproduce() -> None:
    write("dvc.lock", "schema: '2.0'\nstages: {fetch: {cmd: x}}\n")
    write("reports/metrics.json", "new\n")
    write("reports/promotions.jsonl", "{}\n")
    write("models/champions/mine.dvc", "outs: []\n")
    write("models/champions/mine/weights.safetensors", "large\n")
    Path("reports/dropped.json").unlink()


def test_the_branch_is_named_after_what_decides_the_result(checkout) -> None:
    name = branch.name()
    assert name == branch.name()
    assert name.startswith("retrain/")
    reproduce()
    write("README.md", "new\n")
    branch.git("commit", "-qam", "Words, lock and reports")
    assert branch.name() == name
    names = {name}
    for path in ("params.yaml", "data/raw/target/source.json", "src/code.py"):
        write(path, "2\n")
        branch.git("commit", "-qam", "Change", "--allow-empty")
        names.add(branch.name())
    assert len(names) == 4


def test_the_commit_holds_what_was_made_and_moves_nothing(checkout) -> None:
    reproduce()
    write("untracked.txt", "mine\n")
    before = branch.git("status", "--porcelain"), branch.git("rev-parse", "HEAD")
    made = branch.commit("retrain/abc", "[retrain] Promote full-0\n\n## Decision\n\nwhy\n")
    assert (branch.git("status", "--porcelain"), branch.git("rev-parse", "HEAD")) == before
    assert branch.git("diff", "--name-status", "--no-renames", "HEAD", made).splitlines() == [
        "M\tdvc.lock", "A\tmodels/champions/mine.dvc", "D\treports/dropped.json", "M\treports/metrics.json",
        "A\treports/promotions.jsonl",
    ]  # fmt: skip
    assert branch.pushed("retrain/abc") is None
    branch.push("retrain/abc")
    assert branch.pushed("retrain/abc") == made
    assert branch.others("retrain/new") == ["retrain/abc"]
    assert branch.others("retrain/abc") == []
    assert branch.message("retrain/abc") == ("[retrain] Promote full-0", "## Decision\n\nwhy")

    branch.put_back(made)
    assert branch.git("status", "--porcelain") == "?? untracked.txt\n"
    assert Path("reports/metrics.json").read_text() == "old\n"
    assert not Path("models/champions/mine.dvc").exists()
    assert Path("models/champions/mine/weights.safetensors").exists(), "DVC's, and ignored by git"
    branch.git("merge", "-q", "retrain/abc")  # nothing of ours is in the way
    assert branch.others("retrain/new") == []


@pytest.mark.parametrize("merge", [["merge", "--no-ff"], ["merge", "--squash"], ["cherry-pick"]])
def test_a_state_that_comes_back_after_its_merge_has_a_name_of_its_own(checkout, merge) -> None:
    reproduce()
    first = branch.name()
    branch.put_back(branch.commit(first, "a"))
    assert branch.name() == first, "not pushed: the same command completes it"
    branch.push(first)
    assert branch.name() == first, "not merged: it waits"
    write("README.md", "new\n")
    branch.git("commit", "-qam", "Words")  # so that nothing is merged by moving HEAD forward
    branch.git(*merge, first)
    branch.git("commit", "-q", "--allow-empty", "-m", "Merge")
    assert branch.name() == f"{first}-2"
    assert branch.pushed(f"{first}-2") is None
    assert branch.others(f"{first}-2") == []
    write("dvc.lock", "schema: '2.0'\nstages: {fetch: {cmd: y}}\n")
    branch.commit(f"{first}-2", "b")
    branch.push(f"{first}-2")
    assert branch.name() == f"{first}-2", "waits in its turn"
    branch.git("reset", "-q", "--hard")
    branch.git("merge", "-q", f"{first}-2")
    assert branch.name() == f"{first}-3"


def test_a_commit_that_was_not_pushed_is_made_again_and_a_pushed_one_is_never_overwritten(checkout) -> None:
    reproduce()
    first = branch.commit("retrain/abc", "a")
    assert branch.commit("retrain/abc", "b") != first
    branch.push("retrain/abc")
    branch.commit("retrain/abc", "c")
    with pytest.raises(branch.GitError, match="git push: "):
        branch.push("retrain/abc")


@pytest.mark.parametrize("edited", [False, True])
def test_what_a_kill_after_the_push_left_is_put_back_unless_it_was_edited(checkout, monkeypatch, edited) -> None:
    reproduce()
    name = branch.name()
    branch.commit(name, "a")
    branch.push(name)
    if edited:
        write("reports/metrics.json", "by hand\n")
    for step, answer in {"_fetch": 0, "_stale": [], "_new_records": ["evaluate"]}.items():
        monkeypatch.setattr(retrain, step, lambda answer=answer, **_: answer)
    said: list[str] = []
    assert retrain._retrain("store", say=said.append) == 0
    assert f"nothing to do: origin has {name}" in said[0]
    assert bool(branch.git("status", "--porcelain")) is edited
    assert Path("reports/metrics.json").read_text() == ("by hand\n" if edited else "old\n")


def test_a_machine_without_a_name_commits_too(checkout, monkeypatch) -> None:
    for name in GIT:
        if "CONFIG" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(checkout))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    made = branch.commit("retrain/abc", "a")
    assert branch.git("log", "-1", "--format=%an", made) == "retrain\n"


def test_dvc_sees_the_champions_pointer_and_nothing_else_in_models(repository, tmp_path) -> None:
    """Its reading of .gitignore is not git's: a pointer in a folder that it thinks ignored is never pushed."""
    from dvc.repo import Repo

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((repository / ".gitignore").read_text())
    (tmp_path / "models/champions/mine").mkdir(parents=True)
    with Repo.init(str(tmp_path)) as repo:
        ignored = {name for name in SEEN if repo.scm.is_ignored(str(tmp_path / "models") + name)}
    assert ignored == {"/pretrain/", "/pretrain", "/champions/mine/", "/champions/mine"}


SEEN = ("/", "/pretrain/", "/pretrain", "/champions/", "/champions/mine/", "/champions/mine", "/champions/mine.dvc")


# ------------------------------------------------------------------------------------------------------------ refusals


def test_local_changes_are_refused_apart_from_what_a_reproduction_rewrites(checkout) -> None:
    reproduce()
    branch.check_ready()
    write("src/code.py", "2\n")
    with pytest.raises(ValueError, match="found local changes, wanted a clean checkout") as caught:
        branch.check_ready()
    assert "src/code.py" in str(caught.value)


def test_a_git_that_does_not_answer_is_not_taken_for_a_clean_checkout(checkout, monkeypatch) -> None:
    monkeypatch.setattr(branch, "revision", lambda _: {"git_revision": "0" * 40, "git_dirty": None})
    with pytest.raises(ValueError, match="found no answer from `git status` in 10 s, wanted one"):
        branch.check_ready()


def test_a_repository_without_a_git_remote_is_refused(checkout) -> None:
    branch.git("remote", "remove", "origin")
    with pytest.raises(ValueError, match="found no git remote 'origin'"):
        branch.check_ready()


def test_a_folder_without_git_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="found no git repository with a commit"):
        branch.check_ready()


def test_an_experiment_is_refused(checkout, monkeypatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wide-1")
    with pytest.raises(ValueError, match=r"found a DVC experiment \(wide-1\)"):
        retrain.retrain(dry=False, say=print)


def test_without_a_dvc_remote_nothing_is_run(checkout, monkeypatch) -> None:
    monkeypatch.delenv(retrain.VARIABLE, raising=False)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    branch.git("commit", "-qm", "Add DVC")
    with pytest.raises(ValueError, match=r"found no default DVC remote.*dvc remote add --default.*ROOTSTOCK_REMOTE"):
        retrain.retrain(dry=False, say=print)
    assert not Path(".dvc/config.local").exists()
    monkeypatch.setenv(retrain.VARIABLE, str(checkout.parent / "store"))
    assert retrain._remote(add=True) == "retrain"
    assert "store" in Path(".dvc/config.local").read_text()
    assert retrain._remote(add=True) == "retrain", "and again"


# --------------------------------------------------------------------------------------------------- the pull request


def fake_gh(folder: Path, monkeypatch, **known: str) -> Path:
    """A `gh` that notes its arguments and knows pull requests: URL -> commit."""
    folder.mkdir()
    calls = folder / "calls"
    listed = json.dumps([{"url": url, "headRefOid": made} for url, made in known.items()])
    script = (
        f'#!/bin/sh\nprintf "%s|" "$@" >> {calls}\necho >> {calls}\n[ "$2" = list ] && echo \'{listed}\' || echo new\n'
    )
    (folder / "gh").write_text(script)
    (folder / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("GH_TOKEN", "x")
    return calls


def test_the_pull_request_has_the_commits_own_words(checkout, monkeypatch, tmp_path) -> None:
    reproduce()
    branch.commit("retrain/abc", "[retrain] Title\n\n## Decision\n\nwhy\n")
    branch.push("retrain/abc")
    branch.git("branch", "-D", "retrain/abc")  # another machine's
    calls = fake_gh(tmp_path / "bin", monkeypatch)
    assert pull_request.propose("retrain/abc") == "pull request new"
    assert "pr|create|--head|retrain/abc|--title|[retrain] Title|--body|## Decision\n\nwhy|" in calls.read_text()


def test_a_pull_request_that_exists_is_left_as_it_is(checkout, monkeypatch, tmp_path) -> None:
    reproduce()
    made = branch.commit("retrain/abc", "[retrain] Title")
    branch.push("retrain/abc")
    calls = fake_gh(tmp_path / "bin", monkeypatch, old="0" * 40, present=made)
    assert pull_request.propose("retrain/abc") == "pull request present"
    assert "create" not in calls.read_text()


def test_an_old_pull_request_of_the_same_name_is_not_taken_for_this_one(checkout, monkeypatch, tmp_path) -> None:
    reproduce()
    branch.commit("retrain/abc", "[retrain] Title")
    branch.push("retrain/abc")
    calls = fake_gh(tmp_path / "bin", monkeypatch, old="0" * 40)  # merged, and the branch deleted
    assert pull_request.propose("retrain/abc") == "pull request new"
    assert "pr|create|--head|retrain/abc|--title|[retrain] Title|" in calls.read_text()


def test_without_a_token_it_says_what_to_do(checkout) -> None:
    assert "open one for retrain/abc" in pull_request.propose("retrain/abc")


def test_the_title_has_the_decision_and_its_figures() -> None:
    models = {"champion": {"top1": 0.5}, "challenger": {"top1": 0.625}}
    line = {"action": "promote", "challenger": {"replica": "full-0"}, "data": {"num_images": 60, "split": "val"}}
    titles = [
        pull_request.title(line | {"verdict": {"evidence": evidence}}, is_new=True)
        for evidence in (models, models | {"champion": None}, {})
    ]
    assert titles == [
        "[retrain] Promote full-0: top-1 accuracy 50.0 → 62.5 %, n = 60 on val",
        "[retrain] Promote full-0: top-1 accuracy 62.5 %, n = 60 on val",
        "[retrain] Promote full-0: too few images to judge on val",
    ]


def test_an_old_decision_is_not_told_as_a_new_one(checkout) -> None:
    old, new = ({"number": number, "action": "promote", "challenger": {"replica": "full-0"}} for number in (1, 2))
    write("reports/promotions.jsonl", json.dumps(old) + "\n")
    assert pull_request.is_new(old), "not yet committed"
    branch.git("add", "-A")
    branch.git("commit", "-q", "-m", "Decided")
    assert [pull_request.is_new(line) for line in (old, new)] == [False, True]
    title = pull_request.title(old, is_new=False)
    assert title == "[retrain] full-0 again: line 1 of reports/promotions.jsonl had decided on it"


@pytest.mark.parametrize(
    ("champion", "today"), [({"replica": "full-1"}, "`full-1` is the champion"), (None, "there is no champion")]
)
def test_an_old_decision_names_the_champion_of_today(monkeypatch, champion, today) -> None:
    monkeypatch.setattr(pull_request.ledger, "champion", lambda lines, model: champion)  # after a rollback
    for part in ("metrics", "data"):
        monkeypatch.setattr(pull_request, part, str)
    old = {"number": 1, "action": "promote", "model": "small", "challenger": {"replica": "full-0"}}
    text = pull_request.text(old, is_new=False, branch="retrain/abc", others=[])
    decided = "None: line 1 of `reports/promotions.jsonl` (promote `full-0`) had decided on it."
    assert text.startswith(f"## Decision\n\n{decided} Today {today}.\n\n## Metrics")


def test_strategies_are_compared_with_n_and_spread() -> None:
    judged = [{"mean_per_class": {"value": value}, "num_images": 60} for value in (0.5, 0.6)]
    assert pull_request._cell(judged) == "55.0 ± 7.1 (2 seeds, n = 60)"
    assert pull_request._cell(judged[:1]) == "50.0 (1 seed, n = 60)"
    assert pull_request._cell(None) == "–"


# --------------------------------------------------------------------------------------------- what a reproduction made

LOCK = """\
schema: '2.0'
stages:
  fetch@source:
    cmd: fetch
    deps: [{path: src/fetch.py, hash: md5, md5: %s}]
    outs: [{path: data/source.json, hash: md5, md5: %s}]
  pretrain:
    cmd: pretrain
    deps: [{path: data/source.json, hash: md5, md5: %s}]
    outs: [{path: models/pretrain, hash: md5, md5: a}, {path: reports/runs/pretrain.json, hash: md5, md5: %s}]
  report:
    cmd: report
    deps: [{path: reports/runs, hash: md5, md5: %s}]
    outs: [{path: reports/report.html, hash: md5, md5: %s}]
"""
COMMITTED = LOCK % tuple("abbaaa")
CASES = {  # what another run wrote -> the stages of other records, whether a result is another
    LOCK % tuple("abbccc"): ([], False),
    LOCK % tuple("xbbccc"): (["fetch@source"], False),
    LOCK % tuple("axxccc"): (["fetch@source", "pretrain"], True),
}


@pytest.fixture
def reproduction(checkout, monkeypatch):
    """Stands for data, DVC and gate around a retraining: what `dvc repro` shall write -> what was said."""
    write("dvc.lock", COMMITTED)
    write("reports/runs/pretrain.json", "old\n")
    branch.git("add", "-A")
    branch.git("commit", "-qm", "Reproduce")

    def dvc(*arguments: str) -> int:
        done.append(arguments[0])
        if arguments[0] == "repro":
            write("dvc.lock", wanted[-1])
            write("reports/runs/pretrain.json", "new\n")
        return 0

    def run(written: str) -> list[str]:
        wanted.append(written)
        said: list[str] = []
        assert retrain._retrain("store", say=said.append) == 0
        return said

    wanted, done = [COMMITTED], []
    run.done = done
    monkeypatch.setattr(retrain, "_dvc", dvc)
    monkeypatch.setattr(retrain, "_fetch", lambda *, say: 0)
    monkeypatch.setattr(retrain, "_need_champion", lambda: done.append("champion"))
    monkeypatch.setattr(retrain, "_judge", lambda _: done.append("judge") or ("[retrain] Judged", "why"))
    monkeypatch.setattr(retrain, "_stale", lambda: [] if Path("dvc.lock").read_text() == wanted[-1] else ["pretrain"])
    return run


@pytest.mark.parametrize("written", CASES)
def test_results_and_what_they_were_made_from_are_told_apart(reproduction, written) -> None:
    write("dvc.lock", written)
    assert (retrain._new_records(), retrain._new_results()) == CASES[written]
    branch.git("rm", "-q", "--cached", "dvc.lock")
    branch.git("commit", "-qm", "Forget")
    assert (retrain._new_records(), retrain._new_results()) == (["fetch@source", "pretrain"], True)


def test_other_results_are_judged_and_proposed(reproduction) -> None:
    said = reproduction(LOCK % tuple("axxccc"))
    assert reproduction.done == ["champion", "repro", "judge", "push"]
    assert branch.message(branch.name()) == ("[retrain] Judged", "why")
    assert any("pushed retrain/" in line for line in said)


def test_a_change_that_changes_no_result_is_proposed_without_a_decision_and_made_once(reproduction) -> None:
    write("reports/promotions.jsonl", "by hand\n")
    said = reproduction(LOCK % tuple("xbbccc"))
    assert reproduction.done == ["champion", "repro", "push"], "nothing judged"
    name = branch.name()
    title, text = branch.message(name)
    assert title == "[retrain] No result changed, nothing decided: dvc.lock alone"
    assert "\n\n- `fetch@source`\n\nSo nothing was judged" in text
    assert branch.git("diff", "--name-only", "HEAD", name).split() == ["dvc.lock", "reports/runs/pretrain.json"]
    assert branch.git("status", "--porcelain") == "?? reports/promotions.jsonl\n"
    assert f"pushed {name} to origin" in said
    said = reproduction(LOCK % tuple("xbbccc"))
    assert said[0].startswith(f"nothing to do: origin has {name}")
    branch.git("merge", "-q", name)
    assert reproduction(LOCK % tuple("xbbccc"))[0].startswith("nothing to do: every result")
    assert reproduction.done.count("repro") == 1


@pytest.mark.parametrize("merge", [["merge", "-q"], ["merge", "-q", "--squash"]])
def test_images_that_are_added_and_taken_away_again_are_retrained(reproduction, merge) -> None:
    first, other = LOCK % tuple("axxccc"), LOCK % tuple("ayyddd")
    proposed = []
    # the third time DVC may bring the first results from its cache of runs, so that dvc.lock is the same to the byte
    for code, lock in (("2", first), ("3", other), ("2", first)):
        write("src/code.py", code)
        branch.git("commit", "-qam", "Change")
        said = reproduction(lock)
        proposed.append(branch.name())
        assert f"pushed {proposed[-1]} to origin" in said
        assert reproduction(lock)[0].startswith(f"nothing to do: origin has {proposed[-1]}")
        branch.git(*merge, proposed[-1])
        branch.git("commit", "-q", "--allow-empty", "-m", "Merge")
        assert reproduction(lock)[0].startswith("nothing to do: every result")
    assert proposed == [proposed[0], proposed[1], f"{proposed[0]}-2"]
    assert reproduction.done.count("judge") == 3


def test_a_kill_before_the_push_of_an_unchanged_result_goes_on(reproduction) -> None:
    write("dvc.lock", LOCK % tuple("xbbccc"))
    said = reproduction(LOCK % tuple("xbbccc"))
    assert said[0] == "to run: nothing; a retraining goes on that was not pushed"
    assert branch.pushed(branch.name())


def test_what_was_only_lost_is_made_again_without_a_branch(reproduction) -> None:
    said = reproduction(LOCK % tuple("abbccc"))
    assert said[-1] == "what was missing is made again, with the results that HEAD has: no branch"
    assert branch.git("status", "--porcelain") == ""
    assert branch.pushed(branch.name()) is None


@pytest.fixture
def champion_of_the_ledger(checkout, monkeypatch) -> Path:
    """A ledger that names a champion whose files are nowhere, and a pointer to it in git; the pointer."""
    write("models/champions/small.dvc", "outs:\n- md5: a.dir\n  size: 1\n  hash: md5\n  path: small\n")
    branch.git("add", "-A")
    branch.git("commit", "-qm", "Promote")
    monkeypatch.setattr(retrain.ledger, "champion", lambda lines, model: {"bundle_hash": "a.dir"})
    monkeypatch.setattr(retrain, "load_section", lambda *_: Namespace(model="small"))
    monkeypatch.setattr(champion, "_dvc", lambda *_: "no remote has it")
    return Path("models/champions/small.dvc")


def test_a_lost_champion_is_found_before_anything_is_trained(champion_of_the_ledger, monkeypatch) -> None:
    done = []
    for step, answer in {"_fetch": 0, "_stale": ["pretrain"], "_new_records": []}.items():
        monkeypatch.setattr(retrain, step, lambda answer=answer, **_: answer)
    monkeypatch.setattr(retrain, "_dvc", lambda *arguments: done.append(arguments) or 0)
    with pytest.raises(
        ValueError, match=r"the champion of hash a.dir is neither here, .*`dvc push` where it was promoted"
    ) as caught:
        retrain._retrain("store", say=str)
    assert "nothing was trained; where nobody has it: `dvc repro`" in str(caught.value)
    assert done == []
    assert branch.git("status", "--porcelain") == "", "the pointer too is as it was"
    assert "size: 1" in champion_of_the_ledger.read_text()


def test_before_the_first_promotion_no_champion_is_needed(champion_of_the_ledger, monkeypatch) -> None:
    monkeypatch.setattr(retrain.ledger, "champion", lambda lines, model: None)
    retrain._need_champion()


def test_a_decision_is_printed_once_by_who_makes_it(checkout, monkeypatch, capsys) -> None:
    line = {"number": 1, "action": "promote", "challenger": {"replica": "full-0"}}
    monkeypatch.setattr(retrain.promote, "promote", lambda: print("full-0 is the champion") or line)
    monkeypatch.setattr(pull_request, "title", lambda *_, is_new: f"is_new={is_new}")
    monkeypatch.setattr(pull_request, "text", lambda *_, is_new, branch, others: f"is_new={is_new}")
    assert retrain._judge("retrain/abc") == ("is_new=True", "is_new=True")
    assert capsys.readouterr().out == "full-0 is the champion\n"
    write("reports/promotions.jsonl", json.dumps(line) + "\n")
    branch.git("add", "-A")
    branch.git("commit", "-qm", "Decided")
    assert retrain._judge("retrain/abc") == ("is_new=False", "is_new=False")


# ------------------------------------------------------------------------------------------------------- the schedule


def test_the_schedule_calls_make_retrain_and_nothing_else(repository) -> None:
    workflow = read_yaml(repository / ".github/workflows/retrain.yml")
    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make retrain"]
    assert job["if"] == "${{ vars.RETRAIN_REMOTE != '' }}", "off in forks"
    assert "vars.RETRAIN_RUNNER" in job["runs-on"]
    assert workflow["permissions"] == {"contents": "write", "pull-requests": "write"}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    secret = [name for name, value in job["env"].items() if "secrets." in str(value)]
    assert all(name.startswith(("MLFLOW_TRACKING_", "AWS_")) for name in secret)
    assert not any("secrets." in str(step) or ("if" in step and "run" in step) for step in job["steps"])


def test_the_schedule_keeps_training_states_of_a_retraining_that_failed(repository) -> None:
    workflow = read_yaml(repository / ".github/workflows/retrain.yml")
    steps = workflow["jobs"]["retrain"]["steps"]
    names = [step.get("uses", step.get("run")).partition("@")[0] for step in steps]
    first, last = names.index("actions/cache/restore"), names.index("actions/cache/save")
    assert first < names.index("make retrain") < last
    assert "actions/cache" not in names, "saves after a success alone"
    assert steps[last]["if"] == "${{ always() }}"
    for key in ("path", "key"):
        assert steps[first]["with"][key] == steps[last]["with"][key]
    assert "run_attempt" in steps[last]["with"]["key"], "a second attempt cannot overwrite the first one's"
    assert steps[first]["with"]["key"].startswith(steps[first]["with"]["restore-keys"])


def test_make_retrain_is_preparation_and_the_command(repository) -> None:
    makefile = (repository / "Makefile").read_text()
    (recipe,) = [part for part in makefile.split("\n\n") if part.startswith("retrain:")]
    assert recipe.splitlines()[1:] == ["\t@rootstock retrain"]
    assert recipe.startswith("retrain: prepare ##")
