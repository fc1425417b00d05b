"""Videos as a kind of data. Imports no torch by itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.config.data_sections import HELD_OUT, VideosConfig
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import DataKind
from benchmark.data.pixels import to_grey, to_square
from benchmark.data.prepared_folder import read_data_record
from benchmark.data.videos.frame_bank import FRAMES, WINDOWS, load_frames
from benchmark.data.videos.prepare import prepare_videos, video_set
from benchmark.system.errors import UserError

if TYPE_CHECKING:
    from benchmark.data.videos.clips import VideoClips


class Videos(DataKind[VideosConfig]):
    """Windows of the frames of videos: KTH, or a person's own."""

    files = (FRAMES, WINDOWS, "data.json")
    in_memory = False

    def origin(self, protocol: Protocol, data_dir: Path, download: bool) -> Any:
        """Which files there are, and how many test clips are shown and go on how far."""
        return [files_in(data_dir / self.data.videos), protocol.evaluation.beyond, protocol.shown_clips()]

    def prepare(self, protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
        """Decode the videos once and choose the windows that are clips; see `DataKind`."""
        return prepare_videos(protocol, self.data, data_dir, folder)

    def open(self, folder: Path, *, training: bool = False) -> "VideoClips":
        """The clips of a prepared folder; see `DataKind`."""
        from benchmark.data.videos.clips import VideoClips

        record = read_data_record(folder)
        if "window_frames" not in record:
            raise UserError(f"{folder / 'data.json'}: made of digits, not of videos; run the command `data` again")
        return VideoClips(load_frames(folder, record, training), self.data)

    def look(self, protocol: Protocol, data_dir: Path) -> str:
        """The videos of the protocol, found and counted, and one of them opened; `prepare` decodes them all."""
        found = video_set(protocol, self.data, data_dir)
        counts = " + ".join(str(len(videos)) for videos in found.videos.values())
        first = found.videos["train"][0]
        part = next(iter(first.parts()))
        to_square(to_grey(part), self.data.square, first.name)
        height, width = part.shape[2:]
        return (
            f"{self.data.videos} for protocol {protocol.name}: {counts} videos to train, validate and test on;"
            f" {first.name} opens, {width}x{height} pixels"
        )

    def describe(self) -> str:
        """Whose clips they are."""
        return f"Clips of {self.data.videos}"

    def same_kind(self) -> str:
        """The name of the data set."""
        return self.data.videos

    def further_notes(self, provenances: list[dict[str, Any]]) -> str:
        """How far training predicts, if less far than is scored, and what became of the files."""
        trained = f" Trained to predict {self.data.train_horizon}." if self.data.train_horizon else ""
        found = sorted({one["data"]["about"] for one in provenances})
        return trained + "".join(f" Videos: {about}." for about in found)

    def test_set(self, folder: Path) -> str:
        """Of other videos than those of training."""
        return HELD_OUT


def files_in(path: Path) -> list[tuple[str, int]]:
    """Name and size of every file that a set of videos consists of; empty where there is none."""
    if path.is_file():
        return [(path.name, path.stat().st_size)]
    return sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file())
