"""The whole loop, with a Git remote and a DVC remote on disk: images arrive, and each time a fresh clone retrains."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import small_project

from rootstock.ops import dvc_lock

SETTINGS = [
    "replicas.seeds=[0]",
    "finetune.full.training.epochs=10",
    # 60 images of three colours calibrate nothing, and the machine may be busy
    "promote.max_ece=1.0",
    "promote.max_latency_ms=10000.0",
]


class Office:
    """A Git remote, a DVC remote, a folder of images, and a person's own clone."""

    def __init__(self, repository: Path, folder: Path):
        self.folder, self.num_runners = folder, 0
        self.origin, self.store, self.target = folder / "origin.git", folder / "store", folder / "target"
        small_project.draw(folder / "source", num_images={"train": 4, "val": 2, "test": 2}, seed=7)
        small_project.draw(self.target)
        self.own = small_project.clone(repository, folder / "own")
        self._configure()
        small_project.run(folder, "git", "init", "-q", "--bare", "-b", "main", str(self.origin))
        small_project.run(self.own, "git", "remote", "add", "origin", str(self.origin))
        small_project.run(self.own, "git", "push", "-q", "origin", "main")

    def _configure(self) -> None:
        settings = {"fetch.source.path": self.folder / "source", "fetch.target.path": self.target}
        overrides = [f"{key}={value}" for key, value in settings.items()]
        small_project.rootstock(self.own, "configure", f"data={small_project.CHOICE}", *overrides, *SETTINGS)
        small_project.commit(self.own, "Configure")

    def clone(self, revision: str = "main") -> Path:
        """A machine that has nothing yet."""
        self.num_runners += 1
        runner = self.folder / f"runner-{self.num_runners}"
        small_project.run(self.folder, "git", "clone", "-q", "-b", revision, str(self.origin), str(runner))
        return runner

    def retrain(self, *arguments: str, runner: Path | None = None) -> str:
        runner = runner or self.clone()
        said = small_project.rootstock(runner, "retrain", *arguments, ROOTSTOCK_REMOTE=str(self.store))
        changed = small_project.run(runner, "git", "status", "--porcelain")
        assert changed == "", "the checkout is left as it was found"
        assert small_project.run(runner, "git", "branch", "--show-current") == "main\n"
        return said

    @contextmanager
    def refusing_pushes(self) -> Iterator[None]:
        hook = self.origin / "hooks/pre-receive"
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
        yield
        hook.unlink()

    def branches(self) -> list[str]:
        listed = small_project.run(self.origin, "git", "branch", "--list", "retrain/*", "--format=%(refname:short)")
        return sorted(listed.split())

    def merge(self, branch: str) -> None:
        small_project.run(self.own, "git", "pull", "-q", "--no-rebase", "--no-edit", "origin", branch)
        small_project.run(self.own, "git", "push", "-q", "origin", "main")

    def show(self, branch: str, path: str) -> str:
        return small_project.run(self.origin, "git", "show", f"{branch}:{path}")

    def ledger(self, branch: str) -> list[dict]:
        return [json.loads(line) for line in self.show(branch, "reports/promotions.jsonl").splitlines()]


def teach_wrongly(target: Path, folder: Path) -> None:
    """Let every training image of rust show moss."""
    small_project.draw(folder, num_images={"train": 12}, seed=9)
    shutil.rmtree(target / "train/rust")
    shutil.copytree(folder / "train/moss", target / "train/rust")


def test_new_images_retrain_once_and_only_a_better_model_is_promoted(repository, tmp_path) -> None:
    office = Office(repository, tmp_path)
    teach_wrongly(office.target, tmp_path / "other")

    # nothing was ever reproduced: the first model becomes champion, though a poor one
    said = office.retrain()
    (first,) = office.branches()
    assert f"pushed {first}" in said, said
    (line,) = office.ledger(first)
    assert (line["action"], line["champion_after"]["replica"]) == ("promote", "full-0")
    assert "nothing to do" in office.retrain(), "not merged yet, and made from this very state"
    office.merge(first)
    said = office.retrain()
    assert "nothing to do" in said, said

    # right images arrive
    shutil.rmtree(office.target / "train/rust")
    small_project.draw(office.target, num_images={"train": 20}, seed=1)
    foreseen = office.retrain("--dry")
    assert office.branches() == [first]
    assert "would" in foreseen
    runner = office.clone()
    with office.refusing_pushes(), pytest.raises(AssertionError, match="pre-receive hook declined"):
        office.retrain(runner=runner)
    assert office.branches() == [first], "no branch yet"
    said = office.retrain(runner=runner)
    assert "goes on that was not pushed" in said
    assert [line["action"] for line in office.ledger("main")] == ["promote"]
    (second,) = set(office.branches()) - {first}
    _, line = office.ledger(second)  # one more, though it was decided twice
    assert line["action"] == "promote", said
    assert line["verdict"]["evidence"]["difference"]["low"] > 0
    text = small_project.run(office.origin, "git", "log", "-1", "--format=%B", second)
    assert re.match(r"\[retrain\] Promote full-0: top-1 accuracy [\d.]+ → [\d.]+ %, n = 60 on val\n", text), text
    assert "Other retrainings" not in text, "the first one is merged"
    assert "| target | train | 36 | 84 |" in text, text
    assert "| full | val | " in text
    assert "1 seed, n = 60" in text
    assert "| source | train | 12 | 12 |" in text
    records = [dvc_lock.parse(office.show(name, "dvc.lock"), where=name) for name in (first, second)]
    assert records[0]["pretrain"] == records[1]["pretrain"], "the source has not changed"

    # the data are where the branch is
    other = office.clone(second)
    small_project.run(other, "dvc", "remote", "add", "--local", "--default", "store", str(office.store))
    small_project.run(other, "dvc", "pull")
    missing = json.loads(small_project.run(other, "dvc", "status", "--json", "-q") or "{}")
    assert set(missing) <= {"report"}, missing
    assert (other / "models/champions/small/weights.safetensors").is_file()

    # once: neither before the merge nor after it
    assert "nothing to do" in office.retrain()
    office.merge(second)
    assert "nothing to do" in office.retrain()
    assert office.branches() == sorted([first, second])

    # wrong images arrive
    shutil.rmtree(office.target / "train")
    small_project.draw(office.target, num_images={"train": 12}, seed=2, shuffled=True)
    said = office.retrain()
    (third,) = set(office.branches()) - {first, second}
    *_, line = office.ledger(third)
    assert line["action"] == "refuse", said
    assert not line["verdict"]["checks"][0]["passed"]
    assert "full-0 stayed the champion" in said
    champion = "models/champions/small.dvc"
    assert office.show(third, champion) == office.show("main", champion)
    assert "nothing to do" in office.retrain()

    # broken files arrive, more than are allowed
    for number in range(5):
        (office.target / f"train/fern/broken-{number}.png").write_bytes(b"no image")
    with pytest.raises(AssertionError, match=r"dvc repro ended with status .*; nothing was pushed"):
        office.retrain()
    assert office.branches() == sorted([first, second, third])
