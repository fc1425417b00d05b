"""The notebook of examples/ was run as it stands, and runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deep_in_time as dit

ROOT = Path(__file__).parents[2]
PATH = ROOT / "examples" / "own_model.ipynb"
NOTEBOOK = json.loads(PATH.read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
LARGEST = 100_000


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def test_it_is_light_and_was_run_from_top_to_bottom_without_an_error():
    assert PATH.stat().st_size < LARGEST
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert str(ROOT) not in PATH.read_text()


def test_it_and_the_page_use_the_public_names_alone():
    texts = [source_of(cell) for cell in CODE] + [(ROOT / "docs" / "library.md").read_text()]
    used = {name for text in texts for name in re.findall(r"\bdit\.(\w+)", text)}
    assert used <= set(dit.__all__)
    page = texts[-1]
    assert [name for name in dit.__all__ if name not in page] == []


@pytest.mark.slow
def test_it_runs():
    program = "\n\n".join(map(source_of, CODE))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (reaches,) = (output for cell in CODE for output in cell["outputs"] if "reach" in str(output.get("text")))
    names = re.findall(r"^(.*): reach", "".join(reaches["text"]), re.MULTILINE)
    assert re.findall(r"^(.*): reach", done.stdout, re.MULTILINE) == names
