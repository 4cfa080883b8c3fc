"""A retraining's parts: its branch, what it refuses, its pull request; and that the schedule holds no logic."""

import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.config.load import read_yaml
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
    assert not branch.is_pushed("retrain/abc")
    branch.push("retrain/abc")
    assert branch.is_pushed("retrain/abc")
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


def test_a_commit_that_was_not_pushed_is_made_again_and_a_pushed_one_is_never_overwritten(checkout) -> None:
    reproduce()
    first = branch.commit("retrain/abc", "a")
    assert branch.commit("retrain/abc", "b") != first
    branch.push("retrain/abc")
    branch.commit("retrain/abc", "c")
    with pytest.raises(branch.GitError, match="git push: "):
        branch.push("retrain/abc")


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


def fake_gh(folder: Path, monkeypatch, *, known: str = "") -> Path:
    """A `gh` that notes its arguments and knows at most one pull request."""
    folder.mkdir()
    calls = folder / "calls"
    script = (
        f'#!/bin/sh\nprintf "%s|" "$@" >> {calls}\necho >> {calls}\n[ "$2" = list ] && echo "{known}" || echo new\n'
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
    calls = fake_gh(tmp_path / "bin", monkeypatch, known="https://example.org/7")
    assert pull_request.propose("retrain/abc") == "pull request https://example.org/7"
    assert "create" not in calls.read_text()


def test_without_a_token_it_says_what_to_do(checkout) -> None:
    assert "open one for retrain/abc" in pull_request.propose("retrain/abc")


def test_the_title_has_the_decision_and_its_figures() -> None:
    models = {"champion": {"top1": 0.5}, "challenger": {"top1": 0.625}}
    line = {"action": "promote", "challenger": {"replica": "full-0"}, "data": {"num_images": 60, "split": "val"}}
    titles = [
        pull_request.title(line | {"verdict": {"evidence": evidence}})
        for evidence in (models, models | {"champion": None}, {})
    ]
    assert titles == [
        "[retrain] Promote full-0: top-1 accuracy 50.0 → 62.5 %, n = 60 on val",
        "[retrain] Promote full-0: top-1 accuracy 62.5 %, n = 60 on val",
        "[retrain] Promote full-0: too few images to judge on val",
    ]


def test_strategies_are_compared_with_n_and_spread() -> None:
    judged = [{"mean_per_class": {"value": value}, "num_images": 60} for value in (0.5, 0.6)]
    assert pull_request._cell(judged) == "55.0 ± 7.1 (2 seeds, n = 60)"
    assert pull_request._cell(judged[:1]) == "50.0 (1 seed, n = 60)"
    assert pull_request._cell(None) == "–"


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


def test_make_retrain_is_preparation_and_the_command(repository) -> None:
    makefile = (repository / "Makefile").read_text()
    (recipe,) = [part for part in makefile.split("\n\n") if part.startswith("retrain:")]
    assert recipe.splitlines()[1:] == ["\t@rootstock retrain"]
    assert recipe.startswith("retrain: prepare ##")
