"""The table of a campaign: one row for each group, and the cases that went wrong."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field

from .verdict import COLUMNS, RIGHT, Verdict

RUN_ALONE = "make campaign CASE={title}"


@dataclass
class Table:
    """Verdicts by group, in the order in which they came."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[tuple[str, Verdict]] = field(default_factory=list)

    def add(self, title: str, verdict: Verdict) -> None:
        """Count the verdict of a case, whose title begins with its group."""
        group = title.partition("/")[0]
        self.rows.setdefault(group, Counter())[verdict.column] += 1
        if verdict.column != RIGHT:
            self.bad.append((title, verdict))

    @property
    def status(self) -> int:
        """Exit status: 0 if every case is in the first column."""
        return 1 if self.bad or not self.rows else 0

    def __str__(self) -> str:
        head = ("group", "cases", *COLUMNS)
        body = [
            (group, str(counts.total()), *(str(counts[c]) for c in COLUMNS))
            for group, counts in self.rows.items()
        ]
        total: Counter[str] = sum(self.rows.values(), Counter())
        body.append(("all", str(total.total()), *(str(total[c]) for c in COLUMNS)))
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *body)
        ]
        for title, verdict in self.bad:
            # make takes a dollar for one of its variables
            alone = RUN_ALONE.format(title=shlex.quote(title.replace("$", "$$")))
            lines += [
                "",
                f"{verdict.column}: {title}",
                f"  {verdict.why}",
                f"  {alone}",
            ]
        return "\n".join(lines)
