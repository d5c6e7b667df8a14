"""Write headnb/tasks/data from the installed reasoning-gym: `python tests/support/write_procedural.py`."""

from __future__ import annotations

import json
import re

from headnb.tasks import procedural
from reasoning_gym.factory import DATASETS

# Group of the tasks of each module of reasoning-gym; other modules are logic.
GROUPS = {
    "algebra": "math",
    "arithmetic": "math",
    "geometry": "math",
    "probability": "math",
    "algorithmic": "code",
    "code": "code",
}
# Names of algorithmic tasks about words and letters.
LANGUAGE = re.compile(r"anagram|caesar|isomorphic|letter|palindrome|ransom|sentence|spell|string_(?!manip)|word")
# Tasks without a stated answer (several are correct, and a program checks them), or with required settings.
WITHOUT_ANSWER = {"boxnet", "composite", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def task_list() -> str:
    """Name -> group and description, as JSON; descriptions are written by hand in the file."""
    described = json.loads(procedural.TASKS.read_text(encoding="utf-8"))
    tasks = {}
    for name, (generator, _) in sorted(DATASETS.items()):
        if name not in WITHOUT_ANSWER:
            module = generator.__module__.split(".")[1]
            language = module == "algorithmic" and LANGUAGE.search(name)
            group = "language" if language else GROUPS.get(module, "logic")
            tasks[name] = [group, described.get(name, ["", "no description yet"])[1]]
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(about)}" for name, about in tasks.items()) + "\n}\n"


def samples() -> str:
    """The bundled samples, as JSON Lines."""
    lines = []
    for task, split in procedural.BUNDLED:
        pairs = procedural.generated(task, split, procedural.BUNDLED_SAMPLES, procedural.BUNDLED_SEED)
        lines += [json.dumps({"task": task, "split": split, "question": q, "answer": a}) for q, a in pairs]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    procedural.TASKS.write_text(task_list(), encoding="utf-8")
    procedural.SAMPLES.write_text(samples(), encoding="utf-8")
