"""One line of `rootstock doctor`."""

import textwrap
from typing import NamedTuple

WIDTH = 110  # characters of a terminal; remedies are not broken, for they are to be copied
OK, WARN, FAIL = LEVELS = ("ok", "warn", "FAIL")


class Finding(NamedTuple):
    """What one check found."""

    group: str
    name: str  # of the check
    level: str  # of LEVELS
    text: str
    remedy: str = ""  # what to do; never empty where the level is not ok


def text(findings: list[Finding]) -> str:
    """Compose the doctor's page: a line a check under its group, the remedy below what is not ok, and the sum."""
    lines, group = [], None
    for found in findings:
        if found.group != group:
            group = found.group
            lines.append(group)
        start = f"  {found.level:4}  "
        lines += textwrap.wrap(
            found.text, WIDTH, initial_indent=start, subsequent_indent=" " * 10, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        if found.remedy:
            lines += [f"        {line}" for line in found.remedy.splitlines()]
    counts = ", ".join(f"{sum(found.level == level for found in findings)} {level}" for level in LEVELS)
    return "\n".join([*lines, "", counts])
