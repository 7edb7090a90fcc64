"""Runs the steps of a page in the folder where it is started: `python snippets.py STEPS.json`.

Shell steps run in bash behind `. .venv/bin/activate`, Python steps in one namespace, in the page's
order, as a reader with a terminal and a notebook does.
"""

import json
import subprocess
import sys
from pathlib import Path


def main(steps: list[tuple[str, str]]) -> None:
    names: dict[str, object] = {"__name__": "snippet"}
    for number, (language, text) in enumerate(steps):
        print(f"--- step {number}\n{text}", flush=True)
        if language == "sh":
            script = f"set -e\n. .venv/bin/activate\n{text}"
            subprocess.run(["bash", "-c", script], check=True)
        else:
            exec(compile(text, f"<step {number}>", "exec"), names)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
