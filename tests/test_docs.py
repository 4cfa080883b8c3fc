"""Documents: no stale figure, no dead link, no key or variable left out."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from rootstock.config.params import Params
from rootstock.ops import documents
from rootstock.ops.store import tracking_uri

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [*documents.documents(REPOSITORY), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]


def spread(mean: float) -> dict:
    return {"mean": mean, "sd": 0.01, "low": mean - 0.02, "high": mean + 0.02, "values": [mean - 0.01, mean + 0.01]}


def a_table() -> dict:
    row = {"seeds": [0, 1], "split": "test", "view": "center", "num_images": 6149, "wall_seconds": 75.0}
    return {
        "title": "The demo",
        "command": "make repro",
        "hardware": "Example CPU, 2 cores, 24 GB, no GPU",
        "commit": "abc",
        "wall_seconds": 3700.0,
        "pretrain_wall_seconds": 30.0,
        "rows": [{**row, "strategy": "full", "mean_per_class": spread(0.5), "top1": spread(0.625)}],
    }


def test_tables_in_documents_are_those_of_the_committed_results() -> None:
    tables = documents.read_all(REPOSITORY)
    assert set(tables) >= {"demo", "mini"}, "README promises both tables"
    for page in documents.documents(REPOSITORY):
        text = page.read_text()
        assert documents.render(text, tables, where=page.name) == text, f"{page.name} is stale: run `make docs`"


def test_a_table_is_rendered_with_its_n_split_spread_machine_and_commit() -> None:
    assert documents.table(a_table()) == (
        "**The demo**: `make repro`\n\n"
        "| strategy | seeds | mean per-class accuracy on test | each seed | top-1 accuracy | fine-tuning |\n"
        "|---|---|---|---|---|---|\n"
        "| full | 0, 1 | **50.0 ± 1.0 [48.0, 52.0]** | 49.0, 51.0 | 62.5 ± 1.0 [60.5, 64.5] | 1 min 15 s |\n\n"
        "Per cent, mean ± standard deviation over seeds [95 % interval of the mean]; n = 6\u202f149 test images, one "
        "central crop. Pretraining took 30.0 s; with all fine-tunings and evaluations 1 h 01 min. Example CPU, 2 "
        "cores, 24 GB, no GPU. Commit abc.\n"
    )


def test_render_fills_marked_places_only_and_twice_is_once() -> None:
    demo = "<!-- results:demo -->\nold\n<!-- /results:demo -->\n"
    mini = "<!-- results:mini -->\nkept\n<!-- /results:mini -->\n"
    text = f"a\n{demo}b\n{mini}"
    once = documents.render(text, {"demo": a_table()}, where="README.md")
    assert "old" not in once
    assert "kept" in once
    assert once.startswith("a\n<!-- results:demo -->\n**The demo**")
    assert documents.render(once, {"demo": a_table()}, where="README.md") == once


@pytest.mark.parametrize("text", ["<!-- results:demo -->\n", "<!-- results:demo -->\n<!-- /results:mini -->\n"])
def test_a_marker_without_its_counterpart_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"README\.md: found a marker of results without its counterpart"):
        documents.render(text, {}, where="README.md")


def test_results_without_a_place_are_refused(tmp_path: Path) -> None:
    from rootstock.schema import results

    (tmp_path / "README.md").write_text("nothing marked\n")
    results.write(tmp_path / "docs/results/demo.json", a_table())
    with pytest.raises(ValueError, match="found no place for it, wanted <!-- results:demo -->"):
        documents.update(tmp_path)
    (tmp_path / "README.md").write_text("<!-- results:demo -->\n<!-- /results:demo -->\n")
    assert documents.update(tmp_path) == [tmp_path / "README.md"]
    assert documents.update(tmp_path) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_documents_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = set(re.findall(r"(?:^|`|^[A-Z_]+=\S+ )make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets
    for choice in re.findall(r"DATA=([\w-]+)", text):
        assert choice == "mine" or (REPOSITORY / f"conf/data/{choice}.yaml").is_file()


def variables(folder: str) -> set[str]:
    found: set[str] = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        found |= set(re.findall(r"ROOTSTOCK_[A-Z_]+", path.read_text()))
    return found


def test_readme_lists_every_environment_variable_and_no_other() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == variables("src") | variables("pipeline") | {"MLFLOW_TRACKING_URI"}
    assert len(listed) == len(set(listed))


def test_tracking_uri_is_the_documented_one(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.invalid")
    assert tracking_uri(tmp_path) == "http://example.invalid"


def keys(model: type[BaseModel]) -> set[str]:
    """The names of every value that a section can hold, alternatives included."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner, pending = [], [field.annotation]
        while pending:
            current = pending.pop()
            if isinstance(current, type) and issubclass(current, BaseModel):
                inner.append(current)
            pending.extend(getattr(current, "__args__", ()))
        for one in inner:
            found |= keys(one)
        if not inner:
            found.add(name)
    return found


def test_every_key_of_the_configuration_is_documented() -> None:
    text = (REPOSITORY / "docs/configuration.md").read_text()
    cells = [cell for line in text.splitlines() if line.startswith("|") for cell in line.split("|")[1:2]]
    documented = {name.rpartition(".")[2] for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}
    assert keys(Params) - documented == set()
    assert documented - keys(Params) == {"arch", "training"}, "sections that have tables of their own"


def test_error_examples_are_what_the_command_says(capsys, monkeypatch) -> None:
    from rootstock import cli

    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "docs/configuration.md").read_text()
    examples = re.findall(r"^\$ rootstock (.*)\n(error: .*)$", text, re.MULTILINE)
    assert len(examples) >= 4
    before = Path("params.yaml").read_bytes()
    for arguments, wanted in examples:
        with pytest.raises(SystemExit):
            cli.main(arguments.split())
        assert capsys.readouterr().err.strip() == wanted
    assert Path("params.yaml").read_bytes() == before
