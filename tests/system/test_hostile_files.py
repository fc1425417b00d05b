"""Whatever is done to a file, its reader gives what was written or one clear message, soon, and runs nothing."""

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import time
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from benchmark.data.published_files import Original
from benchmark.data.still_digits.bank import load_digits, read_original
from benchmark.data.videos.clip_files import open_clips
from benchmark.evaluation.lpips_backbone import load_lpips
from benchmark.exchange.state_dicts import read_state_dict
from benchmark.system.checksums import BLANK, add_checksum
from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line, read_json, read_json_lines, write_json
from benchmark.system.parquet import read_parquet, write_parquet
from benchmark.training.checkpoint import read_checkpoint, save_checkpoint
from benchmark.training.weight_files import load_weights, name_in_files, save_weights
from models.predictor import build
from models.spec import ModelSpec

SPEC = ModelSpec(cell="causal_lstm", hidden_channels=(3, 2), frame_size=8, kernel_size=3, highway_slot=1)
LONGEST_S = 10
"""No reader of a file of a few kilobytes may take longer, whatever the machine."""


def damage(content, random):
    """`content` cut off, with bits flipped, or with bytes put in, left out, repeated or overwritten."""
    kind = random.choice(["cut", "flip", "flip", "flip", "noise", "zero", "insert", "remove", "repeat", "append"])
    first = int(random.integers(len(content)))
    last = min(len(content), first + int(random.integers(1, 60)))
    if kind == "cut":
        return content[:first]
    if kind == "flip":
        spoilt = bytearray(content)
        for _ in range(random.integers(1, 4)):
            spoilt[random.integers(len(spoilt))] ^= 1 << int(random.integers(8))
        return bytes(spoilt)
    noise = random.bytes(last - first)
    middle = {
        "noise": noise,
        "zero": bytes(last - first),
        "insert": noise + content[first:last],
        "remove": b"",
        "repeat": 2 * content[first:last],
    }
    return content + noise if kind == "append" else content[:first] + middle[kind] + content[last:]


def hold_reader_to_it(path, read, count, *, seed, wanted=None):
    """Feed `count` damaged copies of `path` to `read`: a message that names a file, or `wanted` of what it read.

    Without `wanted` the format has no checksum of the values, and what is read only has to be read whole.
    """
    content, random, refused = path.read_bytes(), np.random.default_rng(seed), 0
    assert wanted is None or wanted(read())
    for number in range(count):
        path.write_bytes(damage(content, random))
        begun = time.monotonic()
        try:
            value = read()
        except UserError as error:
            refused += 1
            told = str(error)
        else:
            told = str(path)
            assert wanted is None or wanted(value), f"damage {number} was read as something else"
        assert str(path.parent) in told
        assert told.count("\n") < 2
        assert time.monotonic() - begun < LONGEST_S, f"damage {number}"
    path.write_bytes(content)
    assert refused > count // 20
    return refused


def same(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in others)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_digits_as_published(tmp_path, ending):
    images = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    content = struct.pack(">4I", 2051, *images.shape) + images.tobytes()
    path = tmp_path / "mnist" / f"tiny{ending}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content, mtime=0) if ending else content)
    original = Original(path.name, ("mnist",), "", hashlib.md5(content).hexdigest(), ())
    hold_reader_to_it(
        path, lambda: read_original(original, tmp_path), 250, seed=2, wanted=lambda read: np.array_equal(read, images)
    )


@pytest.mark.parametrize("name", ["digits.npz", "data.json"])
def test_prepared_digits(tmp_path, prepared_data, name):
    folder = tmp_path / "data"
    shutil.copytree(prepared_data, folder)
    hash_before = load_digits(folder).sha256
    hold_reader_to_it(
        folder / name, lambda: load_digits(folder), 150, seed=3, wanted=lambda bank: bank.sha256 == hash_before
    )


def clips_read(path):
    clips = open_clips(path, 4)
    return clips.read(range(clips.count), 4)


