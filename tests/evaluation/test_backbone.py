import hashlib
import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model_weights

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.lpips_backbone import find_backbone, load_lpips, prepare, weights_url
from benchmark.evaluation.metric_functions import score
from benchmark.system.errors import UserError
from benchmark.system.files import read_json

REPOSITORY = Path(__file__).parents[2]
SQUEEZE = REPOSITORY.parent / "shared" / "data" / "lpips" / "squeezenet1_1_features.pth"
needs_squeeze = pytest.mark.skipif(
    not SQUEEZE.exists(), reason="no squeeze backbone in ../shared/data/lpips beside the repository"
)


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    return tmp_path / "torch_home" / "hub" / "checkpoints"


@pytest.fixture
def data_dir(tmp_path) -> Path:
    (tmp_path / "data" / "lpips").mkdir(parents=True)
    return tmp_path / "data"


def prepare_squeeze(data_dir: Path, tmp_path: Path) -> dict[str, str]:
    return prepare("squeeze", data_dir, tmp_path / "lpips_backbone.json", download=False)


def random_features(net: str) -> dict[str, torch.Tensor]:
    """Untrained weights under torchvision's names, for the tests of what a file may hold."""
    expected = backbone._untrained_lpips(net).net.state_dict()
    return {"features." + name.split(".", 1)[1]: value for name, value in expected.items()}


@pytest.fixture(scope="module")
def squeeze_features() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return random_features("squeeze")


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    return np.abs(ours - reference).max() / np.abs(reference).max()


@needs_squeeze
def test_lpips_reproduces_the_golden_values(tmp_path):
    record = prepare_squeeze(SQUEEZE.parents[1], tmp_path)
    network = load_lpips(record, SQUEEZE.parents[1], "cpu")
    with np.load(REPOSITORY / "tests" / "golden" / "metrics.npz") as golden:
        prediction = torch.from_numpy(golden["pred"]).unsqueeze(2)
        truth = torch.from_numpy(golden["true"].astype(np.float32) / 255).unsqueeze(2)
        ours = score(prediction, truth, network, conventions=True)
        for name in ("lpips_squeeze", "lpips_squeeze_unit_input"):
            assert relative_error(ours[name].numpy(), golden[name]) < 1e-5


@needs_squeeze
def test_the_record_names_the_file_and_its_hash_and_no_path(tmp_path):
    record = prepare_squeeze(SQUEEZE.parents[1], tmp_path)
    assert record == read_json(tmp_path / "lpips_backbone.json")
    assert record == {
        "net": "squeeze",
        "status": "found",
        "file": SQUEEZE.name,
        "sha256": hashlib.sha256(SQUEEZE.read_bytes()).hexdigest(),
    }


@needs_squeeze
def test_a_backbone_in_the_hub_cache_is_found_without_a_data_dir(tmp_path, empty_hub_cache):
    empty_hub_cache.mkdir(parents=True)
    shutil.copy(SQUEEZE, empty_hub_cache)
    record = prepare("squeeze", None, tmp_path / "lpips_backbone.json", download=False)
    assert record["status"] == "found"
    assert load_lpips(record, None, "cpu") is not None


@needs_squeeze
def test_identical_frames_are_at_distance_zero_and_a_nan_stays_in_its_frame(tmp_path):
    network = load_lpips(prepare_squeeze(SQUEEZE.parents[1], tmp_path), SQUEEZE.parents[1], "cpu")
    frames = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert score(frames, frames, network)["lpips_squeeze"].tolist() == [0.0, 0.0, 0.0]
    broken = frames.clone()
    broken[1, 0, 0] = torch.nan
    assert score(broken, frames, network)["lpips_squeeze"].isnan().tolist() == [False, True, False]


