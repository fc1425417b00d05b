"""From a folder of videos in the public layout of KTH to a row of a table, by Snakemake alone."""

import json

import pandas as pd
import pytest
import yaml

from tests.helpers.made_films import write_kth
from tests.workflow import test_workflow
from tests.workflow.test_workflow import snakemake

checkout = test_workflow.checkout
PROTOCOL = {
    "about": "Made videos in the layout of KTH.",
    "data": {
        "videos": "kth",
        "frame_size": 16,
        "square": "stretch",
        "context": 3,
        "horizon": 3,
        "train_horizon": 2,
        "test_windows": "authors",
        "validation_clips": 2,
    },
    "model": {"layers": 2, "hidden_channels": 3, "kernel_size": 3, "patch_size": 4},
    "training": {"steps": 4, "batch_size": 2, "learning_rate": 0.01, "device": "cpu", "log_every": 2},
    "evaluation": {"lpips_backbone": "squeeze", "beyond": 5, "film_clips": [1]},
    "probe": {"clips": 2},
    "variants": ["convlstm"],
    "baselines": ["black"],
    "seeds": [1],
}
CALL = ["results/videos/tables/main.md", "--config", "protocol=videos", "data_dir=videos"]


@pytest.mark.slow
def test_folder_of_avi_files_becomes_a_row_of_a_table_and_other_videos_other_rows(checkout):
    folder = checkout / "videos" / "kth"
    write_kth(folder, (1, 15, 17), actions=("walking", "running"), height=15, width=20, codec="mpeg4", pixels="yuv420p")
    (checkout / "workflows" / "protocols" / "videos.yaml").write_text(yaml.safe_dump(PROTOCOL))
    status, output = snakemake(checkout, *CALL)
    assert status == 0, output
    assert "videos in the layout" in (checkout / "results" / "videos" / "tables" / "main.md").read_text()
    assert "kth: decoding | video 6/6" in (checkout / "results" / "videos" / "logs" / "data.log").read_text()
    table = pd.read_csv(checkout / "results" / "videos" / "tables" / "main.csv").set_index("variant")
    assert (table.loc["convlstm", "n"], table.loc["convlstm", "mse_mean"] > 0) == (1, True)
    notes = (checkout / "results" / "videos" / "tables" / "main.md").read_text()
    assert "Clips of kth on 16x16, 3 -> 3 frames, 3 test clips" in notes  # of 12 frames: one walks, two run
    assert "6 of 600 videos (missing: " in notes
    assert "frames of 20x15 pixels to 16x16 by area, aspect not kept" in notes
    assert "16 of 5 frames (every) for train" in notes

    status, output = snakemake(checkout, "--dry-run", *CALL)
    assert (status, "Nothing to be done" in output) == (0, True), output
    write_kth(folder, (18,), actions=("walking",), height=15, width=20, codec="mpeg4", pixels="yuv420p")
    status, output = snakemake(checkout, "--dry-run", *CALL)
    assert status == 0, output
    assert "rule data:" in (checkout / "results" / "videos" / "logs" / "data.log").read_text()
    stored = json.loads((checkout / "results" / "videos" / "data" / "data.json").read_text())
    assert stored["films"] == {"train": 2, "validation": 2, "test": 2}