CLIPS = np.random.default_rng(4).integers(0, 256, (3, 4, 12, 12), dtype=np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_clips_in_an_npz(tmp_path, save):
    path = tmp_path / "clips.npz"
    save(path, clips=CLIPS)
    hold_reader_to_it(
        path, lambda: clips_read(path), 150, seed=5, wanted=lambda read: np.array_equal(read[:, :, 0], CLIPS)
    )


def test_clips_of_predrnn_in_an_npz(tmp_path):
    path = tmp_path / "clips.npz"
    parts = np.array([[[0, 2], [4, 2]], [[2, 2], [6, 2]]])
    np.savez(path, clips=parts, dims=np.array([[1, 12, 12]]), input_raw_data=CLIPS[:2].reshape(8, 1, 12, 12))
    hold_reader_to_it(
        path, lambda: clips_read(path), 150, seed=6, wanted=lambda read: np.array_equal(read[:, :, 0], CLIPS[:2])
    )


def test_clips_in_an_npy(tmp_path):
    path = tmp_path / "clips.npy"
    np.save(path, CLIPS)
    hold_reader_to_it(path, lambda: clips_read(path), 200, seed=7)


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_clips_in_images(tmp_path, kind):
    frames = [Image.fromarray(frame) for frame in CLIPS[0]]
    if kind == "gif":
        path = tmp_path / "clips" / "one.gif"
        path.parent.mkdir()
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        path = tmp_path / "clips" / "one" / "1.png"
        path.parent.mkdir(parents=True)
        for number, frame in enumerate(frames, start=1):
            frame.save(path.with_name(f"{number}.png"))
    hold_reader_to_it(path, lambda: clips_read(tmp_path / "clips"), 100, seed=8)


def test_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    network = build(SPEC, 1)
    save_weights(path, network, "c0ff1c", 4)
    hold_reader_to_it(
        path,
        lambda: load_weights(path, "c0ff1c").state_dict(),
        250,
        seed=9,
        wanted=lambda read: same(read, network.state_dict()),
    )


def test_checkpoints(tmp_path):
    path, weights = tmp_path / "checkpoint.pt", {"w": torch.arange(50.0)}
    save_checkpoint(path, {"config": "a"}, {"step": 5, "network": weights})
    hold_reader_to_it(
        path, lambda: read_checkpoint(path), 300, seed=14, wanted=lambda read: same(read["network"], weights)
    )


def test_weights_of_other_code_bases(tmp_path):
    path = tmp_path / "foreign.pt"
    weights = {"cell.weight": torch.arange(500.0), "cell.bias": torch.ones(3)}
    torch.save(weights, path)
    hold_reader_to_it(path, lambda: read_state_dict(path), 200, seed=10, wanted=lambda read: same(read, weights))


def test_backbone_of_lpips(tmp_path):
    path = tmp_path / "lpips" / "squeezenet1_1_features.pth"
    path.parent.mkdir()
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    record = {"net": "squeeze", "status": "found", "file": path.name, "sha256": found}
    content, random = path.read_bytes(), np.random.default_rng(11)
    for _ in range(100):
        path.write_bytes(damage(content, random))
        if path.read_bytes() != content:
            with pytest.raises(UserError, match="SHA-256 is not"):
                load_lpips(record, tmp_path, "cpu")


def test_scores_and_gradients(tmp_path):
    path = tmp_path / "probe.parquet"
    names = {"measure": "residual", "stage": "init", "state": "H"}
    table = pd.DataFrame({"layer": 1, "t": range(40), "norm": np.linspace(1, 2, 40)}).assign(**names)
    write_parquet(path, table)
    hold_reader_to_it(path, lambda: read_parquet(path), 300, seed=12, wanted=table.equals)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)


def test_records_of_a_run(tmp_path):
    path = tmp_path / "probe.json"
    record = {"trained": {"residual": {"reach": 0.25, "half_life": None}, "openness": [0.5, 0.75]}}
    write_json(path, record)
    hold_reader_to_it(path, lambda: read_json(path), 300, seed=14, wanted=lambda read: read == record)
    assert json.loads(path.read_text())["trained"] == record["trained"]


def test_logs_of_a_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(8):
        append_json_line(path, {"step": step, "train/loss": 1 / (1 + step)})
    hold_reader_to_it(path, lambda: read_json_lines(path), 200, seed=15)


@pytest.fixture
def malicious(tmp_path, monkeypatch):
    """Makes the file `pwned` where it is unpickled, as is tried out here."""
    monkeypatch.chdir(tmp_path)

    class Malice:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    pickle.loads(pickle.dumps(Malice()))
    assert (tmp_path / "pwned").exists()
    (tmp_path / "pwned").unlink()
    return Malice()


