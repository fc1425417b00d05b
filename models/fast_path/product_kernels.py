"""The stages that hold a product of matrices: H from [C, M], and the next frame from H.

What `gate_kernels.py` says of all kernels holds for these. Factors are of the type OPERAND, which is that of the gates;
Triton's interpreter, which multiplies the bits of bfloat16 as whole numbers, is given them in full precision.
"""

import triton
import triton.language as tl

from models.fast_path.gate_kernels import add_all, gate, place, sigmoid, store_all, tanh


@triton.jit
def multiply(
    left,
    left_stride,
    weight,
    row,
    column,
    rows,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """Rows of `left` (rows, DEPTH) times those of `weight` (WIDTH, DEPTH): this program's tile, in full precision."""
    found = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for first in range(0, DEPTH, BLOCK_DEPTH):
        term = first + tl.arange(0, BLOCK_DEPTH)
        ours = (row < rows) & (term[None, :] < DEPTH)
        theirs = (term[:, None] < DEPTH) & (column < WIDTH)
        a = tl.load(left + row * left_stride + term[None, :], mask=ours, other=0)
        b = tl.load(weight + column * DEPTH + term[:, None], mask=theirs, other=0)
        found = tl.dot(a.to(OPERAND), b.to(OPERAND), found, input_precision=PRECISION, out_dtype=COMPUTE)
    return found


@triton.jit
def output_kernel(
    raw,
    raw_stride,
    bias,
    memories,
    memories_stride,
    weight,
    mix_bias,
    mixed,
    targets,
    strides,
    rows,
    WIDTH: tl.constexpr,
    SIGMOID: tl.constexpr,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """H from the output gate and the product of [C, M] with W5 (Eq. 2j, 3j)."""
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    o = gate(raw, raw_stride, bias, row, column, there, 0, WIDTH, COMPUTE)
    o = sigmoid(o) if SIGMOID else tanh(o)
    product = multiply(
        memories,
        memories_stride,
        weight,
        row,
        column,
        rows,
        WIDTH,
        2 * WIDTH,
        COMPUTE,
        OPERAND,
        PRECISION,
        BLOCK_ROWS,
        BLOCK_COLUMNS,
        BLOCK_DEPTH,
    )
    m = tanh(product + tl.load(mix_bias + column, mask=column < WIDTH, other=0).to(COMPUTE))
    tl.store(mixed + row * WIDTH + column, m.to(mixed.dtype.element_ty), mask=there)
    store_all(targets, strides, row, column, there, o * m)


@triton.jit
def output_backward_kernel(
    raw,
    raw_stride,
    bias,
    mixed,
    weight,
    gradients,
    strides,
    of_raw,
    of_raw_stride,
    of_mixed,
    of_memories,
    rows,
    WIDTH: tl.constexpr,
    SIGMOID: tl.constexpr,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """The way back through `output_kernel`; programs of the first columns write what is behind gate and product."""
    row, column, there = place(rows, 2 * WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    element = of_mixed.dtype.element_ty
    found = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for first in range(0, WIDTH, BLOCK_DEPTH):
        term = first + tl.arange(0, BLOCK_DEPTH)[None, :]
        ours = (row < rows) & (term < WIDTH)
        o = gate(raw, raw_stride, bias, row, term, ours, 0, WIDTH, COMPUTE)
        o = sigmoid(o) if SIGMOID else tanh(o)
        slope = o * (1 - o) if SIGMOID else 1 - o * o
        m = tl.load(mixed + row * WIDTH + term, mask=ours, other=0).to(COMPUTE)
        given = add_all(gradients, strides, row, term, ours, COMPUTE)
        back = (given * o * (1 - m * m)).to(element)
        if tl.program_id(1) == 0:
            tl.store(of_raw + row * of_raw_stride + term, (given * m * slope).to(element), mask=ours)
            tl.store(of_mixed + row * WIDTH + term, back, mask=ours)
        depth = first + tl.arange(0, BLOCK_DEPTH)[:, None]
        theirs = (depth < WIDTH) & (column < 2 * WIDTH)
        w = tl.load(weight + depth * 2 * WIDTH + column, mask=theirs, other=0)
        found = tl.dot(back.to(OPERAND), w.to(OPERAND), found, input_precision=PRECISION, out_dtype=COMPUTE)
    tl.store(of_memories + row * 2 * WIDTH + column, found.to(element), mask=there)


@triton.jit
def frame_kernel(
    hidden,
    weight,
    bias,
    prediction,
    frame,
    mask,
    mask_stride,
    pixels,
    targets,
    strides,
    rows,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    LAST: tl.constexpr,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """The next frame (Eq. 9), and what the network sees at the next step (Eq. 7), if there is one.

    A quotient of 32 bits says whose clip a row is; one of 64 bits would be a call, with a stack.
    """
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    found = multiply(
        hidden,
        DEPTH,
        weight,
        row,
        column,
        rows,
        WIDTH,
        DEPTH,
        COMPUTE,
        OPERAND,
        PRECISION,
        BLOCK_ROWS,
        BLOCK_COLUMNS,
        BLOCK_DEPTH,
    )
    found += tl.load(bias + column, mask=column < WIDTH, other=0).to(COMPUTE)
    tl.store(prediction + row * WIDTH + column, found, mask=there)
    if not LAST:
        true = tl.load(frame + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
        share = tl.load(mask + row.to(tl.int32) // pixels * mask_stride, mask=row < rows, other=0).to(COMPUTE)
        store_all(targets, strides, row, column, there, share * true + (1 - share) * found)


@triton.jit
def frame_backward_kernel(
    of_prediction,
    mask,
    mask_stride,
    pixels,
    gradients,
    strides,
    weight,
    of_raw,
    of_hidden,
    rows,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    LAST: tl.constexpr,
    COMPUTE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """The way back through `frame_kernel`, to the prediction and the H that it was made of."""
    row, column, there = place(rows, DEPTH, BLOCK_ROWS, BLOCK_COLUMNS)
    element = of_raw.dtype.element_ty
    found = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for first in range(0, WIDTH, BLOCK_DEPTH):
        term = first + tl.arange(0, BLOCK_DEPTH)[None, :]
        ours = (row < rows) & (term < WIDTH)
        given = tl.load(of_prediction + row * WIDTH + term, mask=ours, other=0).to(COMPUTE)
        if not LAST:
            share = tl.load(mask + row.to(tl.int32) // pixels * mask_stride, mask=row < rows, other=0).to(COMPUTE)
            given += (1 - share) * add_all(gradients, strides, row, term, ours, COMPUTE)
        back = given.to(element)
        if tl.program_id(1) == 0:
            tl.store(of_raw + row * WIDTH + term, back, mask=ours)
        depth = first + tl.arange(0, BLOCK_DEPTH)[:, None]
        theirs = (depth < WIDTH) & (column < DEPTH)
        w = tl.load(weight + depth * DEPTH + column, mask=theirs, other=0)
        found = tl.dot(back.to(OPERAND), w.to(OPERAND), found, input_precision=PRECISION, out_dtype=COMPUTE)
    tl.store(of_hidden + row * DEPTH + column, found.to(element), mask=there)
