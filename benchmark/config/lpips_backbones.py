"""The networks that LPIPS may stand on. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backbone:
    """Where the weights of one backbone come from and what they can see."""

    architecture: str
    """torchvision's name."""
    torchvision_file: str
    """torchvision's file of weights, whose name ends in the first digits of its SHA-256."""
    smallest_frame: int
    """Side in pixels of the smallest frame that passes all its layers."""

    @property
    def file_names(self) -> tuple[str, str]:
        """File names under which the weights are looked for, in order."""
        return f"{self.architecture}_features.pth", self.torchvision_file


BACKBONES = {
    "alex": Backbone("alexnet", "alexnet-owt-7be5be79.pth", 31),
    "vgg": Backbone("vgg16", "vgg16-397923af.pth", 16),
    "squeeze": Backbone("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 17),
}