def test_no_reader_runs_what_a_file_holds(tmp_path, malicious):
    torch.save({"state_dict": malicious, "identity": malicious, "network": malicious}, "weights.pt")
    np.savez("clips.npz", clips=np.array([malicious], dtype=object))
    np.save("clips.npy", np.array([malicious], dtype=object))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(malicious))
    readers = {
        "weights.pt": [read_state_dict, load_weights],
        "plain.pt": [read_state_dict, load_weights],
        "clips.npz": [clips_read, read_state_dict],
        "clips.npy": [clips_read],
    }
    for name, functions in readers.items():
        for function in functions:
            with pytest.raises(UserError, match=name):
                function(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def header(shape, descr="|u1"):
    """The first bytes of a .npy that says it holds an array of `shape`."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**6, 10**6, 10**3), (2**62, 4), (-1, 4, 8, 8), (3, 4, 12, 13)])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_array_that_says_another_size_is_refused_before_memory_is_taken(tmp_path, kind, shape):
    path = tmp_path / f"clips.{kind}"
    content = header(shape) + CLIPS.tobytes()
    if kind == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("clips.npy", content)
    with pytest.raises(UserError, match=str(path)):
        clips_read(path)


@pytest.mark.parametrize("name", ["../clips", "/clips", "a/../../clips", "..\\clips", "C:\\clips"])
def test_name_in_an_archive_leads_nowhere(tmp_path, name):
    folder = tmp_path / "inside"
    folder.mkdir()
    with zipfile.ZipFile(folder / "clips.npz", "w") as archive:
        file = io.BytesIO()
        np.save(file, CLIPS)
        archive.writestr(f"{name}.npy", file.getvalue())
    assert np.array_equal(clips_read(folder / "clips.npz")[:, :, 0], CLIPS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["clips.npz", "inside"]


def test_archive_that_unpacks_to_more_than_the_disk_has_is_refused(tmp_path):
    path = tmp_path / "clips.npz"
    np.savez_compressed(path, clips=CLIPS)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24  # the size that the central directory states
    content[place : place + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        clips_read(path)


def test_gzip_bomb_is_read_no_further_than_digits_reach(tmp_path):
    path = tmp_path / "mnist" / "bomb.gz"
    path.parent.mkdir()
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(bytes(2**20))
    with pytest.raises(UserError, match="starts with 0"):
        read_original(Original("bomb.gz", ("mnist",), "", "", ()), tmp_path)


def named_as_in_files(network):
    return {name_in_files(name): tensor for name, tensor in network.state_dict().items()}


def forged(path, about, tensors=None):
    """A file of weights with a right checksum and `about` in place of what ours say."""
    text = json.dumps(about | {"checksum": BLANK}) if isinstance(about, dict) else f"{about}{BLANK}"
    path.write_bytes(add_checksum(save(tensors or named_as_in_files(build(SPEC, 1)), {"benchmark": text})))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_channels": [10**6, 10**6]}, "is above 16384"),
        ({"hidden_channels": [2**14, 2**14]}, "in place of"),
        ({"hidden_channels": [3] * 10**5}, "layers are more than 256"),
        ({"hidden_channels": "wide"}, "holds no network"),
        ({"hidden_channels": None}, "holds no network"),
        ({"cell": "__import__('os')"}, "is not one of"),
        ({"cell": ["convlstm"]}, "holds no network"),
        ({"frame_size": True}, "holds no network"),
        ({"frame_size": 10**9}, "is above 4096"),
        ({"forget_bias": float("nan")}, "forget_bias: nan is not between"),
        ({"unheard": 1}, "holds no network"),
        ({"highway_slot": 0, "highway_channels": None}, "in place of nothing"),
    ],
)
def test_weights_that_describe_another_network_are_refused_before_it_is_built(tmp_path, changes, told):
    path = forged(tmp_path / "model.safetensors", {"spec": SPEC.to_dict() | changes, "config_hash": None, "context": 4})
    with pytest.raises(UserError, match=f"model.safetensors: .*{told}"):
        load_weights(path)


@pytest.mark.parametrize("about", [{}, {"spec": 5}, {"spec": []}, "[" * 10_000, "not JSON", {"spec": SPEC.to_dict()}])
def test_weights_that_describe_no_network_are_refused(tmp_path, about):
    with pytest.raises(UserError, match=r"model.safetensors: holds no network of this benchmark"):
        load_weights(forged(tmp_path / "model.safetensors", about))


@pytest.mark.parametrize("length", [0, 2**40, 2**63, 2**64 - 1])
def test_weights_whose_header_lies_about_its_length_are_refused(tmp_path, length):
    path = forged(tmp_path / "model.safetensors", {})
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights(path)
