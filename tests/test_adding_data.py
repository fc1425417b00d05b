"""docs/adding_data.md, followed from its first command to its last in a copy of the checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow import test_workflow

pytestmark = pytest.mark.slow
checkout = test_workflow.checkout
PAGE = Path(__file__).parents[1] / "docs/adding_data.md"


def test_page_leads_a_newcomer_from_a_folder_to_a_table(checkout):
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    environment = test_workflow.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = ["bash", "-e", "-o", "pipefail", "-c", "".join(blocks)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "squares for protocol squares: 10 + 1 + 1 videos to train, validate and test on" in done.stdout
    assert "| ConvLSTM " in done.stdout
    assert "10 train, 1 validation, 1 test (files of T,H,W), split by a fixed seed" in done.stdout
    assert "frames of 24x24 pixels to 16x16 by area" in done.stdout
    assert "90 of 8 frames (every) for train, 2 of 8 frames (apart) for validation, 2 of 8 frames" in done.stdout
