"""What the ledger's lines say together: what was decided before, how often these images judged, who reigned when."""

from rootstock.config.promote import Promote
from rootstock.schema import promotion as ledger


def decided(lines: list[dict], line: dict, limits: Promote, *, is_served_alike: bool) -> dict | None:
    """Find the line that already says what would be decided now, and say so.

    Args:
        line: as far as it is known before the decision.
        is_served_alike: whether champion and challenger decode and view images alike: if not, equal weights may differ.
    """
    champion = line["champion_before"]
    if is_served_alike and champion is not None and champion["dvc_hash"] == line["challenger"]["dvc_hash"]:
        known = promoting(lines, line["model"], champion)
        print(f"{line['challenger']['replica']} is the champion already: line {known['number']}; nothing to decide")
        return known
    for known in reversed(lines):
        if known["action"] != ledger.ROLLBACK and _question(known, known["verdict"]["evidence"]["limits"]) == _question(
            line, limits.model_dump()
        ):
            if not failed_latency_alone(known):
                print(f"already decided: line {known['number']}, the same challenger, champion, data and limits")
            return known
    return None


def failed_latency_alone(line: dict) -> bool:
    """Whether a challenger was refused for its speed only: a matter of machine and hour, and worth another look."""
    return line["verdict"] is not None and [c["name"] for c in line["verdict"]["checks"] if not c["passed"]] == [
        "latency"
    ]


def _question(line: dict, limits: dict) -> tuple:
    """What makes two decisions one: asked again, the answer would be the same, or another by chance."""
    champion = line["champion_before"] if line["reason"] is None else None  # a reason: it was lost, and not compared
    return (
        line["model"], line["challenger"]["dvc_hash"], champion and champion["bundle_hash"], line["data"]["shards"],
        line["data"]["view"], limits,
    )  # fmt: skip


def num_judged(lines: list[dict], line: dict) -> int:
    """Count the other challengers that these images have judged: the more, the likelier that one passed by chance."""
    judged = {
        one["challenger"]["dvc_hash"]
        for one in lines
        if one["data"] is not None
        and (one["model"], one["data"]["keys_sha256"]) == (line["model"], line["data"]["keys_sha256"])
    }
    return len(judged - {line["challenger"]["dvc_hash"]})


def promoting(lines: list[dict], model: str, champion: dict) -> dict:
    """Return the last line that promoted a champion."""
    found = [
        line
        for line in lines
        if line["model"] == model and line["action"] == ledger.PROMOTE and line["champion_after"] == champion
    ]
    assert found, f"no line promoted {champion}"
    return found[-1]
