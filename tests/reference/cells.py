"""Eq. 1 to 6, 16, 17 of docs/equations.md in plain loops, for one clip without a batch axis; uses none of `models`.

Every function also takes complex arrays and is analytic in them, so that a complex step gives exact derivatives.
"""

from types import SimpleNamespace

import numpy as np

Weights = dict[str, np.ndarray]


def details(
    *, equations: str = "code", memory_order: str = "temporal_to_spatial", kernel_size: int = 3, **given
) -> SimpleNamespace:
    """The fields of the table 'Paper and code side by side', resolved."""
    spatial_first = memory_order == "spatial_to_temporal"
    by_equations = {
        "code": {"o_sees_h": True, "g2_sees_m": spatial_first, "w3_kernel": kernel_size, "forget_bias": 1.0},
        "paper": {"o_sees_h": False, "g2_sees_m": True, "w3_kernel": 1, "forget_bias": 0.0},
    }[equations]
    common = {"first_gates_see_c": True, "norm": "none", "conv_bias": True, "highway_gate_bias": 0.0}
    return SimpleNamespace(
        **common | by_equations | {"spatial_first": spatial_first, "kernel_size": kernel_size} | given
    )


def unchanged(name, value):
    """Stands where a caller may look at the states H, C, M as they are made and put another value in their place."""
    return value


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def convolve(weight, bias, source):
    """A of Eq. 6."""
    _, height, width = source.shape
    r = weight.shape[-1] // 2
    a = np.zeros((len(weight), height, width), dtype=np.result_type(weight, bias, source))
    for y in range(height):
        for x in range(width):
            a[:, y, x] = bias
            for u in range(-r, r + 1):
                for v in range(-r, r + 1):
                    if 0 <= y + u < height and 0 <= x + v < width:
                        a[:, y, x] += weight[:, :, u + r, v + r] @ source[:, y + u, x + v]
    return a


def normalise(a, scale, shift):
    """N of Eq. 6; scale[j] and shift[j] are numbers (`channel`) or maps of height and width (`element`)."""
    mean = a.sum() / a.size
    variance = ((a - mean) ** 2).sum() / a.size
    return np.stack([scale[j] * (a[j] - mean) / np.sqrt(variance + 1e-5) + shift[j] for j in range(len(a))])


def conv1x1(w: Weights, d, name, source):
    """A 1x1 convolution, which has no norm."""
    return convolve(w[f"{name}.weight"], w[f"{name}.bias"] if d.conv_bias else 0.0, source)


def gates(w: Weights, d, name, source, letters):
    """The gate convolution `name` (Eq. 6), split into one slice for each letter."""
    weight = w[f"{name}.conv.weight"]
    a = convolve(weight, w[f"{name}.conv.bias"] if d.conv_bias else 0.0, source)
    if d.norm != "none" and weight.shape[-1] > 1:
        scale, shift = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
        assert scale.shape == (a.shape[:1] if d.norm == "channel" else a.shape)
        a = normalise(a, scale, shift)
    letters = letters.split()
    n = len(a) // len(letters)
    return {letter: a[j * n : (j + 1) * n] for j, letter in enumerate(letters)}


def convlstm(w: Weights, d, x, h, c, m, visit=unchanged):
    X = gates(w, d, "conv_x", x, "i f g o")
    H = gates(w, d, "conv_h", h, "i f g o")
    i = sigmoid(X["i"] + H["i"])  # 1a
    f = sigmoid(X["f"] + H["f"] + d.forget_bias)  # 1b
    g = np.tanh(X["g"] + H["g"])  # 1c
    o = sigmoid(X["o"] + H["o"])  # 1d
    c = visit("C", f * c + i * g)  # 1e
    h = visit("H", o * np.tanh(c))  # 1f
    return h, c, m


def st_lstm(w: Weights, d, x, h, c, m, visit=unchanged):
    X = gates(w, d, "conv_x", x, "i f g i' f' g' o")
    H = gates(w, d, "conv_h", h, "i f g o")
    M = gates(w, d, "conv_m", m, "i' f' g'")
    i = sigmoid(X["i"] + H["i"])  # 2a
    f = sigmoid(X["f"] + H["f"] + d.forget_bias)  # 2b
    g = np.tanh(X["g"] + H["g"])  # 2c
    c = visit("C", f * c + visit("C increment", i * g))  # 2d
    i2 = sigmoid(X["i'"] + M["i'"])  # 2e
    f2 = sigmoid(X["f'"] + M["f'"] + d.forget_bias)  # 2f
    g2 = np.tanh(X["g'"] + M["g'"])  # 2g
    m = visit("M", f2 * m + visit("M increment", i2 * g2))  # 2h
    both = np.concatenate([c, m])
    o = sigmoid(X["o"] + H["o"] + gates(w, d, "conv_o", both, "o")["o"])  # 2i
    h = visit("H", o * np.tanh(conv1x1(w, d, "conv_memories", both)))  # 2j
    return h, c, m


