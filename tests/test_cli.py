"""The command line: what each command does, and how a person's mistakes are said."""

import json
import os
import shutil
from pathlib import Path

import pytest

from rootstock import cli
from rootstock.config.load import read_yaml
from rootstock.ops import configuration, recheck
from rootstock.schema import metrics as metrics_schema
from rootstock.schema import results as results_schema
from rootstock.schema import run as run_schema
from rootstock.schema import selection as selection_schema
from rootstock.schema import source as source_schema
from rootstock.schema.contract import ContractError


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with configuration and nothing made yet."""
    shutil.copytree(repository / "conf", tmp_path / "conf")
    shutil.copy(repository / "dvc.yaml", tmp_path / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "ROOTSTOCK_ARCHIVES", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    cli.main(["configure"])
    return tmp_path


def failure(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_configure_writes_the_default_under_its_header(project: Path, capsys) -> None:
    text = (project / "params.yaml").read_text()
    assert text.startswith("# Generated from conf/ by `make configure`: edit conf/, not this file.\nfetch:")
    assert configuration.choice(project / "params.yaml") == []
    capsys.readouterr()
    cli.main(["configure"])
    assert (project / "params.yaml").read_text() == text
    assert capsys.readouterr().out == "params.yaml: the defaults of conf/config.yaml\n", "no key changed"


def test_configure_notes_its_choice_and_says_what_changed(project: Path, capsys) -> None:
    capsys.readouterr()
    before = read_yaml(project / "params.yaml")["finetune"]["full"]["training"]["epochs"]
    cli.main(["configure", "finetune.full.training.epochs=77", "replicas.seeds=[0, 1]"])
    assert read_yaml(project / "params.yaml")["finetune"]["full"]["training"]["epochs"] == 77
    assert configuration.choice(project / "params.yaml") == [
        "finetune.full.training.epochs=77",
        "replicas.seeds=[0, 1]",
    ]
    assert f"finetune.full.training.epochs: {before} → 77" in capsys.readouterr().out
    cli.main(["configure"])  # a plain `make repro` later goes on with what was chosen
    assert read_yaml(project / "params.yaml")["finetune"]["full"]["training"]["epochs"] == 77
    assert "as before; data=demo goes back" in capsys.readouterr().out
    cli.main(["configure", "data=demo"])
    assert configuration.choice(project / "params.yaml") == []
    assert f"finetune.full.training.epochs: 77 → {before}" in capsys.readouterr().out


def test_three_lines_choose_ones_own_images(project: Path, repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    (lines,) = [block.split("```")[0] for block in readme.split("```yaml\n")[1:]]
    assert lines.count("\n") == 3
    (project / "conf/data/mine.yaml").write_text(lines)
    cli.main(["configure", "data=mine"])
    target = read_yaml(project / "params.yaml")["fetch"]["target"]
    assert target["collection"] == "folder"
    assert target["path"] == "~/my-images"
    assert configuration.command(configuration.choice(project / "params.yaml")) == "make repro DATA=mine"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["data=nope"], "Could not find 'data/nope' Available options in 'data': demo folder"),
        (["data=folder"], "fetch.target.path: missing; give it in conf/data/mine.yaml or as fetch.target.path=…"),
        (
            ["pretrain.training.epoch=20"],
            "params.pretrain.training.epoch: unknown key (value 20); did you mean epochs?",
        ),
        (["pretrain.training.epochs=0"], "params.pretrain.training.epochs: 0 is not allowed: input should be greater"),
        (["pretrain.training.optim.lr=fast"], "params.pretrain.training.optim.lr: 'fast' is not allowed"),
        (
            ["finetune.full.training.microbatch_size=24"],
            "params.finetune.full.training: microbatch_size 24 does not divide batch_size 32\n",
        ),
        (
            ["fetch.target.path=x"],  # of another kind of collection
            "params.fetch.target.path: unknown key (value 'x'); allowed: collection, layout, seed\n",
        ),
        (["pretrain..x=1"], "conf: "),
    ],
)
def test_a_wrong_configuration_is_named_and_changes_nothing(project: Path, capsys, overrides, wanted) -> None:
    before = (project / "params.yaml").read_bytes()
    said = failure(capsys, "configure", *overrides)
    assert wanted in said
    assert "Traceback" not in said
    assert (project / "params.yaml").read_bytes() == before


def test_elsewhere_the_command_says_where_it_belongs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert "holds no dvc.yaml; run this in the project's folder" in failure(capsys, "summary")


def test_commands_of_a_choice() -> None:
    assert configuration.command([]) == "make repro"
    chosen = ["data=mini", "recipe=tiny", "replicas.seeds=[0, 1]", "pretrain.seed=3"]
    wanted = "make repro DATA=mini RECIPE=tiny SET='replicas.seeds=[0, 1] pretrain.seed=3'"
    assert configuration.command(chosen) == wanted


# ------------------------------------------------------------------------------------------------------------ recheck


def own_images(folder: Path) -> None:
    for name in ("daisy", "rose"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            (folder / name / f"{number}.jpg").write_bytes(bytes([number]) * 10)


@pytest.fixture
def fetched(project: Path, monkeypatch) -> list[str]:
    """A project with one's own images, fetched; the list collects which datasets are fetched again."""
    own_images(project / "images")
    cli.main(["configure", "data=folder", "fetch.target.path=images"])
    files = recheck.open_collection("target").fetch(progress=False)
    source_schema.write(Path("data/raw/target/source.json"), collection="folder", verified="off", files=files)
    again: list[str] = []
    monkeypatch.setattr(recheck, "fetch_again", lambda dataset: again.append(dataset) or 0)
    return again


