"""The gate stages of the cells and the highway as Triton kernels, forward and backward: one launch a stage.

A stage reads the gates as a convolution left them, in its precision, and does all that the cell's equations do until
the next convolution: biases, nonlinearities, memories in full precision, and what convolutions read of the result,
written where they read it. Gates are computed again on the way back, so that nothing is kept of them.

All tensors are matrices: a row is a pixel of a clip (B * h * w of them), a column a channel; columns are adjacent, and
the widths multiples of 8. Columns beyond the channels of a cell hold zeros, and remain zero. Numbers of equations refer
to `docs/equations.md`; `tests/models/test_gate_kernels.py` holds each kernel to the lines of the cells.
"""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    """The hyperbolic tangent; near 0, where the quotient loses digits, its series."""
    square = x * x
    series = x * (1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * 62 / 2835))))
    power = tl.exp(-2 * tl.abs(x))
    quotient = (1 - power) / (1 + power)
    return tl.where(square < 0.005, series, tl.where(x < 0, -quotient, quotient))


@triton.jit
def place(rows, WIDTH: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """Rows and columns of this program, and which of them there are."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    return row, column, (row < rows) & (column < WIDTH)


@triton.jit
def gate(raw, raw_stride, bias, row, column, there, number, WIDTH: tl.constexpr, COMPUTE: tl.constexpr):
    """Gate number `number` before its nonlinearity."""
    channel = number * WIDTH + column
    found = tl.load(raw + row * raw_stride + channel, mask=there, other=0).to(COMPUTE)
    return found + tl.load(bias + channel, mask=column < WIDTH, other=0).to(COMPUTE)


@triton.jit
def store_all(targets, strides, row, column, there, value):
    """What convolutions read of a state, to each place where one reads it."""
    for target in tl.static_range(len(targets)):  # pyright: ignore[reportGeneralTypeIssues]  # the compiler iterates over it
        pointer = targets[target] + row * strides[target] + column
        tl.store(pointer, value.to(targets[target].dtype.element_ty), mask=there)


@triton.jit
def add_all(gradients, strides, row, column, there, COMPUTE: tl.constexpr):
    """The gradient at a state, from all convolutions that have read it."""
    found = tl.load(gradients[0] + row * strides[0] + column, mask=there, other=0).to(COMPUTE)
    for gradient in tl.static_range(1, len(gradients)):  # pyright: ignore[reportGeneralTypeIssues]  # as above
        pointer = gradients[gradient] + row * strides[gradient] + column
        found += tl.load(pointer, mask=there, other=0).to(COMPUTE)
    return found


@triton.jit
def update_kernel(
    raw,
    raw_stride,
    bias,
    memory,
    new,
    targets,
    strides,
    forget_bias,
    rows,
    WIDTH: tl.constexpr,
    FROM_GATE: tl.constexpr,
    WITH_OUTPUT: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The gated update of a memory (Eq. 1e, 2d, 2h, 3d, 3h), for ConvLSTM with H after it (Eq. 1f)."""
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    i = sigmoid(gate(raw, raw_stride, bias, row, column, there, 0, WIDTH, COMPUTE))
    f = sigmoid(gate(raw, raw_stride, bias, row, column, there, 1, WIDTH, COMPUTE) + forget_bias)
    g = tanh(gate(raw, raw_stride, bias, row, column, there, 2, WIDTH, COMPUTE))
    if FROM_GATE:
        before = tanh(gate(raw, raw_stride, bias, row, column, there, 3, WIDTH, COMPUTE))
    else:
        before = tl.load(memory + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    after = f * before + i * g
    if not FROM_GATE:
        tl.store(new + row * WIDTH + column, after, mask=there)
    if WITH_OUTPUT:
        o = sigmoid(gate(raw, raw_stride, bias, row, column, there, 3, WIDTH, COMPUTE))
        store_all(targets, strides, row, column, there, o * tanh(after))
    else:
        store_all(targets, strides, row, column, there, after)


@triton.jit
def update_backward_kernel(
    raw,
    raw_stride,
    bias,
    memory,
    of_new,
    gradients,
    strides,
    of_raw,
    of_raw_stride,
    of_memory,
    forget_bias,
    rows,
    WIDTH: tl.constexpr,
    FROM_GATE: tl.constexpr,
    WITH_OUTPUT: tl.constexpr,
    LAST: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The way back through `update_kernel`; LAST: no later step has read the memory itself."""
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    i = sigmoid(gate(raw, raw_stride, bias, row, column, there, 0, WIDTH, COMPUTE))
    f = sigmoid(gate(raw, raw_stride, bias, row, column, there, 1, WIDTH, COMPUTE) + forget_bias)
    g = tanh(gate(raw, raw_stride, bias, row, column, there, 2, WIDTH, COMPUTE))
    if FROM_GATE:
        before = tanh(gate(raw, raw_stride, bias, row, column, there, 3, WIDTH, COMPUTE))
    else:
        before = tl.load(memory + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    given = add_all(gradients, strides, row, column, there, COMPUTE)
    of_gates = of_raw + row * of_raw_stride + column
    element = of_raw.dtype.element_ty
    if WITH_OUTPUT:
        o = sigmoid(gate(raw, raw_stride, bias, row, column, there, 3, WIDTH, COMPUTE))
        tanh_after = tanh(f * before + i * g)
        tl.store(of_gates + 3 * WIDTH, (given * tanh_after * o * (1 - o)).to(element), mask=there)
        given = given * o * (1 - tanh_after * tanh_after)
    if not LAST:
        given += tl.load(of_new + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    tl.store(of_gates, (given * g * i * (1 - i)).to(element), mask=there)
    tl.store(of_gates + WIDTH, (given * before * f * (1 - f)).to(element), mask=there)
    tl.store(of_gates + 2 * WIDTH, (given * i * (1 - g * g)).to(element), mask=there)
    if FROM_GATE:
        tl.store(of_gates + 3 * WIDTH, (given * f * (1 - before * before)).to(element), mask=there)
    else:
        tl.store(of_memory + row * WIDTH + column, given * f, mask=there)


@triton.jit
def highway_kernel(
    raw,
    raw_stride,
    bias,
    memory,
    new,
    targets,
    strides,
    gate_bias,
    rows,
    WIDTH: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The gradient highway (Eq. 5)."""
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    p = tanh(gate(raw, raw_stride, bias, row, column, there, 0, WIDTH, COMPUTE))
    s = sigmoid(gate(raw, raw_stride, bias, row, column, there, 1, WIDTH, COMPUTE) + gate_bias)
    before = tl.load(memory + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    after = s * p + (1 - s) * before
    tl.store(new + row * WIDTH + column, after, mask=there)
    store_all(targets, strides, row, column, there, after)


@triton.jit
def highway_backward_kernel(
    raw,
    raw_stride,
    bias,
    memory,
    of_new,
    gradients,
    strides,
    of_raw,
    of_raw_stride,
    of_memory,
    gate_bias,
    rows,
    WIDTH: tl.constexpr,
    LAST: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The way back through `highway_kernel`."""
    row, column, there = place(rows, WIDTH, BLOCK_ROWS, BLOCK_COLUMNS)
    p = tanh(gate(raw, raw_stride, bias, row, column, there, 0, WIDTH, COMPUTE))
    s = sigmoid(gate(raw, raw_stride, bias, row, column, there, 1, WIDTH, COMPUTE) + gate_bias)
    before = tl.load(memory + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    given = add_all(gradients, strides, row, column, there, COMPUTE)
    if not LAST:
        given += tl.load(of_new + row * WIDTH + column, mask=there, other=0).to(COMPUTE)
    of_gates = of_raw + row * of_raw_stride + column
    element = of_raw.dtype.element_ty
    tl.store(of_gates, (given * s * (1 - p * p)).to(element), mask=there)
    tl.store(of_gates + WIDTH, (given * (p - before) * s * (1 - s)).to(element), mask=there)
    tl.store(of_memory + row * WIDTH + column, given * (1 - s), mask=there)
