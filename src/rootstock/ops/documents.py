"""Measured tables in documents: rendered from committed JSON between markers, so that no figure is typed by hand."""

import re
from pathlib import Path

from rootstock.evaluation.report import duration, grouped
from rootstock.evaluation.verdict import VIEW_NAMES, percent
from rootstock.schema import results as schema

RESULTS = Path("docs/results")
MARKED = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results:\2 -->)", re.DOTALL)
MARKER = re.compile(r"<!-- /?results:[\w-]+ -->")


def documents(root: Path) -> list[Path]:
    """Return the documents that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def read_all(root: Path) -> dict[str, dict]:
    """Return the committed tables by name."""
    return {path.stem: schema.read(path) for path in sorted((root / RESULTS).glob("*.json"))}


def render(text: str, tables: dict[str, dict], *, where: str) -> str:
    """Return a document with every marked place filled from its table; a place without a table stays as it is.

    Args:
        where: the document's name, for errors.

    Raises:
        ValueError: a marker without its counterpart.
    """
    if len(MARKER.findall(text)) != 2 * len(MARKED.findall(text)):
        raise ValueError(
            f"{where}: found a marker of results without its counterpart, "
            "wanted <!-- results:NAME --> and <!-- /results:NAME -->, each on a line of its own"
        )
    return MARKED.sub(
        lambda match: match[1] + (table(tables[match[2]]) if match[2] in tables else match[3]) + match[4], text
    )


def table(value: dict) -> str:
    """Render one table of results as Markdown, with its command, machine, time and commit."""
    first = value["rows"][0]
    split = first["split"]
    lines = [
        f"**{value['title']}**: `{value['command']}`",
        "",
        f"| strategy | seeds | mean per-class accuracy on {split} | each seed | top-1 accuracy | fine-tuning |",
        "|---|---|---|---|---|---|",
    ]
    for row in value["rows"]:
        each = ", ".join(percent(one) for one in row["mean_per_class"]["values"])
        accuracies = [_spread(row[name]) for name in schema.ACCURACIES]
        seeds = ", ".join(map(str, row["seeds"]))
        cells = [row["strategy"], seeds, f"**{accuracies[0]}**", each, accuracies[1], duration(row["wall_seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    several = any(row["mean_per_class"]["sd"] is not None for row in value["rows"])
    kind = (
        "mean ± standard deviation over seeds [95 % interval of the mean]" if several else "[95 % interval over images]"
    )
    lines += [
        "",
        f"Per cent, {kind}; n = {grouped(first['num_images'])} {split} images, {VIEW_NAMES[first['view']]}. "
        f"Pretraining took {duration(value['pretrain_wall_seconds'])}; with all fine-tunings and evaluations "
        f"{duration(value['wall_seconds'])}. {value['hardware']}. Commit {value['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def update(root: Path) -> list[Path]:
    """Bring every document up to date. Return those that changed.

    Raises:
        ValueError: a table has no place in any document, or a marker no counterpart.
    """
    tables = read_all(root)
    texts = {path: path.read_text() for path in documents(root)}
    placed = {match[1] for text in texts.values() for match in MARKED.findall(text)}
    homeless = sorted(set(tables) - placed)
    if homeless:
        name = homeless[0]
        raise ValueError(f"{RESULTS / name}.json: found no place for it, wanted <!-- results:{name} --> in a document")
    changed = []
    for path, text in texts.items():
        rendered = render(text, tables, where=path.name)
        if rendered != text:
            path.write_text(rendered)
            changed.append(path)
    return changed


def _spread(one: dict) -> str:
    sd = "" if one["sd"] is None else f" ± {percent(one['sd'])}"
    return f"{percent(one['mean'])}{sd} [{percent(one['low'])}, {percent(one['high'])}]"
