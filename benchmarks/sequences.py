"""Put the reports of several sequences into the result files.

    python benchmarks/sequences.py runs/tasks runs/three runs/street

`vifa-train experiment two-task | three-task | ablation` leaves a report for each order of tasks, in
RUN/NETWORK/PRESET/reports/. Of every experiment, the rows of all become one file: docs/results/two_task.json and so on.
Nothing is trained or measured here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vifa_runtime.files import write_json

EXPERIMENTS = {"two-task": "two_task", "three-task": "three_task", "ablation": "ablation"}


def main() -> None:
    """Read, join and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders that were --run.")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    for experiment, name in EXPERIMENTS.items():
        found = [
            json.loads(path.read_text())
            for run in options.runs
            for path in sorted(run.glob(f"*/{options.preset}/reports/{experiment}-*/rows.json"))
        ]
        if not found:
            print(f"no report of {experiment} in {', '.join(map(str, options.runs))}; {name}.json is left as it is")
            continue
        newest = max((result["meta"] for result in found), key=lambda meta: meta["date"])
        commands = "; ".join(result["meta"]["command"] for result in found)
        rows = [row for result in found for row in result["rows"]]
        write_json(options.output / f"{name}.json", {"meta": newest | {"command": commands}, "rows": rows})
        print(f"{options.output / name}.json: {len(found)} sequences, {len(rows)} rows")


if __name__ == "__main__":
    main()
