"""Write the notebooks of this folder from the scripts beside it, which are their only source.

    python examples/notebooks/from_scripts.py

In a script, ``# %%`` begins a cell of code and ``# %% [markdown]`` one of text; the docstring is
the first cell of text.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("rssm_continuous", "rssm_discrete", "tssm")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook_of(name: str) -> dict[str, Any]:
    """Make the notebook of the script ``name``, without outputs."""
    script = (HERE.parent / f"{name}.py").read_text()
    title, _, about = (ast.get_docstring(ast.parse(script)) or "").partition("\n")
    texts = [("markdown", f"# {title.rstrip('.')}\n{about}")]
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "markdown" in head else "code"
        if kind == "markdown":
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        texts.append((kind, body))
    cells = []
    for number, (kind, text) in enumerate(texts):
        code = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cell = {"cell_type": kind, "id": f"{name.replace('_', '-')}-{number}", "metadata": {}}
        cells.append(cell | code | {"source": text.strip().splitlines(keepends=True)})
    about_python = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about_python, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    for name in NAMES:
        text = json.dumps(notebook_of(name), indent=1, ensure_ascii=False)
        (HERE / f"{name}.ipynb").write_text(text + "\n")
