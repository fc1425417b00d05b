"""A model outside the benchmark behind the interface of our networks; see `docs/adding_a_model.md`."""

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.forecasters.outside import ForecasterError, load_class, source_files
from models.forecasters.spec import SIZES, ForecasterSpec, Spec
from models.predictor import Predictor, build

STATES = "HCMZ"
"""Letters by which a model may name its states."""

States = dict[tuple[str, int], list[Tensor]]
"""(letter, layer) -> the state (B, ...) at t = 1, 2, ..."""


class Forecaster(nn.Module):
    """A model by its class: what it predicts, learns from and shows, each held against what was asked for.

    Args:
        spec: what the model is; its code is imported and run.

    Raises:
        ForecasterError: the class is not to be found, takes other arguments, or is no model; says what is missing.
    """

    def __init__(self, spec: ForecasterSpec) -> None:
        super().__init__()
        self.spec = spec
        self.reference_path = self.recompute = False
        found = load_class(spec.model)
        if not issubclass(found, nn.Module) or not callable(getattr(found, "predict", None)):
            raise ForecasterError(f"{spec.model}: is no torch.nn.Module with a method predict(context, horizon)")
        arguments = self._arguments(found)
        self.model = self._own("__init__", lambda: found(**arguments))
        if not any(True for _ in self.model.parameters()):
            raise ForecasterError(f"{spec.model}: has no parameters, so that there is nothing to train")
        fixed = [name for name, weight in self.model.named_parameters() if not weight.requires_grad]
        if fixed:
            raise ForecasterError(f"{spec.model}: {fixed[0]} requires no gradient; what is not trained is a buffer")
        self.eval()

    def _arguments(self, found: type) -> dict[str, Any]:
        """Those of the spec, and the sizes that the constructor takes besides."""
        taken = inspect.signature(found).parameters
        sizes = {name: getattr(self.spec, name) for name in SIZES if name in taken}
        arguments = sizes | self.spec.arguments
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise ForecasterError(f"{self.spec.model}: args: {error}") from None
        return arguments

    @property
    def has_own_loss(self) -> bool:
        """Whether the model says itself what it is trained on."""
        return callable(getattr(self.model, "loss", None))

    @property
    def has_states(self) -> bool:
        """Whether the model names states."""
        return callable(getattr(self.model, "states", None))

    def predict(self, context: Float[Tensor, "B K C H W"], horizon: int) -> Float[Tensor, "B horizon C H W"]:
        """Predict `horizon` frames after `context`; not clipped.

        Raises:
            ForecasterError: the model predicted something else.
        """
        predicted = self._own("predict", lambda: self.model.predict(context, horizon))
        return self._checked(predicted, context, horizon, "predict")

    def loss(self, frames: Float[Tensor, "B T C H W"], feed_mask: Float[Tensor, "B T-1"]) -> Float[Tensor, ""]:
        """The model's own loss, a mean over clips.

        Raises:
            ForecasterError: it is no single number.
        """
        loss = self._own("loss", lambda: self.model.loss(frames, feed_mask))
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            found = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ForecasterError(f"{self.spec.model}: loss gave {found}; needed is one number with a gradient")
        return loss

    def states(
        self, context: Float[Tensor, "B K C H W"], horizon: int
    ) -> tuple[Float[Tensor, "B horizon C H W"], States]:
        """The prediction with the states that led to it; none where the model names none.

        Raises:
            ForecasterError: prediction or states are something else.
        """
        if not self.has_states:
            return self.predict(context, horizon), {}
        predicted, states = self._own("states", lambda: self.model.states(context, horizon))
        steps, where = context.shape[1] + horizon - 1, f"{self.spec.model}: states"
        for key, found in states.items():
            letter, layer = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
            if letter not in tuple(STATES) or type(layer) is not int or layer < 1:
                raise ForecasterError(f"{where}: {key!r}; needed is a letter of {STATES} with a layer, ('H', 1)")
            if len(found) != steps or any(state.shape[:1] != context.shape[:1] or state.dim() < 2 for state in found):
                raise ForecasterError(f"{where}: {key}: needed are {steps} tensors (B, ...), one a time step")
        return self._checked(predicted, context, horizon, "states"), states

    def _checked(self, predicted: Any, context: Tensor, horizon: int, method: str) -> Tensor:
        expected = (len(context), horizon, *context.shape[2:])
        if not isinstance(predicted, Tensor) or predicted.shape != expected:
            found = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise ForecasterError(
                f"{self.spec.model}: {method} gave {found} after {context.shape[1]} frames;"
                f" needed is {expected}, (B, horizon, C, H, W)"
            )
        return predicted

    def _own(self, method: str, call: Callable[[], Any]) -> Any:
        """What the model's own code gives; an exception of it is told with its place, but a lack of memory as it is."""
        try:
            return call()
        except Exception as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                raise
            trace = traceback.extract_tb(error.__traceback__)
            own = [place for place in trace if Path(place.filename).resolve() in source_files(self.spec.model)]
            where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "in code that it calls"
            raise ForecasterError(f"{self.spec.model}: {method}: {type(error).__name__}: {error} ({where})") from error

    def why_unfused(self, frames: Tensor) -> str | None:
        """Why it is not computed in fused stages."""
        return "it is a model outside the benchmark"


Network = Predictor | Forecaster
"""What any trained row computes with."""


def build_network(spec: Spec, seed: int) -> Network:
    """The network of `spec` with the initial weights that `seed` gives, whatever was drawn before; on the CPU."""
    if not isinstance(spec, ForecasterSpec):
        return build(spec, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Forecaster(spec)
