"""The stages as operators of PyTorch, each one launch of a kernel of `gate_kernels.py` or `product_kernels.py`.

On tensors without numbers (`meta`, or pretended ones) an operator does nothing, so that launches can be counted there.
All tensors are as those modules say; `rows` is the number of pixels of all clips.
"""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.fast_path import gate_kernels, product_kernels

ROWS, COLUMNS = 16, 64
"""Tile of a program without a product of matrices: 8 numbers a thread."""
PRODUCT_ROWS, PRODUCT_COLUMNS, DEPTH = 32, 32, 32
"""Tile of a program with one, and how many terms of its sums are taken at a time."""
TYPES = {
    dtype: getattr(tl, str(dtype).removeprefix("torch.")) for dtype in (torch.bfloat16, torch.float16, torch.float32)
}
"""Precision of convolutions -> Triton's name of it."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""Of all launches; a product and a sum are one operation, as in PyTorch's own kernels."""
P = ParamSpec("P")
_LIBRARY = torch.library.Library("deep_in_time", "DEF")


def launch(kernel: Any, size: tuple[int, int], gates: Tensor, arguments: Sequence[Any], **fixed: Any) -> None:
    """Run a kernel over a matrix; one with a DEPTH holds a product of matrices.

    Args:
        size: rows and columns of what is computed.
        gates: or another tensor in the precision of convolutions.
        arguments: of the kernel but for `rows` at their end; a list of tensors stands for them and their strides, and
            None for one that the kernel will not touch.
        fixed: what it is compiled for.
    """
    fixed["COMPUTE"] = tl.float64 if gates.dtype == torch.float64 else tl.float32
    product = kernel.arg_names[-1] == "BLOCK_DEPTH"
    rows, columns = (PRODUCT_ROWS, PRODUCT_COLUMNS) if product else (ROWS, COLUMNS)
    fixed |= {"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns}
    if product:
        tf32 = gates.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
        fixed |= {"BLOCK_DEPTH": DEPTH, "PRECISION": "tf32" if tf32 else "ieee"}
        fixed["OPERAND"] = fixed["COMPUTE"] if gates.device.type == "cpu" else TYPES[gates.dtype]
    given: list[Any] = []
    for argument in arguments:
        if isinstance(argument, list):
            given += [tuple(argument), tuple(one.stride(0) for one in argument)]
        else:
            given.append(gates if argument is None else argument)
    grid = triton.cdiv(size[0], rows), triton.cdiv(size[1], columns)
    kernel[grid](*given, size[0], **fixed, **OPTIONS)


def operator(*written: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a function an operator of PyTorch that writes to these arguments."""

    def made(run: Callable[P, None]) -> Callable[P, None]:
        name = run.__name__  # pyright: ignore[reportFunctionMemberAccess]  # of all functions
        _LIBRARY.define(name + torch.library.infer_schema(run, mutates_args=written))
        for place in ("CPU", "CUDA"):  # on a CPU Triton's interpreter runs it
            _LIBRARY.impl(name, run, place)
        _LIBRARY.impl(name, lambda *_: None, "Meta")
        return getattr(torch.ops.deep_in_time, name).default

    return made


@operator("new", "targets")
def update(
    raw: Tensor,
    bias: Tensor,
    memory: Tensor | None,
    new: Tensor | None,
    targets: Sequence[Tensor],
    forget_bias: float,
    with_output: bool,
) -> None:
    """The gated update of a memory from the gates i, f, g.

    Args:
        raw: gates without bias, each D columns; i, f, g, and the memory itself before its tanh where `memory` is None,
            or o where `with_output`.
        bias: of all gates.
        memory: before the update, in full precision.
        new: takes it after the update.
        targets: take it, or H with `with_output`, in the precision of convolutions.
        forget_bias: added to f.
        with_output: H = sigmoid(o) tanh(memory) is what is read on.
    """
    rows, width = targets[0].shape
    fixed = {"WIDTH": width, "FROM_GATE": memory is None, "WITH_OUTPUT": with_output}
    given = [raw, raw.stride(0), bias, memory, new, list(targets), forget_bias]
    launch(gate_kernels.update_kernel, (rows, width), raw, given, **fixed)


@operator("of_raw", "of_memory")
def update_backward(
    raw: Tensor,
    bias: Tensor,
    memory: Tensor | None,
    of_new: Tensor | None,
    gradients: Sequence[Tensor],
    of_raw: Tensor,
    of_memory: Tensor | None,
    forget_bias: float,
    with_output: bool,
) -> None:
    """The way back through `update`.

    Args:
        of_new: gradient at the new memory from its own next update; None at the last.
        gradients: those at what convolutions have read.
        of_raw: takes the gradient at the gates.
        of_memory: takes that at the memory before.
    """
    rows, width = gradients[0].shape
    fixed = {"WIDTH": width, "FROM_GATE": memory is None, "WITH_OUTPUT": with_output, "LAST": of_new is None}
    given = [raw, raw.stride(0), bias, memory, of_new, list(gradients), of_raw, of_raw.stride(0), of_memory]
    launch(gate_kernels.update_backward_kernel, (rows, width), raw, [*given, forget_bias], **fixed)


@operator("new", "targets")
def highway(
    raw: Tensor, bias: Tensor, memory: Tensor, new: Tensor, targets: Sequence[Tensor], gate_bias: float
) -> None:
    """Z from the gates p and s; see `update`."""
    rows, width = targets[0].shape
    given = [raw, raw.stride(0), bias, memory, new, list(targets), gate_bias]
    launch(gate_kernels.highway_kernel, (rows, width), raw, given, WIDTH=width)


@operator("of_raw", "of_memory")
def highway_backward(
    raw: Tensor,
    bias: Tensor,
    memory: Tensor,
    of_new: Tensor | None,
    gradients: Sequence[Tensor],
    of_raw: Tensor,
    of_memory: Tensor,
    gate_bias: float,
) -> None:
    """The way back through `highway`; see `update_backward`."""
    rows, width = gradients[0].shape
    given = [raw, raw.stride(0), bias, memory, of_new, list(gradients), of_raw, of_raw.stride(0), of_memory, gate_bias]
    launch(gate_kernels.highway_backward_kernel, (rows, width), raw, given, WIDTH=width, LAST=of_new is None)


@operator("mixed", "targets")
def output(
    raw: Tensor,
    bias: Tensor,
    memories: Tensor,
    weight: Tensor,
    mix_bias: Tensor,
    mixed: Tensor,
    targets: Sequence[Tensor],
    sigmoid: bool,
) -> None:
    """H = o tanh(W5 [C, M]).

    Args:
        raw: the gate o without bias.
        memories: [C, M] in the precision of convolutions, 2 D columns.
        weight: W5 in the same, (D, 2 D).
        mixed: takes the tanh, for the way back.
        targets: take H.
        sigmoid: what o goes through; a tanh if not.
    """
    rows, width = targets[0].shape
    given = [raw, raw.stride(0), bias, memories, memories.stride(0), weight, mix_bias, mixed, list(targets)]
    launch(product_kernels.output_kernel, (rows, width), raw, given, WIDTH=width, SIGMOID=sigmoid)


@operator("of_raw", "of_mixed", "of_memories")
def output_backward(
    raw: Tensor,
    bias: Tensor,
    mixed: Tensor,
    weight: Tensor,
    gradients: Sequence[Tensor],
    of_raw: Tensor,
    of_mixed: Tensor,
    of_memories: Tensor,
    sigmoid: bool,
) -> None:
    """The way back through `output`: to the gate, to the product, and through it to [C, M]."""
    rows, width = gradients[0].shape
    given = [raw, raw.stride(0), bias, mixed, weight, list(gradients), of_raw, of_raw.stride(0), of_mixed, of_memories]
    launch(product_kernels.output_backward_kernel, (rows, 2 * width), raw, given, WIDTH=width, SIGMOID=sigmoid)


@operator("prediction", "targets")
def frame(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    prediction: Tensor,
    true: Tensor | None,
    mask: Tensor | None,
    targets: Sequence[Tensor],
) -> None:
    """The prediction from H of the top layer, and what the network sees at the next step.

    Args:
        hidden: H in the precision of convolutions.
        weight: in the same, (P, D).
        prediction: takes the next frame in patches, in full precision.
        true: the true one; None at the last step.
        mask: of the next step, one value a clip.
        targets: take what the network sees.
    """
    rows, width = prediction.shape
    given = [hidden, weight, bias, prediction, true, mask, *steps_of(mask, rows), list(targets) or [hidden]]
    fixed = {"WIDTH": width, "DEPTH": hidden.shape[1], "LAST": mask is None}
    launch(product_kernels.frame_kernel, (rows, width), hidden, given, **fixed)


@operator("of_raw", "of_hidden")
def frame_backward(
    of_prediction: Tensor,
    mask: Tensor | None,
    gradients: Sequence[Tensor],
    weight: Tensor,
    of_raw: Tensor,
    of_hidden: Tensor,
) -> None:
    """The way back through `frame`; `gradients` are those at what the network saw of the prediction."""
    rows, width = of_prediction.shape
    given = [of_prediction, mask, *steps_of(mask, rows), list(gradients) or [of_raw], weight, of_raw, of_hidden]
    fixed = {"WIDTH": width, "DEPTH": of_hidden.shape[1], "LAST": mask is None}
    launch(product_kernels.frame_backward_kernel, (rows, of_hidden.shape[1]), of_raw, given, **fixed)


def steps_of(mask: Tensor | None, rows: int) -> tuple[int, int]:
    """From one clip to the next: numbers of the mask, and rows."""
    return (0, 1) if mask is None else (mask.stride(0), rows // len(mask))