def test_no_backbone_is_recorded_with_the_way_to_get_one(data_dir, tmp_path, capsys):
    record = prepare_squeeze(data_dir, tmp_path)
    assert record["status"] == "not measured: no backbone"
    assert "squeezenet1_1-b8a52dc0.pth" in record["how"]
    assert "download=true" in record["how"]
    assert str(tmp_path) not in (tmp_path / "lpips_backbone.json").read_text()
    assert record["how"] in capsys.readouterr().out
    assert load_lpips(record, data_dir, "cpu") is None


def test_a_backbone_of_another_net_is_never_taken(data_dir, squeeze_features):
    torch.save(squeeze_features, data_dir / "lpips" / "squeezenet1_1_features.pth")
    assert find_backbone("squeeze", data_dir) is not None
    assert find_backbone("alex", data_dir) is None


def test_an_unknown_net_is_named_with_what_is_allowed(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"lpips_backbone is 'resnet'.*alex, vgg, squeeze"):
        prepare("resnet", data_dir, tmp_path / "lpips_backbone.json", download=False)


def test_a_file_changed_since_it_was_recorded_is_refused(data_dir, tmp_path, squeeze_features):
    path = data_dir / "lpips" / "squeezenet1_1_features.pth"
    torch.save(squeeze_features, path)
    record = prepare_squeeze(data_dir, tmp_path)
    corrupt = bytearray(path.read_bytes())
    corrupt[len(corrupt) // 2] ^= 1
    path.write_bytes(corrupt)
    with pytest.raises(UserError, match="SHA-256 is not"):
        load_lpips(record, data_dir, "cpu")
    path.unlink()
    with pytest.raises(UserError, match="is gone"):
        load_lpips(record, data_dir, "cpu")


def test_a_file_whose_name_promises_another_hash_is_refused(data_dir, tmp_path, squeeze_features):
    torch.save(squeeze_features, data_dir / "lpips" / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(UserError, match="does not start with b8a52dc0"):
        prepare_squeeze(data_dir, tmp_path)
    assert not (tmp_path / "lpips_backbone.json").exists()


def test_a_truncated_file_is_refused(data_dir, tmp_path, squeeze_features):
    path = data_dir / "lpips" / "squeezenet1_1_features.pth"
    torch.save(squeeze_features, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="not a file of weights"):
        prepare_squeeze(data_dir, tmp_path)


class WritesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_code_in_a_file_of_weights_is_refused_and_not_run(save, data_dir, tmp_path):
    save(
        {"features.0.weight": WritesAFile(tmp_path / "ran")},
        data_dir / "lpips" / "squeezenet1_1_features.pth",
    )
    with pytest.raises(UserError, match="not a file of weights"):
        prepare_squeeze(data_dir, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda weights: weights.pop("features.3.squeeze.bias"), "no features.3.squeeze.bias"),
        (
            lambda weights: weights.update({"features.13.weight": torch.zeros(1)}),
            "unknown features.13.weight",
        ),
        (
            lambda weights: weights.update({"features.0.bias": torch.zeros(1)}),
            r"features.0.bias of shape \(1,\)",
        ),
        (lambda weights: weights.update({"features.0.bias": "text"}), "no dictionary of tensors"),
    ],
)
def test_weights_that_do_not_fit_one_to_one_are_refused(change, fault, data_dir, tmp_path, squeeze_features):
    weights = dict(squeeze_features)
    change(weights)
    torch.save(weights, data_dir / "lpips" / "squeezenet1_1_features.pth")
    with pytest.raises(UserError, match=fault):
        prepare_squeeze(data_dir, tmp_path)


def test_weights_of_another_architecture_are_refused(data_dir, tmp_path, squeeze_features):
    torch.save(squeeze_features, data_dir / "lpips" / "alexnet_features.pth")
    with pytest.raises(UserError, match=r"not the weights of alexnet for LPIPS alex: no features\S+ and \d+ more"):
        prepare("alex", data_dir, tmp_path / "lpips_backbone.json", download=False)


