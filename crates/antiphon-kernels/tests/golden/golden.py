"""Writes golden.json: what PyTorch computes where Antiphon's kernels compute the same.

    python3 golden.py        (any Python with PyTorch; no GPU)

Everything is computed in double precision. Inputs are not in the file but drawn by one formula on both sides, rounded to
single precision: element i of an input of scale s and offset c is s * sin(0.37 * i + c).

Where PyTorch's layout differs, it is said below. Its gates stand in the order of Antiphon's: i, f, g, o for the LSTM and
r, z, n for the GRU, whose reset gate acts behind the product in both. Its LSTM and RNN have two biases, of which only the sum
matters; its GRU has two as well, whose sums matter for r and z, while n takes one outside of the reset gate and one inside.
"""

import json
import math
import struct
from pathlib import Path

import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)


def single(x):
    """The nearest number of single precision."""
    return struct.unpack("f", struct.pack("f", x))[0]


def drawn(shape, scale, offset):
    numbers = [single(scale * math.sin(0.37 * i + offset)) for i in range(math.prod(shape))]
    return torch.tensor(numbers).reshape(shape)


def numbers(tensor):
    return [float(f"{x:.9g}") for x in tensor.detach().flatten().tolist()]


GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent(kind, batch, steps, inputs, hidden, reverse, lengths, scale):
    """A layer as PyTorch runs it over packed sequences: outputs where steps are real, and the last state."""
    gates = GATES[kind]
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    layer = layer(inputs, hidden, batch_first=True, bidirectional=reverse)
    weight = drawn([inputs, gates * hidden], scale, 0.1)
    recurrent = drawn([hidden, gates * hidden], scale, 0.2)
    outside = drawn([gates * hidden], 0.5, 0.3)
    inside = drawn([gates * hidden], 0.4, 0.4)
    own = "_l0_reverse" if reverse else "_l0"
    with torch.no_grad():
        for name, value in [
            ("weight_ih", weight.T),
            ("weight_hh", recurrent.T),
            ("bias_ih", outside),
            ("bias_hh", inside),
        ]:
            getattr(layer, name + own).copy_(value)
    x = drawn([batch, steps, inputs], 1.0, 0.5)
    first = [drawn([batch, hidden], 0.8, 0.6), drawn([batch, hidden], 0.9, 0.7)]
    directions = 2 if reverse else 1
    # Of two directions only the second is looked at; the first starts at zero.
    states = [torch.cat([torch.zeros(directions - 1, batch, hidden), state[None]]) for state in first]
    # Packed sequences have no empty rows: these keep their first state, and are put in again below.
    rows = [b for b in range(batch) if lengths[b] > 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x[rows], [lengths[b] for b in rows], batch_first=True, enforce_sorted=False
    )
    states = [state[:, rows] for state in states]
    found, last = layer(packed, tuple(states) if kind == "lstm" else states[0])
    found, _ = torch.nn.utils.rnn.pad_packed_sequence(found, batch_first=True, total_length=steps)
    outputs = torch.zeros(batch, steps, hidden)
    outputs[rows] = found[..., -hidden:]
    last = [part[-1] for part in (last if kind == "lstm" else [last])]
    state = [part.clone() for part in first[: len(last)]]
    for part, new in zip(state, last):
        part[rows] = new
    return {
        "cell": kind, "batch": batch, "steps": steps, "inputs": inputs, "hidden": hidden, "reverse": reverse,
        "lengths": lengths, "scale": scale,
        "outputs": numbers(outputs), "state": numbers(torch.cat(state, 1)),
    }


def attention(additive, batch, queries, steps, width, memory, lengths):
    """Dot products by PyTorch's own attention; additive scores written out, with its softmax."""
    query = drawn([batch, queries, width], 1.2, 0.1)
    keys = drawn([batch, steps, width], 1.1, 0.2)
    values = drawn([batch, steps, memory], 1.0, 0.3)
    energy = drawn([width], 2.0, 0.4)
    real = torch.arange(steps)[None] < torch.tensor(lengths)[:, None]
    if additive:
        scores = torch.tanh(query[:, :, None] + keys[:, None]) @ energy
    else:
        scores = query @ keys.transpose(1, 2)
    weights = torch.softmax(scores.masked_fill(~real[:, None], -math.inf), 2)
    contexts = weights @ values
    if not additive:
        theirs = functional.scaled_dot_product_attention(query, keys, values, real[:, None], scale=1.0)
        assert torch.allclose(theirs, contexts, atol=1e-14)
    return {
        "additive": additive, "batch": batch, "queries": queries, "steps": steps, "width": width, "memory": memory,
        "lengths": lengths, "contexts": numbers(contexts), "weights": numbers(weights),
    }