def test_recheck_is_silent_while_the_archives_are_as_noted(fetched, capsys) -> None:
    capsys.readouterr()
    cli.main(["recheck"])
    assert fetched == []
    assert capsys.readouterr().out == ""


def test_recheck_fetches_again_for_a_new_and_a_changed_image(fetched, capsys) -> None:
    Path("images/rose/new.jpg").write_bytes(b"new")
    Path("images/daisy/0.jpg").write_bytes(b"other bytes")
    cli.main(["recheck"])
    assert fetched == ["target"]
    said = capsys.readouterr().out
    assert "rose/new.jpg: a new file" in said
    assert "daisy/0.jpg" in said


def test_recheck_leaves_another_collection_to_dvc(fetched, capsys) -> None:
    shutil.rmtree("images")
    cli.main(["configure", "data=demo"])  # back: DVC sees that by the parameters
    cli.main(["recheck"])
    assert fetched == []


def test_recheck_ends_as_fetching_again_ended(fetched, monkeypatch) -> None:
    monkeypatch.setattr(recheck, "fetch_again", lambda dataset: 7)
    Path("images/rose/new.jpg").write_bytes(b"new")
    with pytest.raises(SystemExit) as ended:
        cli.main(["recheck"])
    assert ended.value.code == 7


def test_fetching_again_forces_one_stage(monkeypatch) -> None:
    commands = []
    monkeypatch.setattr(recheck.subprocess, "run", lambda command, check: commands.append(command) or os)
    monkeypatch.setattr(os, "returncode", 0, raising=False)
    assert recheck.fetch_again("source") == 0
    assert commands[0][1:] == ["-m", "dvc", "repro", "--single-item", "--force", "--no-run-cache", "fetch@source"]


# ------------------------------------------------------------------------------------------------ results of a repro


def judged(value: float, num_images: int) -> dict:
    accuracy = {"value": value, "low": value - 0.05, "high": value + 0.05}
    names = {"top1": accuracy, "mean_per_class": accuracy, "top5": {"value": 0.97, "low": 0.95, "high": 0.99}}
    return {"num_images": num_images, "num_classes": 4, "log_loss": 1.0, "ece": 0.1, **names}


