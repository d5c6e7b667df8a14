"""Let an exported commit link to its repository by address: in README.md, as PyPI needs it, and in pyproject.toml.

Usage: python absolute_links.py FOLDER ADDRESS COMMIT, for example build https://github.com/user/headnb 0123abc.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^):#]+)(?P<anchor>#[^)]*)?\)")


def absolute_links(text: str, address: str, commit: str) -> str:
    """Markdown whose links to files of the repository are addresses; other links stay."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        url = f"{address}/{kind}/{commit}/{found['path']}{found['anchor'] or ''}"
        return f"{found['picture']}[{found['text']}]({url})"

    return _LINK.sub(link, text)


def main(folder: Path, address: str, commit: str) -> None:
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(absolute_links(readme.read_text(encoding="utf-8"), address, commit), encoding="utf-8")
    before, heading, urls = project.read_text(encoding="utf-8").partition("[project.urls]\n")
    project.write_text(f'{before}{heading}Source = "{address}"\n{urls}', encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
