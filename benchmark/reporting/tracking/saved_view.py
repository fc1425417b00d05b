"""What the experiment of a protocol says in MLflow's page: a note, and the saved view *Best variant* under *Views*."""

import base64
import json
import time
import zlib

NOTE = (
    "**Best variant:** *Views*, then *Best variant* (means over seeds, by test/mse). What is sure: `tables/comparison`."
)
VIEW = "mlflow.sharedViewState.best-variant"
"""Tag under which the page (MLflow 3.17) finds the view; `viewStateShareKey=best-variant` in its address opens it."""
STATE = {
    "orderByKey": "metrics.`test/mse`",
    "orderByAsc": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "variant"}]},
    "useGroupedValuesInCharts": True,
    "selectedColumns": [
        "metrics.`test/mse`",
        "metrics.`test/psnr`",
        "metrics.`test/ssim`",
        "metrics.`probe/reach_trained`",
        "tags.`state`",
    ],
}


def experiment_tags() -> dict[str, str]:
    """The tags of a new experiment; they are as a person writes them in the page, who may change them there."""
    packed = base64.b64encode(zlib.compress(json.dumps(STATE).encode())).decode()
    view = {"name": "Best variant", "createdAt": round(1000 * time.time()), "state": f"deflate;{packed}"}
    return {"mlflow.note.content": NOTE, VIEW: json.dumps(view)}