def a_run(stage: str, names: list, *, dirty: bool = False) -> dict:
    hardware = {
        "device": "cpu", "cpu": "Example CPU", "num_cores": 2, "memory_gb": 23.5, "instruction_sets": ["avx2"],
        "cpu_capability": "AVX2", "num_threads": 2, "gpus": [],
    }  # fmt: skip
    environment = {
        "python": "3.11.7", "platform": "linux-x86_64", "rootstock": "0.1.0", "torch": "2.15.0", "cuda": None,
        "mlflow": "3.17.2", "lock_sha256": "0" * 64, "git_revision": "a" * 40, "git_dirty": dirty,
    }  # fmt: skip
    return {
        "stage": stage, "names": names, "run_id": None, "attempts": 1, "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z", "wall_seconds": 60.0, "images_per_second": 100.0, "energy_joules": None,
        "seconds": {}, "hardware": hardware, "environment": environment,
    }  # fmt: skip


VALUES = {"linear": (0.60, 0.62, 0.64), "full": (0.70, 0.72, 0.74), "scratch": (0.40, 0.42, 0.44)}


@pytest.fixture
def reproduced(project: Path) -> Path:
    """A project after a reproduction: selection, metrics and run files."""
    candidates = []
    run_schema.write(Path("reports/runs/pretrain.json"), a_run("pretrain", []))
    for strategy, values in VALUES.items():
        for seed, value in enumerate(values):
            metrics = {"val": {"center": judged(value - 0.01, 40)}, "test": {"center": judged(value, 160)}}
            metrics_schema.write(Path(f"reports/evaluate/{strategy}-{seed}/metrics.json"), metrics)
            candidates.append({"strategy": strategy, "seed": seed, "num_images": 40, "value": value - 0.01})
            for stage in ("finetune", "evaluate"):
                run_schema.write(Path(f"reports/runs/{stage}-{strategy}-{seed}.json"), a_run(stage, [strategy, seed]))
    candidates.sort(key=lambda row: (row["strategy"], row["seed"]))
    selection = {"metric": "mean_per_class", "split": "val", "view": "center", "candidates": candidates}
    selection_schema.write(
        Path("reports/select/challenger.json"), {**selection, "selected": {"strategy": "full", "seed": 2}}
    )
    return project


def test_summary_shows_every_replica_the_means_and_the_choice(reproduced: Path, capsys) -> None:
    capsys.readouterr()
    cli.main(["summary"])
    said = capsys.readouterr().out
    assert "test: 160 images, one central crop; per cent [95 % interval]" in said
    assert "full      0     70.0 [65.0, 75.0]        70.0 [65.0, 75.0]" in said
    assert "2     74.0 [69.0, 79.0]        74.0 [69.0, 79.0]  ← chosen" in said
    assert said.count("← chosen") == 1
    assert "mean  72.0 ± 2.0" in said
    assert "30.0 points better" in said
    for place in ("reports/report.html", "models/finetune/full-2", "make ui"):
        assert place in said


def test_summary_before_a_reproduction_says_what_to_run(project: Path, capsys) -> None:
    assert "reports/select/challenger.json is missing; `make repro` makes it" in failure(capsys, "summary")


def test_summary_names_a_replica_that_was_not_evaluated(reproduced: Path, capsys) -> None:
    Path("reports/evaluate/linear-1/metrics.json").unlink()
    assert "reports/evaluate/linear-1/metrics.json is missing" in failure(capsys, "summary")


