"""The data section of a protocol, of one of several kinds that are told apart by a key. Imports no torch."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from benchmark.config.metrics import RECALL
from benchmark.config.sections import MOST_CLIPS, MOST_FRAMES, MOST_STEPS, Strict
from benchmark.config.variants import MEAN_DIGIT
from benchmark.system.errors import shortened
from models.spec import LARGEST

DigitSource = Literal["mnist", "mnist-t10k", "optdigits"]
KTH = "kth"
"""The one data set of videos that is known by its name."""
HELD_OUT = "of videos that nothing is trained on"
"""What test clips of videos are."""
BELOW_DATA_DIR = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"
"""A path that leads down only."""
Windows = Literal["every", "apart", "authors"]
WINDOWS = "every: one begins at each frame; apart: no frame in two; authors: of kth, 3 or 20 frames on by action"
CLIP_LAYOUTS = ("THW", "TCHW", "THWC")
"""Axes of an array of one clip."""
LAYOUTS = ("TNHW", "NTHW", "NTCHW", "NTHWC", *CLIP_LAYOUTS)
"""Axes of an array of clips; N is not there where it holds one."""


class DigitsConfig(Strict):
    """Moving digits: what a clip is and how many there are."""

    kind: ClassVar[str] = "digits"
    known_motion: ClassVar[bool] = True
    """Whether the law is known by which places in the context go on."""
    made_on_device: ClassVar[bool] = True
    """Whether training clips are made where the training is, not read by the CPU."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics that these clips have besides those that all have."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Baselines that these clips have besides those that all have."""
    digits: DigitSource = Field(description="Where the digits come from.")
    digit_size: int = Field(ge=2, le=LARGEST["frame_size"], description="Side of a digit in pixels.")
    frame_size: int = Field(ge=4, le=LARGEST["frame_size"], description="Side of a frame in pixels.")
    num_digits: int = Field(2, ge=1, le=3, description="Digits in a clip.")
    context: int = Field(10, ge=1, le=MOST_FRAMES, description="Frames given.")
    horizon: int = Field(10, ge=1, le=MOST_FRAMES, description="Frames predicted.")
    train_clips: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="A fixed set of training clips; null = endless."
    )
    validation_clips: int = Field(ge=1, le=MOST_CLIPS, description="Fixed clips that training may look at.")
    test_clips: int = Field(ge=1, le=MOST_CLIPS, description="Fixed clips that decide nothing and are scored once.")
    public_test: bool = Field(False, description="Score mnist_test_seq.npy where data_dir has it.")
    gaps: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        strict=False,
        exclude_if=lambda gaps: not gaps,
        description="Last context frames in which a bar hides a digit; [] = no bar.",
    )

    @property
    def source(self) -> str:
        """Where the digits come from."""
        return self.digits

    @property
    def trained_horizon(self) -> int:
        """Frames predicted in training."""
        return self.horizon

    @property
    def exchangeable(self) -> bool:
        """Whether a context frame can be made again with another digit at the same place."""
        return not self.public_test

    @model_validator(mode="after")
    def _digits_fit(self) -> "DigitsConfig":
        if self.digit_size >= self.frame_size:
            raise ValueError(f"digit_size {self.digit_size} does not fit into frame_size {self.frame_size}")
        if self.public_test and (self.frame_size, self.num_digits) != (64, 2):
            raise ValueError("public_test needs frame_size 64 and num_digits 2: the public clips have these")
        return self

    @model_validator(mode="after")
    def _gaps_fit(self) -> "DigitsConfig":
        if self.public_test and self.gaps:
            raise ValueError("gaps: do not go with public_test: where its digits are is not known")
        if len(set(self.gaps)) < len(self.gaps):
            raise ValueError(f"gaps: {list(self.gaps)} names one twice")
        if self.gaps and max(self.gaps) >= self.context:
            raise ValueError(f"gaps: {max(self.gaps)} must lie below context {self.context}: one frame shows the digit")
        if self.gaps and 0 not in self.gaps:
            raise ValueError(f"gaps: {list(self.gaps)} lacks 0, the clips without a bar that the main table scores")
        return self


class RecallConfig(Strict):
    """Recall: a digit, the cue, then others or nothing, then the cue must be given out. Only memory can do it."""

    kind: ClassVar[str] = "recall"
    known_motion: ClassVar[bool] = False
    made_on_device: ClassVar[bool] = True
    exchangeable: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = (MEAN_DIGIT,)
    recall: DigitSource = Field(description="Where the digits come from.")
    digit_size: int = Field(ge=2, le=LARGEST["frame_size"], description="Side of a digit in pixels.")
    frame_size: int = Field(ge=4, le=LARGEST["frame_size"], description="Side of a frame in pixels.")
    gap: int = Field(ge=1, lt=MOST_FRAMES, description="Frames between the cue and the frame that is predicted.")
    distractors: bool = Field(True, description="Each frame of the gap is another digit; false: it is black.")
    train_clips: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="A fixed set of training clips; null = endless."
    )
    validation_clips: int = Field(ge=1, le=MOST_CLIPS, description="Fixed clips that training may look at.")
    test_clips: int = Field(ge=1, le=MOST_CLIPS, description="Fixed clips that decide nothing and are scored once.")
    horizon: ClassVar[int] = 1
    trained_horizon: ClassVar[int] = 1
    gaps: ClassVar[tuple[int, ...]] = ()
    public_test: ClassVar[bool] = False

    @property
    def source(self) -> str:
        """Where the digits come from."""
        return self.recall

    @property
    def context(self) -> int:
        """Frames given: the cue and the gap."""
        return 1 + self.gap

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that these clips have besides those that all have."""
        return RECALL if self.distractors else RECALL[:1]

    @model_validator(mode="after")
    def _digit_fits(self) -> "RecallConfig":
        if self.digit_size >= self.frame_size:
            raise ValueError(
                f"digit_size {self.digit_size} leaves no row of frame_size {self.frame_size} free, which marks the cue"
            )
        return self


