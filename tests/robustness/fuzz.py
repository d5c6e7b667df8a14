"""Coverage-guided fuzzing of the readers of untrusted files; it stops at the first error other than a HeadnbError.

    pip install atheris
    python tests/robustness/fuzz.py "head grids" -max_total_time=900 [CORPUS_FOLDER]

Options after the name are libFuzzer's. Without a folder, the corpus stays in the system's temporary folder. Failing
inputs are written to the working directory. test_hostile_files.py generates inputs from the formats' structure; this
program changes bytes at random, and changes further those inputs that reach new lines of headnb.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

# Dependencies are not instrumented: only lines of headnb count as coverage.
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
    corpus = tempfile.mkdtemp(prefix="corpus-")  # not removed: `Fuzz` ends the process
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
