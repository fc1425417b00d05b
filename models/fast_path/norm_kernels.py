"""The norm between a convolution and its gates as Triton kernels, forward and backward (Eq. 6).

A norm takes mean and variance of all gates that a convolution gives for a clip. So it takes two passes: one over the
convolution for its moments, in PARTS parts of a clip that run side by side, and one that normalises and at once adds
up what all convolutions give to the gates of a stage. On the way back, too: sums over a clip, then the gradients.

As in `gate_kernels.py` a row is a pixel of a clip and a column a channel; a gate has WIDTH columns, of which REAL are
channels and the others are zero and count nowhere. Scale and shift are one row for all pixels or one for each. All sums
are taken in one order, so equal numbers give equal bits.
"""

import triton
import triton.language as tl

SIZES = "pixels", "clips", "scale_rows"
"""For which nothing is compiled anew where they are 1."""


@triton.jit
def part_of_clip(pixels, PARTS: tl.constexpr):
    """First pixel of this program's part, and that of the next one."""
    size = (pixels + PARTS - 1) // PARTS
    first = tl.program_id(1) * size
    return first, tl.minimum(first + size, pixels)


@triton.jit
def value(raw, bias, place, channel, there, COMPUTE: tl.constexpr):
    """What a convolution gives, with its bias; 0 where there is nothing."""
    found = tl.load(raw + place, mask=there, other=0).to(COMPUTE)
    return found + tl.load(bias + channel, mask=there, other=0).to(COMPUTE)


