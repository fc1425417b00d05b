"""Checks of what a protocol needs: clips, the network under LPIPS, the MLflow store."""

from benchmark.cli.doctor.finding import Finding, Question
from benchmark.config.data_sections import DigitsConfig
from benchmark.data.moving_digits.digits import load_bank
from benchmark.data.videos.prepare import film_set, films_of
from benchmark.evaluation.lpips_backbone import look_for
from benchmark.reporting.tracking.store import look_at_store


def clips(question: Question) -> Finding:
    """The published digits or the videos of the protocol."""
    look = digits if isinstance(question.protocol.data, DigitsConfig) else videos
    return Finding("ok", look(question))


def digits(question: Question) -> str:
    """The digits of the protocol, read whole and compared with their checksums."""
    data = question.protocol.data
    assert isinstance(data, DigitsConfig)
    bank = load_bank(data.digits, data.digit_size, question.data_dir)
    counts = f"{len(bank.train)} + {len(bank.validation)} + {len(bank.test)}"
    return f"{data.digits} for protocol {question.protocol.name}: {counts} digits to train, validate and test on"


def videos(question: Question) -> str:
    """The videos of the protocol, found and counted, and one of them opened; the command `data` decodes them all."""
    found, data = film_set(question.protocol, question.data_dir), films_of(question.protocol)
    counts = " + ".join(str(len(films)) for films in found.films.values())
    first = found.films["train"][0]
    height, width = next(iter(first.parts())).shape[2:]
    return (
        f"{data.videos} for protocol {question.protocol.name}: {counts} films to train, validate and test on;"
        f" {first.name} opens, {width}x{height} pixels"
    )


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
