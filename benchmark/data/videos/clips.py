"""The clips of a frame bank: windows of videos, those that train and the fixed ones that judge."""

from benchmark.config.data_sections import VideosConfig
from benchmark.data.clip_source import ClipSource, FixedSplit
from benchmark.data.videos.frame_bank import FrameBank
from benchmark.data.videos.windows import WindowClips, WindowStream
from benchmark.system.errors import UserError


class VideoClips(ClipSource[WindowStream, WindowClips]):
    """Clips of videos, on disk.

    Args:
        bank: frames and windows.
        data: how long a clip is.
    """

    def __init__(self, bank: FrameBank, data: VideosConfig) -> None:
        self.bank, self.data = bank, data

    @property
    def sha256(self) -> str:
        """Checksum of all that training sees."""
        return self.bank.sha256

    def fixed_clips(self, split: FixedSplit) -> WindowClips:
        """The windows of `split`, of videos that are never trained on."""
        return WindowClips(self.bank.frames, self.bank.starts[split], self.data.context + self.data.horizon)

    def fixed_stream(self, split: FixedSplit) -> WindowStream:
        """The same windows as a stream.

        Raises:
            UserError: they were prepared for shorter clips.
        """
        clips = self.fixed_clips(split)
        if clips.shape[1] > self.bank.lengths[split]:
            raise UserError(
                f"the {split} clips were prepared with {self.bank.lengths[split]} frames, not {clips.shape[1]};"
                " run the command `data` again"
            )
        return WindowStream(clips, seed=0)

    def train_stream(self, seed: int, device: str) -> WindowStream:
        """What a run of `seed` is trained on, made on `device`."""
        frames = self.data.context + self.data.trained_horizon
        return WindowStream(WindowClips(self.bank.frames, self.bank.starts["train"], frames), seed=seed, device=device)