@triton.jit
def statistics(moments, clip, pixels, channels, PARTS: tl.constexpr, COMPUTE: tl.constexpr):
    """Mean and 1 / standard deviation of clips, a column of them, from the moments of their parts."""
    part = tl.arange(0, PARTS)[None, :]
    size = (pixels + PARTS - 1) // PARTS
    count = (tl.minimum(tl.maximum(pixels - part * size, 0), size) * channels).to(COMPUTE)
    total = tl.load(moments + (clip * PARTS + part) * 2)
    square = tl.load(moments + (clip * PARTS + part) * 2 + 1)
    every = (pixels * channels).to(COMPUTE)
    mean = tl.expand_dims(tl.sum(total, 1) / every, 1)
    away = total / tl.maximum(count, 1) - mean
    variance = tl.expand_dims(tl.sum(square + count * away * away, 1), 1) / every
    return mean, 1 / tl.sqrt(variance + 1e-5)


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    raw,
    bias,
    moments,
    pixels,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
    PARTS: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Sum over a part of a clip, and sum of the squared distances from the mean of that part."""
    first, last = part_of_clip(pixels, PARTS)
    start = tl.program_id(0).to(tl.int64) * pixels
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for pixel in range(first, last, BLOCK_ROWS):
        row = pixel + tl.arange(0, BLOCK_ROWS)[:, None]
        for column in range(0, GATES * WIDTH, BLOCK_COLUMNS):
            channel = column + tl.arange(0, BLOCK_COLUMNS)[None, :]
            there = (row < last) & (channel < GATES * WIDTH) & (channel % WIDTH < REAL)
            total += value(raw, bias, (start + row) * (GATES * WIDTH) + channel, channel, there, COMPUTE)
    sum_of_all = tl.sum(tl.sum(total, 1), 0)
    mean = sum_of_all / tl.maximum((last - first) * (GATES * REAL), 1).to(COMPUTE)
    square = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for pixel in range(first, last, BLOCK_ROWS):
        row = pixel + tl.arange(0, BLOCK_ROWS)[:, None]
        for column in range(0, GATES * WIDTH, BLOCK_COLUMNS):
            channel = column + tl.arange(0, BLOCK_COLUMNS)[None, :]
            there = (row < last) & (channel < GATES * WIDTH) & (channel % WIDTH < REAL)
            found = value(raw, bias, (start + row) * (GATES * WIDTH) + channel, channel, there, COMPUTE)
            square += tl.where(there, (found - mean) * (found - mean), 0)
    place = moments + (tl.program_id(0) * PARTS + tl.program_id(1)) * 2
    tl.store(place, sum_of_all)
    tl.store(place + 1, tl.sum(tl.sum(square, 1), 0))


@triton.jit
def choose(places, gate, reading, GATES: tl.constexpr, READINGS: tl.constexpr):
    """The entry of a gate that is known only to the program."""
    found = places[reading]
    for number in tl.static_range(1, GATES):  # pyright: ignore[reportGeneralTypeIssues]  # the compiler iterates over it
        found = tl.where(gate == number, places[number * READINGS + reading], found)
    return found


@triton.jit(do_not_specialize=SIZES)
def add_kernel(
    raws,
    row_strides,
    biases,
    moments,
    scales,
    shifts,
    places,
    gates,
    pixels,
    scale_rows,
    rows,
    GATES: tl.constexpr,
    READINGS: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
    PARTS: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The gates of a stage, each the sum of all convolutions that have it, normalised; `places` says where, or -1."""
    blocks: tl.constexpr = (WIDTH + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    gate = tl.program_id(1) // blocks
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = tl.program_id(1) % blocks * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    there = (row < rows) & (column < REAL)
    clip = tl.minimum(row, rows - 1).to(tl.int32) // pixels
    pixel = (row.to(tl.int32) - clip * pixels) * scale_rows
    found = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for reading in tl.static_range(READINGS):  # pyright: ignore[reportGeneralTypeIssues]  # the compiler iterates over it
        first = choose(places, gate, reading, GATES, READINGS)
        if first >= 0:
            stride = row_strides[reading]
            channel = tl.multiple_of(first, 8) + column
            own = value(raws[reading], biases[reading], row * stride + channel, channel, there, COMPUTE)
            if NORMED >> reading & 1:
                mean, inverse = statistics(moments[reading], clip, pixels, stride // WIDTH * REAL, PARTS, COMPUTE)
                place = pixel * stride + channel
                scale = tl.load(scales[reading] + place, mask=there, other=0).to(COMPUTE)
                own = (own - mean) * inverse * scale
                own += tl.load(shifts[reading] + place, mask=there, other=0).to(COMPUTE)
            found += own
    place = gates + row * (GATES * WIDTH) + gate * WIDTH + column
    tl.store(place, found.to(gates.dtype.element_ty), mask=(row < rows) & (column < WIDTH))


@triton.jit(do_not_specialize=SIZES)
def norm_sums_kernel(
    of_gates,
    of_gates_stride,
    places,
    raw,
    bias,
    moments,
    scale,
    sums,
    pixels,
    scale_rows,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
    PARTS: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The way back: sums over a part of a clip of the gradient at what is normalised, and of its product with it."""
    first, last = part_of_clip(pixels, PARTS)
    clip = tl.program_id(0)
    one = tl.full((1, 1), 0, tl.int32) + clip
    mean, inverse = statistics(moments, one, pixels, GATES * REAL, PARTS, COMPUTE)
    plain = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    along = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    for block in range(first, last, BLOCK_ROWS):
        pixel = block + tl.arange(0, BLOCK_ROWS)[:, None]
        row = clip.to(tl.int64) * pixels + pixel
        for gate in tl.static_range(GATES):  # pyright: ignore[reportGeneralTypeIssues]  # the compiler iterates over it
            for left in range(0, REAL, BLOCK_COLUMNS):
                column = left + tl.arange(0, BLOCK_COLUMNS)[None, :]
                there, channel = (pixel < last) & (column < REAL), gate * WIDTH + column
                given = tl.load(of_gates + row * of_gates_stride + places[gate] + column, mask=there, other=0)
                factor = tl.load(scale + pixel * scale_rows * (GATES * WIDTH) + channel, mask=there, other=0)
                given = given.to(COMPUTE) * factor.to(COMPUTE)
                own = value(raw, bias, row * (GATES * WIDTH) + channel, channel, there, COMPUTE)
                plain += given
                along += given * (own - mean) * inverse
    place = sums + (clip * PARTS + tl.program_id(1)) * 2
    tl.store(place, tl.sum(tl.sum(plain, 1), 0))
    tl.store(place + 1, tl.sum(tl.sum(along, 1), 0))


@triton.jit(do_not_specialize=SIZES)
def norm_backward_kernel(
    of_gates,
    of_gates_stride,
    places,
    raw,
    bias,
    moments,
    sums,
    scale,
    of_raw,
    of_scale,
    of_shift,
    pixels,
    scale_rows,
    clips,
    GATES: tl.constexpr,
    NORMED: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
    PARTS: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The gradient at a convolution from that at the gates; those at scale and shift are added up, pixel by pixel."""
    blocks: tl.constexpr = (WIDTH + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    gate = tl.program_id(1) // blocks
    first = tl.multiple_of(choose(places, gate, 0, GATES, 1), 8)  # pyright: ignore[reportArgumentType]  # a constant
    pixel = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = tl.program_id(1) % blocks * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    there, all_columns = (pixel < pixels) & (column < REAL), (pixel < pixels) & (column < WIDTH)
    channel = gate * WIDTH + column
    factor = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    if NORMED:
        factor += tl.load(scale + pixel * scale_rows * (GATES * WIDTH) + channel, mask=there, other=0).to(COMPUTE)
    to_scale = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    to_shift = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), COMPUTE)
    count = (pixels * (GATES * REAL)).to(COMPUTE)
    part = tl.arange(0, PARTS)
    row = pixel.to(tl.int64)
    for clip in range(clips):
        given = tl.load(of_gates + row * of_gates_stride + first + column, mask=there, other=0).to(COMPUTE)
        back = given
        if NORMED:
            one = tl.full((1, 1), 0, tl.int32) + clip
            mean, inverse = statistics(moments, one, pixels, GATES * REAL, PARTS, COMPUTE)
            own = value(raw, bias, row * (GATES * WIDTH) + channel, channel, there, COMPUTE)
            own = (own - mean) * inverse
            plain = tl.sum(tl.load(sums + (clip * PARTS + part) * 2), 0) / count
            along = tl.sum(tl.load(sums + (clip * PARTS + part) * 2 + 1), 0) / count
            to_scale += tl.where(there, given * own, 0)
            to_shift += given
            back = tl.where(there, inverse * (given * factor - plain - own * along), 0)
        tl.store(of_raw + row * (GATES * WIDTH) + channel, back.to(of_raw.dtype.element_ty), mask=all_columns)
        row += pixels
    if NORMED:
        place = pixel * (GATES * WIDTH) + channel
        tl.store(of_scale + place, tl.load(of_scale + place, mask=all_columns, other=0) + to_scale, mask=all_columns)
        tl.store(of_shift + place, tl.load(of_shift + place, mask=all_columns, other=0) + to_shift, mask=all_columns)
