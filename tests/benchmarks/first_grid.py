"""Time from `%load_ext headnb` to the first grid in a fresh kernel, of this checkout and of an earlier version in turn.

    python tests/benchmarks/first_grid.py ../base            # a checkout, or a wheel
    python tests/benchmarks/first_grid.py base.whl --pause 5 --rounds 8

The two cells are `%load_ext headnb` and `%headscore smollm2-135m gsm_symbolic -n 4`. Each round starts one kernel for
each version, in alternating order. `--pause` is the time that a person takes to type the second cell; it is not
counted; on a busy machine it must be longer. The default model must have been loaded once before. The columns are
medians over rounds with 95 % intervals, relative to the earlier version:

    waiting       time in which the two cells run
    colours       time until the first colours are sent, relative to the earlier version's whole time
    processor     processor time of the kernel while the two cells run: with one thread and an idle core for it, the
                  time that the person waits or more; on a busy machine it varies less than the waiting time
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import zipfile
from pathlib import Path

from jupyter_client.manager import start_new_kernel
from rounds import median_interval

HERE = Path(__file__).parents[2]
CELLS = ("%load_ext headnb", "%headscore smollm2-135m gsm_symbolic -n 4")
MIME_TYPE = "application/vnd.headnb.pattern.v1+json"
TIMEOUT = 600
COLUMNS = ("waiting", "colours", "processor")


def measure(tree: Path, pause: float) -> dict[str, float]:
    """The columns in seconds for one kernel that imports headnb from `tree`."""
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, "PYTHONPATH": str(tree)})
    colours: list[float] = []
    printed: list[str] = []

    def watch(message: dict) -> None:
        data = message["content"].get("data", {}).get(MIME_TYPE)
        if data is not None:
            colours.append(time.monotonic())
        printed.extend([message["content"].get("text", ""), *message["content"].get("traceback", ())])

    used = 0.0

    def run(cell: str) -> tuple[float, float]:
        """When the cell began, and its duration."""
        nonlocal used
        used -= processor_seconds(client)
        started = time.monotonic()
        client.execute_interactive(cell, output_hook=watch, timeout=TIMEOUT)
        duration = time.monotonic() - started
        used += processor_seconds(client)
        return started, duration

    try:
        _, extension = run(CELLS[0])
        time.sleep(pause)
        started, scoring = run(CELLS[1])
        if not colours:
            raise RuntimeError(f"there is no grid: {''.join(printed)}")
        return {
            "waiting": extension + scoring,
            "colours": extension + colours[0] - started,
            "processor": used,
        }
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def processor_seconds(client: object) -> float:
    reply = client.execute_interactive(
        "", user_expressions={"used": "__import__('time').process_time()"}, timeout=TIMEOUT
    )
    return float(reply["content"]["user_expressions"]["used"]["data"]["text/plain"])


def unpacked(version: Path, folder: Path) -> Path:
    """The folder to import a version from: a checkout itself, or the unpacked wheel."""
    if version.is_dir():
        return version.resolve()
    with zipfile.ZipFile(version) as wheel:
        wheel.extractall(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="checkout or wheel of the earlier version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between the two cells, not counted")
    options = parser.parse_args()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        versions = {"base": unpacked(options.base, Path(folder)), "now": HERE}
        for number in range(options.rounds):
            order = list(versions) if number % 2 else list(reversed(versions))
            found = {name: measure(versions[name], options.pause) for name in order}
            base, now = found["base"], found["now"]
            totals = {"waiting": base["waiting"], "colours": base["waiting"], "processor": base["processor"]}
            rows.append({name: now[name] / totals[name] for name in COLUMNS})
            print(json.dumps({"round": number, **{name: round(rows[-1][name], 3) for name in COLUMNS}}), flush=True)
            print(f"  seconds: {json.dumps({k: {c: round(v, 2) for c, v in one.items()} for k, one in found.items()})}")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    cells = []
    for name in COLUMNS:
        values = sorted(row[name] for row in rows)
        low, high = median_interval(values)
        cells.append(f"{values[len(values) // 2]:.2f} [{low:.2f}, {high:.2f}]")
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
