"""What people do with finished runs starts without PyTorch, which takes seconds to import."""

import json
import subprocess
import sys

import pandas as pd

from benchmark.config.variants import NO_SEED
from benchmark.system.parquet import write_parquet

RUN = """
import json, sys
from pathlib import Path
from benchmark.__main__ import main
from benchmark.reporting import published_records

published_records.FOLDER = Path(sys.argv[1])
found = [[command[0], main(command), "torch" in sys.modules] for command in json.loads(sys.argv[2])]
print(json.dumps(found))
"""


def test_record_tables_figures_status_and_publish_import_no_torch(
    tmp_path, write_protocol, make_protocol, write_finished
):
    changes = {"variants": ["predrnnpp"], "seeds": [1], "baselines": ["black"]}
    protocol, path = make_protocol(**changes), write_protocol(**changes)
    results_dir = write_finished(protocol)
    probed = protocol.run("predrnnpp", 1).path(results_dir) / "probe.parquet"
    norms = pd.read_parquet(probed)
    write_parquet(probed, pd.concat([norms, *(norms.assign(state="H", layer=layer) for layer in (1, 2))]))
    options = ["--protocol", str(path), "--results-dir", str(results_dir)]
    commands = [
        ["record", *options, "--variant", "predrnnpp", "--seed", "1"],
        ["record", *options, "--variant", "black", "--seed", str(NO_SEED)],
        *([command, *options] for command in ("tables", "figures", "status", "publish")),
    ]
    arguments = [sys.executable, "-c", RUN, str(tmp_path / "reference"), json.dumps(commands)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[command[0], 0, False] for command in commands]
    assert (tmp_path / "reference" / "tiny" / "README.md").exists()
