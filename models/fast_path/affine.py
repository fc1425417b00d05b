"""Scale and shift of a norm, as its kernels read them, and their gradients put back."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.fast_path.joined_weights import Form, padded


@dataclass(frozen=True)
class Affine:
    """The scale and the shift of the norm over a convolution.

    Both are (C,), one number for a channel, or (C, h, w), one for every pixel; kernels read (1 or h * w, columns).
    """

    form: Form
    scale: int
    """Its place among the parameters of the network."""
    shift: int

    def laid(self, numbers: Tensor) -> Tensor:
        """Scale or shift: (C,) or (C, h, w) -> (1 or h * w, columns), zero in columns that are no channels."""
        rows = numbers.reshape(self.form.gates, self.form.width, -1).permute(2, 0, 1)
        missing = padded(self.form.width) - self.form.width
        rows = nn.functional.pad(rows, (0, missing)) if missing else rows
        return rows.reshape(len(rows), -1)

    def back(self, found: Tensor, like: Tensor) -> Tensor:
        """A gradient (h * w, columns) -> that at scale or shift, of the shape of `like`."""
        found = found.sum(0, keepdim=True) if like.dim() == 1 else found
        found = found.view(len(found), self.form.gates, -1)[..., : self.form.width]
        return found.permute(1, 2, 0).reshape(like.shape)