def in_turn(reach, batch, queries, steps, width, memory, lengths):
    """Additive scores that hear of the looks before: of their sum, or, with a reach, of the last by three filters."""
    real = (torch.arange(steps)[None] < torch.tensor(lengths)[:, None]).double()
    query = drawn([batch, queries, width], 1.2, 0.1).requires_grad_()
    keys = drawn([batch, steps, width], 1.1, 0.2).requires_grad_()
    values = drawn([batch, steps, memory], 1.0, 0.3).requires_grad_()
    energy = drawn([width], 2.0, 0.4).requires_grad_()
    before = drawn([batch, steps], 0.6, 0.5).requires_grad_()
    feature = drawn([1 if reach is None else 3, width], 1.3, 0.6).requires_grad_()
    filters = None if reach is None else drawn([3, 2 * reach + 1], 0.9, 0.7).requires_grad_()
    seen, contexts, weights = before * real, [], []
    for t in range(queries):
        if reach is None:
            heard = seen[:, :, None]
        else:
            heard = functional.conv1d(seen[:, None], filters[:, None], padding=reach).transpose(1, 2)
        scores = torch.tanh(query[:, t, None] + keys + heard @ feature) @ energy
        looked = torch.softmax(scores.masked_fill(real == 0, -math.inf), 1)
        seen = seen + looked if reach is None else looked
        contexts.append((looked[:, None] @ values)[:, 0])
        weights.append(looked)
    contexts, weights = torch.stack(contexts, 1), torch.stack(weights, 1)
    loss = (contexts * drawn(contexts.shape, 1.0, 0.8)).sum() + (weights * drawn(weights.shape, 1.0, 0.9)).sum()
    loss.backward()
    inputs = [query, keys, values, energy, before, feature] + ([] if reach is None else [filters])
    return {
        "reach": reach, "batch": batch, "queries": queries, "steps": steps, "width": width, "memory": memory,
        "lengths": lengths, "contexts": numbers(contexts), "weights": numbers(weights),
        "gradients": [numbers(of.grad) for of in inputs],
    }


