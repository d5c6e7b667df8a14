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
    import headnb.display
    import headnb.suite_cli
    import headnb.typed_samples  # noqa: F401
    from test_hostile_files import PAYLOADS, SUITE, _lines_of_a_task, _parameters, _payloads, _suites, _typed

ROW = b'{"prompt": "2 + 2 =", "completion": " 4", "id": "a"}'
CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'

TARGETS = {
    "lines of a task": (lambda found, data: _lines_of_a_task(found, data.split(b"\n")), [ROW, CHAT, ROW + b"\n" + ROW]),
    "head grids": (
        lambda found, data: _payloads(found, _text(data)),
        [path.read_bytes() for path in PAYLOADS.glob("*.heads.json") if path.stat().st_size < 20_000],
    ),
    "suite files": (lambda found, data: _suites(found, _text(data)), [json.dumps(SUITE).encode()]),
    "parameters": (lambda found, data: _parameters(found, _text(data)), [b"steps=3", b"tasks=[gcd, lcm]"]),
    "typed samples": (lambda found, data: _typed(found, _text(data)), [ROW, CHAT, b"2 + 2 =| 4"]),
}


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def main() -> None:
    name, *options = sys.argv[1:]
    check, seeds = TARGETS[name]
    found: Counter[str] = Counter()
    corpus = tempfile.mkdtemp(prefix="corpus-")  # it outlives this call, which ends the process
    for number, seed in enumerate(seeds):
        (Path(corpus) / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        check(found, data)
        if found.total() % 10_000 == 0:
            print(f"{name}: {found.total()} tried, {dict(found)}", flush=True)

    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