def test_results_are_gathered_from_files_alone(reproduced: Path) -> None:
    cli.main(["results", "--name", "demo", "--title", "The demo"])
    found = results_schema.read(Path("docs/results/demo.json"))
    assert found["command"] == "make repro"
    assert found["hardware"] == "Example CPU, 2 cores, 24 GB, no GPU"
    assert found["commit"] == "a" * 12
    assert found["wall_seconds"] == 60.0 * (1 + 9 + 9)
    assert [row["strategy"] for row in found["rows"]] == ["linear", "full", "scratch"]
    full = found["rows"][1]
    assert (full["seeds"], full["num_images"], full["split"], full["wall_seconds"]) == ([0, 1, 2], 160, "test", 180.0)
    assert full["mean_per_class"]["values"] == list(VALUES["full"])
    assert full["mean_per_class"]["mean"] == pytest.approx(0.72)
    assert full["mean_per_class"]["sd"] == pytest.approx(0.02)
    # Student's interval with 2 degrees of freedom: 4.302653 · 0.02 / √3
    assert full["mean_per_class"]["high"] - full["mean_per_class"]["mean"] == pytest.approx(0.0496827, abs=1e-6)


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ((), "commit", " "),
        ((), "wall_seconds", 10.0),  # less than its parts
        ((), "extra", 1),
        (("rows", 0), "split", "train"),
        (("rows", 0), "seeds", [0, 1]),  # of three values
        (("rows", 0), "num_images", 159),  # of other strategies 160
        (("rows", 1, "top1"), "mean", 0.5),  # not of its values
        (("rows", 1, "top1"), "sd", None),
        (("rows", 2, "mean_per_class"), "low", 0.9),
    ],
)
def test_a_corrupt_table_of_results_is_refused(reproduced: Path, where, key, value) -> None:
    cli.main(["results", "--name", "demo", "--title", "The demo"])
    path = Path("docs/results/demo.json")
    table = inner = json.loads(path.read_text())
    for part in where:
        inner = inner[part]
    inner[key] = value
    path.write_text(json.dumps(table))
    with pytest.raises(ContractError, match=r"docs/results/demo\.json"):
        results_schema.read(path)


# --------------------------------------------------------------------------------------------------------------- tidy


def test_tidy_removes_exactly_what_dropped_replicas_left(reproduced: Path, capsys) -> None:
    for replica in ("full-0", "full-2"):
        (reproduced / "models/finetune" / replica).mkdir(parents=True)
        (reproduced / "models/finetune" / replica / "weights.safetensors").write_bytes(b"1")
        history = reproduced / f"reports/history/finetune-{replica}.csv"
        history.parent.mkdir(exist_ok=True)
        history.write_text("epoch\n")
    (reproduced / "reports/history/pretrain.csv").write_text("epoch\n")
    cli.main(["configure", "replicas.seeds=[0, 1]"])
    capsys.readouterr()
    before = {path for path in reproduced.rglob("*") if path.is_file()}
    cli.main(["tidy"])
    gone = {path.relative_to(reproduced).as_posix() for path in before if not path.exists()}
    wanted = {f"reports/runs/{stage}-{name}-2.json" for stage in ("finetune", "evaluate") for name in VALUES}
    wanted |= {f"reports/evaluate/{name}-2/metrics.json" for name in VALUES}
    wanted |= {"models/finetune/full-2/weights.safetensors", "reports/history/finetune-full-2.csv"}
    assert gone == wanted
    assert "removed models/finetune/full-2\n" in capsys.readouterr().out
    cli.main(["tidy"])
    assert capsys.readouterr().out == ""


def test_tidy_removes_a_link_and_not_what_it_points_to(project: Path) -> None:
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    (project / "models/finetune").mkdir(parents=True)
    (project / "models/finetune/old-0").symlink_to(elsewhere)
    cli.main(["tidy"])
    assert not (project / "models/finetune/old-0").is_symlink()
    assert (elsewhere / "kept").exists()


# ----------------------------------------------------------------------------------------------------------------- ui


def test_ui_before_any_run_says_what_to_run(project: Path, capsys) -> None:
    assert "nothing has been tracked yet; `make repro` does so" in failure(capsys, "ui")


def test_ui_names_another_port_when_one_is_taken(project: Path, capsys) -> None:
    import socket

    (project / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"make ui PORT={port + 1}" in failure(capsys, "ui", "--port", str(port))


def test_ui_serves_this_machine_only(project: Path, monkeypatch, capsys) -> None:
    (project / "mlflow.db").touch()
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    cli.main(["ui", "--port", "59871"])
    (command,) = commands
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{project.resolve()}/mlflow.db"
    assert "http://127.0.0.1:59871" in capsys.readouterr().out


def test_help_describes_every_command(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    for name in ("configure", "recheck", "summary", "results", "docs", "deps", "tidy", "reconcile", "ui"):
        assert f"\n    {name}" in said
