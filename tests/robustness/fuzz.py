"""Coverage-guided fuzzing of what reads files from strangers: it goes on until something other than a refusal comes.

    pip install atheris
    python tests/robustness/fuzz.py "head grids" -max_total_time=900 [FOLDER_OF_THE_CORPUS]

Options behind the name are libFuzzer's; without a folder the corpus is in one that is left in the system's temporary
folder, and what fails is written to the working folder. The test beside draws its cases by what the formats look like;
here bytes are changed at random, and those that reach new lines of headnb are changed further.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

# What headnb is built on stays as it is: only headnb's own lines count as new.
with atheris.instrument_imports(include=["headnb"]):
    from test_hostile_files import PAYLOADS, SOURCES, SUITE

ROW = b'{"prompt": "2 + 2 =", "completion": " 4", "id": "a"}'
CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'
TOKENS = b'{"input_ids": [3, 4, 5], "labels": [-100, 4, 5], "attention_mask": [1, 1, 1], "position_ids": [0, 1, 2]}'
LINES = "lines of a task"
SEEDS = {
    LINES: [ROW, CHAT, TOKENS, ROW + b"\n" + ROW],
    "head grids": [path.read_bytes() for path in PAYLOADS.glob("*.heads.json") if path.stat().st_size < 20_000],
    "suite files": [json.dumps(SUITE).encode()],
    "parameters": [b"steps=3", b"tasks=[gcd, lcm]"],
    "typed samples": [ROW, CHAT, b"2 + 2 =| 4"],
}


def main() -> None:
    name, *options = sys.argv[1:]
    check, _ = SOURCES[name]
    found: Counter[str] = Counter()
    corpus = tempfile.mkdtemp(prefix="corpus-")  # it outlives this call, which ends the process
    for number, seed in enumerate(SEEDS[name]):
        (Path(corpus) / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        check(found, data.split(b"\n") if name == LINES else data.decode(errors="surrogateescape"))
        if found.total() % 10_000 == 0:
            print(f"{name}: {found.total()} tried, {dict(found)}", flush=True)

    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