def test_every_weight_of_the_backbone_comes_from_the_file(data_dir, tmp_path, squeeze_features):
    classifier = {"classifier.1.weight": torch.zeros(1000, 512, 1, 1)}
    torch.save(squeeze_features | classifier, data_dir / "lpips" / "squeezenet1_1_features.pth")
    network = load_lpips(prepare_squeeze(data_dir, tmp_path), data_dir, "cpu")
    loaded = {"features." + name.split(".", 1)[1]: value for name, value in network.net.state_dict().items()}
    assert loaded.keys() == squeeze_features.keys()
    assert all(torch.equal(loaded[name], value) for name, value in squeeze_features.items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_building_lpips_prints_and_warns_nothing_and_leaves_the_random_state(
    data_dir, tmp_path, squeeze_features, capfd
):
    torch.save(squeeze_features, data_dir / "lpips" / "squeezenet1_1_features.pth")
    record = prepare_squeeze(data_dir, tmp_path)
    capfd.readouterr()
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_lpips(record, data_dir, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("net", BACKBONES)
def test_the_smallest_frame_of_a_backbone_is_accepted_and_a_smaller_one_named(net):
    network = backbone._untrained_lpips(net)
    side = BACKBONES[net].smallest_frame
    frames = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    assert score(frames[0], frames[1], network)[f"lpips_{net}"].isfinite().all()
    smaller = frames[..., 1:]
    with pytest.raises(UserError, match=rf"{side}x{side - 1} pixels: LPIPS \({net}\) needs at least {side}x"):
        score(smaller[0], smaller[1], network)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        network(*smaller.expand(2, 3, -1, -1).split(1))


@pytest.mark.parametrize("net", BACKBONES)
def test_file_names_are_those_of_torchvisions_weights(net):
    entry = BACKBONES[net]
    assert weights_url(net) == get_model_weights(entry.architecture)["IMAGENET1K_V1"].url
    assert weights_url(net).rsplit("/", 1)[1] == entry.torchvision_file


def served(weights: dict[str, torch.Tensor], folder: Path, digits: str | None, monkeypatch) -> None:
    """Let squeeze be downloaded from a file whose name ends in `digits` (None: those of its SHA-256)."""
    made = folder / "made.pth"
    torch.save(weights, made)
    digits = digits or hashlib.sha256(made.read_bytes()).hexdigest()[:8]
    served = made.rename(folder / f"squeezenet1_1-{digits}.pth")
    monkeypatch.setattr(backbone, "weights_url", lambda net: served.as_uri())
    monkeypatch.setitem(BACKBONES, "squeeze", replace(BACKBONES["squeeze"], torchvision_file=served.name))


def test_a_download_is_checked_recorded_and_used(data_dir, tmp_path, squeeze_features, monkeypatch, empty_hub_cache):
    served(squeeze_features, tmp_path, None, monkeypatch)
    assert prepare_squeeze(data_dir, tmp_path)["status"] == "not measured: no backbone"
    record = prepare("squeeze", data_dir, tmp_path / "lpips_backbone.json", download=True)
    assert record["status"] == "found"
    assert (empty_hub_cache / record["file"]).exists()
    assert load_lpips(record, data_dir, "cpu") is not None


@pytest.mark.parametrize("present", [True, False])
def test_a_failed_download_is_an_error_and_leaves_no_file(
    present, data_dir, tmp_path, squeeze_features, monkeypatch, empty_hub_cache
):
    served(squeeze_features, tmp_path, "00000000", monkeypatch)
    if not present:
        (tmp_path / "squeezenet1_1-00000000.pth").unlink()
    with pytest.raises(UserError, match=r"downloading squeezenet1_1-00000000\.pth failed"):
        prepare("squeeze", data_dir, tmp_path / "lpips_backbone.json", download=True)
    assert not list(empty_hub_cache.iterdir())
    assert not (tmp_path / "lpips_backbone.json").exists()
