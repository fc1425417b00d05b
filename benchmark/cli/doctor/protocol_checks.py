"""Checks of what a protocol needs: clips, the network under LPIPS, the MLflow store."""

from benchmark.cli.doctor.finding import Finding, Question
from benchmark.data.kinds import kind_of
from benchmark.evaluation.lpips_backbone import look_for
from benchmark.reporting.tracking.store import look_at_store


def clips(question: Question) -> Finding:
    """The published digits or the videos of the protocol."""
    kind = kind_of(question.protocol.data)
    return Finding("ok", kind.look(question.protocol, question.data_dir))


def lpips_backbone(question: Question) -> Finding:
    """The network under LPIPS; without it everything else is measured."""
    net = question.protocol.evaluation.lpips_backbone
    record = look_for(net, question.data_dir, download=False)
    if "how" in record:
        return Finding("note", f"{net}: {record['status']}", record["how"])
    return Finding("ok", f"{net}: {record['file']}")


def mlflow_store(question: Question) -> Finding:
    """Whether the MLflow store is there and answers."""
    return Finding("ok", look_at_store())
