"""docs/adding_predictions.md, followed from its first command to its last in a copy of the checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow import test_workflow

pytestmark = pytest.mark.slow
checkout = test_workflow.checkout
PAGE = Path(__file__).parents[1] / "docs/adding_predictions.md"


def test_page_leads_from_the_clips_to_a_row_beside_our_own(checkout):
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    environment = test_workflow.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = ["bash", "-e", "-o", "pipefail", "-c", "".join(blocks)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_clips.npz: context (24, 4, 20, 20) of the test clips of protocol beside, uint8" in done.stdout
    assert "hand back (24, 3, 20, 20): clips, predicted frames, height, width, in this order" in done.stdout
    assert re.search(r"^\| My model +\| not trained here \|", done.stdout, re.MULTILINE)
    assert re.search(r"^\| My model +\| ConvLSTM +\| exploratory \| 1 ", done.stdout, re.MULTILINE)
    assert "My model: not trained here; frames that other code predicted for these test clips, from mine.npz" in (
        done.stdout
    )