def convolution_2d(batch, steps, planes, bands, channels, kernel, stride, lengths):
    """PyTorch's planes stand before the steps, and its padding is the same on both sides: it is given what it lacks."""
    x = drawn([batch, steps, planes * bands], 1.0, 0.1).requires_grad_()
    weight = drawn([planes * kernel[0] * kernel[1], channels], 0.7, 0.2).requires_grad_()
    bias = drawn([channels], 0.5, 0.3).requires_grad_()
    real = (torch.arange(steps)[None] < torch.tensor(lengths)[:, None]).double()
    made = [-(-n // by) for n, by in zip((steps, bands), stride)]
    front = [(k - 1) // 2 for k in kernel]
    behind = [max(0, (m - 1) * by + k - f - n) for m, by, k, f, n in zip(made, stride, kernel, front, (steps, bands))]
    images = (x * real[:, :, None]).reshape(batch, steps, planes, bands).transpose(1, 2)
    images = functional.pad(images, (front[1], behind[1], front[0], behind[0]))
    filters = weight.reshape(planes, *kernel, channels).permute(3, 0, 1, 2)
    y = functional.conv2d(images, filters, bias, stride)[:, :, : made[0], : made[1]].transpose(1, 2)
    kept = (torch.arange(made[0])[None] * stride[0] < torch.tensor(lengths)[:, None]).double()
    y = y.reshape(batch, made[0], channels * made[1]) * kept[:, :, None]
    (y * drawn(y.shape, 1.0, 0.4)).sum().backward()
    return {
        "batch": batch, "steps": steps, "planes": planes, "bands": bands, "channels": channels, "kernel": kernel,
        "stride": stride, "lengths": lengths, "outputs": numbers(y),
        "gradients": [numbers(of.grad) for of in (x, weight, bias)],
    }


def loss(tokens, hidden, vocabulary, smoothing, scale):
    states = drawn([tokens, hidden], scale, 0.1).requires_grad_()
    weight = drawn([vocabulary, hidden], 1.0, 0.2).requires_grad_()
    bias = drawn([vocabulary], 1.5, 0.3).requires_grad_()
    targets = [(5 * i + 2) % vocabulary for i in range(tokens)]
    logits = states @ weight.T + bias
    value = functional.cross_entropy(logits, torch.tensor(targets), label_smoothing=smoothing, reduction="sum")
    value.backward()
    return {
        "tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "smoothing": smoothing, "scale": scale,
        "loss": value.item(), "of_states": numbers(states.grad), "of_weight": numbers(weight.grad),
        "of_bias": numbers(bias.grad),
    }


def ctc(batch, steps, vocabulary, blank, lengths, labels, scale):
    """The loss summed over the rows, and its gradient; a row that fits no path counts nothing in either."""
    logits = drawn([batch, steps, vocabulary], scale, 0.1).requires_grad_()
    flat = torch.tensor([label for row in labels for label in row])
    value = functional.ctc_loss(
        torch.log_softmax(logits, 2).transpose(0, 1), flat, torch.tensor(lengths),
        torch.tensor([len(row) for row in labels]), blank=blank, reduction="sum", zero_infinity=True,
    )
    value.backward()
    return {
        "batch": batch, "steps": steps, "vocabulary": vocabulary, "blank": blank, "lengths": lengths, "labels": labels,
        "scale": scale, "loss": value.item(), "of_logits": numbers(logits.grad),
    }


def optimizer(kind, steps, **settings):
    """A parameter of 8 numbers after each of a few steps, whose gradients shrink by a tenth each."""
    parameter = torch.nn.Parameter(drawn([8], 1.0, 0.1))
    name = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}[kind]
    rule = getattr(torch.optim, name)([parameter], **settings)
    after = []
    for step in range(steps):
        parameter.grad = drawn([8], 0.9**step, 0.2 + step)
        rule.step()
        after.append(numbers(parameter))
    settings["betas"] = list(settings.get("betas", [0.0, 0.0]))
    return {"kind": kind, "settings": settings, "after": after}


golden = {
    "pytorch": torch.__version__.split("+")[0],
    "recurrent": [
        recurrent(kind, *shape)
        for kind in GATES
        for shape in [
            (1, 1, 1, 1, False, [1], 0.9),
            (3, 4, 3, 5, False, [4, 2, 3], 0.7),
            (3, 4, 3, 5, True, [4, 2, 3], 0.7),
            (10, 5, 2, 17, False, [5, 1, 0, 4, 2, 5, 3, 0, 1, 5], 0.5),
            (10, 5, 2, 17, True, [5, 1, 0, 4, 2, 5, 3, 0, 1, 5], 0.5),
            (2, 6, 4, 3, False, [6, 6], 40.0),  # saturated
            (2, 6, 4, 3, True, [6, 5], 40.0),
        ]
    ],
    "attention": [
        attention(additive, *shape)
        for additive in [False, True]
        for shape in [
            (1, 1, 1, 1, 1, [1]),
            (3, 2, 5, 7, 4, [5, 1, 3]),
            (2, 1, 9, 33, 19, [9, 6]),
        ]
    ],
    "in_turn": [
        in_turn(reach, *shape)
        for reach in [None, 0, 2]
        for shape in [
            (1, 1, 1, 1, 1, [1]),
            (3, 3, 5, 7, 4, [5, 1, 3]),
            (2, 2, 9, 33, 19, [9, 6]),
        ]
    ],
    "convolutions_2d": [
        convolution_2d(2, 5, 1, 4, 3, [3, 3], [1, 1], [5, 2]),
        convolution_2d(3, 7, 2, 5, 2, [3, 3], [2, 2], [7, 0, 4]),
        convolution_2d(2, 6, 3, 7, 4, [5, 2], [3, 2], [6, 5]),
    ],
    "loss": [
        loss(1, 1, 2, 0.0, 1.0),
        loss(6, 5, 11, 0.0, 1.0),
        loss(6, 5, 11, 0.1, 1.0),
        loss(9, 7, 40, 0.3, 6.0),
    ],
    "ctc": [
        ctc(1, 1, 2, 0, [1], [[1]], 1.0),
        ctc(3, 7, 5, 0, [7, 4, 2], [[1, 1, 4], [2, 3], [2, 2]], 1.5),
        ctc(2, 30, 11, 4, [30, 21], [[0, 1, 1, 10, 5, 5, 5, 9, 0, 2, 3, 7], [8]], 6.0),
    ],
    "optimizers": [
        optimizer("sgd", 1, lr=0.1),
        optimizer("sgd", 4, lr=0.1, momentum=0.9),
        optimizer("sgd", 4, lr=0.1, momentum=0.9, nesterov=True),
        optimizer("sgd", 4, lr=0.1, momentum=0.9, weight_decay=0.02),
        # PyTorch's epsilon stands beside the root, ours under it: near enough where squares are far larger.
        optimizer("rmsprop", 4, lr=0.01, alpha=0.9, eps=0.0),
        optimizer("rmsprop", 4, lr=0.01, alpha=0.99, eps=0.0),
        optimizer("adam", 5, lr=0.05, betas=(0.9, 0.999), eps=1e-8),
        optimizer("adam", 5, lr=0.05, betas=(0.8, 0.9999), eps=1e-3, weight_decay=0.02),
        optimizer("adamw", 5, lr=0.05, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1),
    ],
}
lines = [f'"pytorch": {json.dumps(golden.pop("pytorch"))}']
for name, cases in golden.items():
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    lines.append(f'"{name}": [\n{rows}\n]')
Path(__file__).with_name("golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
