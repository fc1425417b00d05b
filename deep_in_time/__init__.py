"""Deep in Time from a notebook or a program of your own: clips, networks, scores and reach in a dozen names.

| name | what it is |
|---|---|
| `protocol` | a protocol by name, from a file or from a dictionary |
| `TrainingClips` | its endless seeded stream of clips, an `IterableDataset` |
| `FixedClips` | its test or validation clips, a `Dataset` |
| `network` | a network by the name of its variant |
| `load_weights`, `save_weights` | networks from and to files of weights |
| `baseline` | a prediction that needs no training |
| `score`, `mean_scores`, `metrics` | what predictions are worth, and under which conventions |
| `reach`, `gradient_norms`, `gates` | how far back in time a model learns from, and why |

Frames are float from 0 to 1, clips have the axes B T C H W: clips, frames, channels, height, width. A mistake in what
is given is a `ValueError` of one or two lines. `docs/library.md` has an example of each.
"""

import lazy_loader

# Each module is imported where one of its names is first used: commands start without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
