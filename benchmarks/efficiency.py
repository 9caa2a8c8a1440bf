"""The paper's Tables 5 and 6 for every network: `vifa-train efficiency` into docs/results.

    .venv-training/bin/python benchmarks/efficiency.py

Times are taken at QVGA: about half an hour on a quiet core, most of it for SwinFusion. `--no-time` takes seconds.
`--network` measures some networks again; the rows of the others stay, what they were measured by is kept as `older`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vifa_runtime.files import write_atomically, write_json
from vifa_training.commands.efficiency import describe, parse_size
from vifa_training.efficiency.plot import plot, require_matplotlib
from vifa_training.efficiency.rows import efficiency_rows
from vifa_training.efficiency.timing import TimingSettings
from vifa_training.networks import NETWORKS

KEPT = ("commit", "date", "time_size", "repeats", "threads", "note")


def main() -> None:
    """Count, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--time", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--time-size", default="320x240", help="width x height of the images that are timed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="a sentence about the machine's state")
    parser.add_argument("--output", type=Path, default=Path("docs/results/efficiency.json"))
    options = parser.parse_args()
    require_matplotlib()
    timing = (
        TimingSettings(parse_size(options.time_size, "--time-size"), options.repeats, options.threads)
        if options.time
        else None
    )
    rows = efficiency_rows(
        options.network, options.tasks, (512, 512), timing, progress=lambda line: print(line, file=sys.stderr)
    )
    meta = describe("benchmarks/efficiency.py", timing, options.note)
    if others := [name for name in NETWORKS if name not in options.network]:
        kept = json.loads(options.output.read_text())
        meta["older"] = {"networks": others, **{key: kept["meta"][key] for key in KEPT}}
        rows += [row for row in kept["rows"] if row["network"] in others]
        rows.sort(key=lambda row: list(NETWORKS).index(row["network"]))
    write_json(options.output, {"meta": meta, "rows": rows})
    write_atomically(options.output.with_suffix(".png"), plot(rows))
    print(f"{options.output} and {options.output.stem}.png written; benchmarks/tables.py makes the page")


if __name__ == "__main__":
    main()
