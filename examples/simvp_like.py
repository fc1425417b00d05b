"""A convolutional forecaster after SimVP (Gao et al. 2022): all given frames at once in, all predicted ones out.

No step follows another, so that nothing has to be carried through time: how far back it learns from is architecture.
"""

import torch
from torch import Tensor, nn


class SimVPLike(nn.Module):
    """Encoder for each frame, convolutions over all frames as channels, decoder for each predicted frame.

    Args:
        context: given frames.
        horizon: predicted frames.
        channels: of a frame.
        width: channels of a frame's features, on a grid of a quarter of its height and width.
        depth: residual blocks between encoder and decoder.
    """

    def __init__(self, context: int, horizon: int, channels: int = 1, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        self.horizon = horizon
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.mix_in = nn.Conv2d(context * width, 4 * width, 1)
        self.blocks = nn.ModuleList(Residual(4 * width) for _ in range(depth))
        self.mix_out = nn.Conv2d(4 * width, horizon * width, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """Predict `horizon` frames (B, horizon, C, H, W) after the frames (B, K, C, H, W) of `context`.

        More frames than it was built for are predicted in turns, each from its own last predictions.
        """
        seen, given = context, context.shape[1]
        while seen.shape[1] < given + horizon:
            seen = torch.cat([seen, self._at_once(seen[:, -given:])], dim=1)
        return seen[:, given : given + horizon]

    def _at_once(self, context: Tensor) -> Tensor:
        clips = len(context)
        features = self.encoder(context.flatten(0, 1)).unflatten(0, (clips, -1))  # (B, K, width, h, w)
        mixed = self.mix_in(features.flatten(1, 2))
        for block in self.blocks:
            mixed = block(mixed)
        predicted = self.mix_out(mixed).unflatten(1, (self.horizon, -1)) + features[:, -1:]
        return self.decoder(predicted.flatten(0, 1)).unflatten(0, (clips, -1))


class Residual(nn.Module):
    """What a convolution over each channel and two over the channels add to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.Conv2d(width, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) in and out."""
        return x + self.change(x)