class VideosConfig(Strict):
    """Videos: a clip is a window of their frames. Whole videos, and so the people in them, go to one split."""

    kind: ClassVar[str] = "videos"
    known_motion: ClassVar[bool] = False
    made_on_device: ClassVar[bool] = False
    exchangeable: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ()
    baselines: ClassVar[tuple[str, ...]] = ()
    videos: str = Field(
        pattern=BELOW_DATA_DIR, max_length=200, description="kth, or the folder or file of clips below data_dir."
    )
    layout: Literal[*LAYOUTS] | None = Field(  # pyright: ignore[reportInvalidTypeForm]  # a list kept in one place
        None, exclude_if=lambda layout: layout is None, description="Axes of arrays; null = where only one fits."
    )
    frame_size: int = Field(ge=4, le=LARGEST["frame_size"], description="Side of a frame in pixels, resized by area.")
    square: Literal["stretch", "crop"] | None = Field(
        None,
        description="stretch: frames become square whatever their aspect; crop: the middle square; null = they are.",
    )
    context: int = Field(10, ge=1, le=MOST_FRAMES, description="Frames given.")
    horizon: int = Field(10, ge=1, le=MOST_FRAMES, description="Frames predicted.")
    train_horizon: int | None = Field(
        None, ge=1, le=MOST_FRAMES, description="Frames predicted in training; null = horizon."
    )
    train_windows: Windows = Field("every", description=f"Windows that are trained on; {WINDOWS}.")
    test_windows: Windows = Field("apart", description=f"Windows of validation and test; {WINDOWS}.")
    train_clips: int | None = Field(None, ge=1, le=MOST_STEPS, description="So many of the windows; null = all.")
    validation_clips: int = Field(ge=1, le=MOST_CLIPS, description="Fixed clips that training may look at.")
    test_clips: int | None = Field(
        None, ge=1, le=MOST_CLIPS, description="Fixed clips that decide nothing and are scored once; null = all."
    )
    gaps: ClassVar[tuple[int, ...]] = ()
    public_test: ClassVar[bool] = False

    @property
    def trained_horizon(self) -> int:
        """Frames predicted in training."""
        return self.train_horizon or self.horizon

    @model_validator(mode="after")
    def _of_one_kind(self) -> "VideosConfig":
        if self.videos != KTH and "authors" in (self.train_windows, self.test_windows):
            raise ValueError(f"authors: is how the authors step through {KTH}; {self.videos} has every and apart")
        if self.videos == KTH and self.layout:
            raise ValueError(f"layout: goes with arrays of your own; {KTH} has videos")
        return self


def one_kind(values: Any) -> Any:
    """Raise ValueError for a data section of no kind or of two, or with a key of the other kind."""
    if not isinstance(values, dict):
        return values
    named = [kind for kind in DATA_KINDS if kind in values]
    if not named:
        kinds = f"{', '.join([*DATA_KINDS][:-1])} or {[*DATA_KINDS][-1]}"
        raise ValueError(f"{kinds} is missing: one of them says which kind of data it is")
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)}: both are given, which name two kinds of data; keep one")
    for other, section in DATA_KINDS.items():
        if other not in named:
            alone = section.model_fields.keys() - DATA_KINDS[named[0]].model_fields.keys()
            for key in (key for key in values if key in alone):
                raise ValueError(f"{key}: goes with {other}, not with {named[0]}: {shortened(values[named[0]])}")
    return values


def section_of(data: Any) -> type[DigitsConfig | VideosConfig | RecallConfig]:
    """The section that `data`, read already or not, is of; the first one where that cannot be told."""
    named = data if isinstance(data, dict) else (getattr(data, "kind", None),)
    first, *_ = found if (found := [kind for kind in DATA_KINDS if kind in named]) else DATA_KINDS
    return DATA_KINDS[first]


_Sections = (
    Annotated[DigitsConfig, Tag("DigitsConfig")]
    | Annotated[VideosConfig, Tag("VideosConfig")]
    | Annotated[RecallConfig, Tag("RecallConfig")]
)
"""The registry of kinds: a new one has its section here, and its interface in `benchmark.data.kinds.KINDS`."""
DATA_KINDS: dict[str, type[DigitsConfig | VideosConfig | RecallConfig]] = {
    section.kind: section for section, _ in map(get_args, get_args(_Sections))
}
"""Key that a data section of a kind has -> the section."""
DataConfig = Annotated[_Sections, Discriminator(lambda data: section_of(data).__name__), BeforeValidator(one_kind)]
"""The data section of a protocol, of any kind."""
