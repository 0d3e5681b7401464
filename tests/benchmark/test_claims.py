"""The table of claims says what the records say, and what they do not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "claims.py"


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("claims", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["claims"]


def row_of(table: str, text: str) -> list[str]:
    (line,) = [row for row in table.splitlines() if text in row]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_claim_holds_if_its_interval_says_so(claims, tmp_path):
    sets = [f"set {i}" for i in range(8)]
    noise = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.0]

    def scores(level: float) -> list[dict[str, list[float]]]:
        one = {n: [level + e, level + e] for n, e in zip(sets, noise, strict=True)}
        return [one, one]

    methods = {
        "svp-attention": scores(0.6),
        "svp-concat": scores(0.5),
        "alpnet": scores(0.61),
        "panet": scores(0.6),
        "dspnet": scores(0.615),
    }
    (tmp_path / "methods.json").write_text(json.dumps({"methods": methods}))
    table = claims.table(claims.Records(tmp_path, tmp_path))
    better = row_of(table, "better than one vector")
    assert better[2].startswith("+10.0 (")
    assert better[2].endswith("; 8)")
    assert better[3] == "yes"
    # by half a point in every set; two points were wanted
    assert row_of(table, "DSPNet is better than ALPNet")[3] == "yes, under 2"
    assert row_of(table, "RAN helps")[2] == "not measured"


def test_what_was_not_measured_is_said(claims, tmp_path):
    table = claims.table(claims.Records(tmp_path, tmp_path))
    rows = table.splitlines()[2:]
    assert len(rows) == len(claims.CLAIMS)
    assert all("not measured" in row for row in rows)


@pytest.mark.parametrize(
    ("measured", "wanted", "verdict"),
    [
        ((6, 5, 8), 5, "yes"),
        ((3, 1, 5), 5, "yes, under 5"),
        ((3, -1, 5), 0, "not shown"),
        ((-3, -5, -1), 0, "no, the opposite"),
        ((-0.5, -1.5, 1), -2, "yes"),
        ((-1.5, -3, 0.5), -2, "not shown"),
        ((-4, -6, -3), -2, "no, the opposite"),
    ],
)
def test_verdicts(claims, measured, wanted, verdict):
    claim = claims.Claim("paper", "text", None, None, wanted)
    assert claim.verdict(*measured) == verdict