def causal_lstm(w: Weights, d, x, h, c, m, visit=unchanged):
    w3_in_m = d.w3_kernel == d.kernel_size
    X = gates(w, d, "conv_x", x, "i f g i' f' g' o")
    H = gates(w, d, "conv_h", h, "i f g o" if d.o_sees_h else "i f g")
    C = gates(w, d, "conv_c", c, "i f g") if d.first_gates_see_c else dict.fromkeys("ifg", 0.0)
    M = gates(w, d, "conv_m", m, "i' f'" + " w3" * w3_in_m + " g'" * d.g2_sees_m)
    w3 = M["w3"] if w3_in_m else gates(w, d, "conv_w3", m, "w3")["w3"]
    nothing = 0.0 * X["o"]

    def temporal(new_m):
        i = sigmoid(X["i"] + H["i"] + C["i"] + new_m.get("i", nothing))  # 3a, 4e
        f = sigmoid(X["f"] + H["f"] + C["f"] + new_m.get("f", nothing) + d.forget_bias)  # 3b, 4f
        g = np.tanh(X["g"] + H["g"] + C["g"] + new_m.get("g", nothing))  # 3c, 4g
        return visit("C", f * c + i * g)  # 3d, 4h

    def spatial(new_c):
        i2 = sigmoid(X["i'"] + new_c.get("i'", nothing) + M["i'"])  # 3e, 4a
        f2 = sigmoid(X["f'"] + new_c.get("f'", nothing) + M["f'"] + d.forget_bias)  # 3f, 4b
        g2 = np.tanh(X["g'"] + new_c.get("g'", nothing) + M.get("g'", nothing))  # 3g, 4c
        return visit("M", f2 * np.tanh(w3) + i2 * g2)  # 3h, 4d

    if d.spatial_first:
        new_m = spatial({})
        first = gates(w, d, "conv_first_memory", new_m, "i f g o")
        new_c = temporal(first)
        second = gates(w, d, "conv_second_memory", new_c, "o")
    else:
        new_c = temporal({})
        first = gates(w, d, "conv_first_memory", new_c, "i' f' g' o")
        new_m = spatial(first)
        second = gates(w, d, "conv_second_memory", new_m, "o")
    o = np.tanh(X["o"] + H.get("o", nothing) + first["o"] + second["o"])  # 3i
    h = o * np.tanh(conv1x1(w, d, "conv_memories", np.concatenate([new_c, new_m])))  # 3j
    return visit("H", h), new_c, new_m


def conv_gru(w: Weights, d, x, h, c, m, visit=unchanged):
    X = gates(w, d, "conv_x", x, "f r g")
    H = gates(w, d, "conv_h", h, "f r")
    f = sigmoid(X["f"] + H["f"] + d.forget_bias)  # 16a
    r = sigmoid(X["r"] + H["r"])  # 16b
    g = np.tanh(X["g"] + gates(w, d, "conv_rh", r * h, "g")["g"])  # 16c
    return visit("H", f * h + (1 - f) * g), c, m  # 16d


def linear_recurrence(w: Weights, d, x, h, c, m, visit=unchanged):
    X = gates(w, d, "conv_x", x, "f g")
    f = sigmoid(X["f"] + d.forget_bias)  # 17a
    return visit("H", f * h + (1 - f) * X["g"]), c, m  # 17b, 17c


def highway(w: Weights, d, x, z):
    X = gates(w, d, "conv_x", x, "p s")
    Z = gates(w, d, "conv_z", z, "p s")
    p = np.tanh(X["p"] + Z["p"])  # 5a
    s = sigmoid(X["s"] + Z["s"] + d.highway_gate_bias)  # 5b
    return s * p + (1 - s) * z, s  # 5c


CELLS = {
    "convlstm": convlstm,
    "st_lstm": st_lstm,
    "causal_lstm": causal_lstm,
    "conv_gru": conv_gru,
    "linear_recurrence": linear_recurrence,
}
