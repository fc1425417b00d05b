"""The registry of variants: what each row of the ablation is, whatever protocol it stands in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmark.system.errors import unknown

SLOTS = {"bottom": lambda layers: 1, "middle": lambda layers: layers // 2, "top": lambda layers: layers - 1}
"""Names for highway slots, as functions of the depth."""


def slot_number(slot: int | str | None, layers: int) -> int:
    """The highway slot that a number, a name in `SLOTS` or nothing stands for with so many layers; 0 = no highway.

    Raises:
        ValueError: there is no slot of that name with so few layers.
    """
    if not isinstance(slot, str):
        return slot or 0
    number = SLOTS[slot](layers)
    if not number:
        raise ValueError(f"highway_slot: a highway needs two layers, not {layers}")
    return number


def slot_name(number: int, layers: int) -> str:
    """The name of a highway slot that holds at every depth: `none`, one of `SLOTS`, or `slot <number>`."""
    if not number:
        return "none"
    named = [name for name in ("bottom", "top", "middle") if SLOTS[name](layers) == number]
    return named[0] if named else f"slot {number}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An architecture apart from its size."""

    label: str
    """How tables and figures call it."""
    cell: str
    """Name in `models.spec.CELLS`."""
    slot: str | None = None
    """Name in `SLOTS`; none = no highway."""
    model: dict[str, Any] = field(default_factory=dict)
    """Further fields of `ModelSpec`."""
    training: Callable[[dict[str, Any]], dict[str, Any]] = lambda of_protocol: {}
    """Training keys that it has of itself, from those of the protocol; an entry may set them otherwise."""
    reference: str | None = None
    """The variant it is compared with: the same without a highway, or the cell that this one builds on."""


def as_predrnn_v2(of_protocol: dict[str, Any]) -> dict[str, Any]:
    """The training of PredRNN-V2 on Moving MNIST: decoupling loss, and reverse scheduled sampling up to `stop`.

    Source: mnist script of thuml/predrnn-pytorch, which has 25000, 50000 and 2500 for the three steps.
    """
    stop = of_protocol["sampling"]["stop"]
    reverse = {"kind": "reverse", "reverse_start": max(stop // 2, 1), "reverse_decay": max(stop / 20, 1.0)}
    return {"decouple_beta": 0.1, "sampling": reverse}


VARIANTS = {
    "convlstm": Variant(label="ConvLSTM", cell="convlstm"),
    "convlstm-fb0": Variant(
        label="ConvLSTM, forget bias 0", cell="convlstm", model={"forget_bias": 0.0}, reference="convlstm"
    ),
    "convlstm-ghu": Variant(label="ConvLSTM + GHU", cell="convlstm", slot="bottom", reference="convlstm"),
    "predrnn": Variant(label="PredRNN", cell="st_lstm", reference="convlstm"),
    "predrnn-ghu": Variant(label="PredRNN + GHU", cell="st_lstm", slot="bottom", reference="predrnn"),
    "predrnn-v2": Variant(
        label="PredRNN-V2", cell="st_lstm", model={"adapter": True}, training=as_predrnn_v2, reference="predrnn"
    ),
    "causal-lstm": Variant(label="Causal LSTM", cell="causal_lstm", reference="predrnn"),
    "causal-lstm-s2t": Variant(
        label="Causal LSTM, M before C",
        cell="causal_lstm",
        model={"memory_order": "spatial_to_temporal"},
        reference="causal-lstm",
    ),
    "predrnnpp": Variant(label="PredRNN++", cell="causal_lstm", slot="bottom", reference="causal-lstm"),
    "predrnnpp-middle": Variant(
        label="PredRNN++, GHU middle", cell="causal_lstm", slot="middle", reference="predrnnpp"
    ),
    "predrnnpp-top": Variant(label="PredRNN++, GHU top", cell="causal_lstm", slot="top", reference="predrnnpp"),
    "convgru": Variant(label="ConvGRU", cell="conv_gru", reference="convlstm"),
    "convgru-ghu": Variant(label="ConvGRU + GHU", cell="conv_gru", slot="bottom", reference="convgru"),
    "linear-recurrence": Variant(label="Linear recurrence", cell="linear_recurrence", reference="convgru"),
    "linear-recurrence-ghu": Variant(
        label="Linear recurrence + GHU", cell="linear_recurrence", slot="bottom", reference="linear-recurrence"
    ),
}

MEAN_DIGIT = "mean-digit"
"""The baseline that only clips have whose last frame is a digit."""
OF_ANY_CLIPS = {
    "last-frame": "Last frame repeated",
    "context-mean": "Mean of the context",
    "black": "Black",
}
"""Predictions of any clips that need no training: id -> label."""
BASELINES = OF_ANY_CLIPS | {MEAN_DIGIT: "Mean training digit"}
"""All predictions that need no training: id -> label."""

BASELINE_ERRORS = "baselines.json"
"""File in the folder of a protocol: baseline -> its MSE on the validation clips."""

PREDICTIONS = "predictions.json"
"""File in the folder of a row that other code predicted: which file, with its SHA-256, of which clips was scored."""

NO_SEED = 0
"""What is not trained has no seed; the one folder of each such row is filed under this number."""


def unknown_variant(value: object, allowed: Iterable[str], kind: str = "variant") -> str:
    """Message for a variant that is not among `allowed`: `PredRNN++` and its like mean one of the registry."""
    return unknown(kind, value, allowed, known=(*VARIANTS, *BASELINES))
