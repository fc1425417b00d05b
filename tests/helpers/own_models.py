"""Models outside the benchmark: a small one that keeps the contract, and one that breaks each of its checks."""

import torch
from torch import nn


class Mean(nn.Module):
    """Keeps the contract: a weighted mean of the context and a bias, with a dropout and a running mean in training."""

    def __init__(self, context, gain=1.0, dropout=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0.1, gain, context))
        self.bias = nn.Parameter(torch.full((), 0.5))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("level", torch.zeros(()))

    def mean(self, context):
        weights = self.dropout(self.weights) / self.weights.abs().sum()
        return (weights[:, None, None, None] * context).sum(dim=1, keepdim=True) + self.bias

    def predict(self, context, horizon):
        if self.training:
            self.seen += 1
            self.level.mul_(0.9).add_(0.1 * context.detach().mean())
        return self.mean(context).expand(-1, horizon, -1, -1, -1)


class Recurrent(nn.Module):
    """Names its states: H1, one at each time step."""

    def __init__(self, channels=1):
        super().__init__()
        self.step = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def states(self, context, horizon):
        x, h = context[:, 0], torch.zeros_like(context[:, 0])
        states, predicted = [], []
        for t in range(context.shape[1] + horizon - 1):
            h = torch.tanh(self.step(torch.cat([x, h], dim=1)))
            states.append(h)
            predicted.append(h)
            x = context[:, t + 1] if t + 1 < context.shape[1] else h
        return torch.stack(predicted[-horizon:], dim=1), {("H", 1): states}

    def predict(self, context, horizon):
        return self.states(context, horizon)[0]


class OwnLoss(Mean):
    """Says itself what it learns from: the absolute error, where it is not shown the truth counted twice."""

    def loss(self, frames, feed_mask):
        context = len(self.weights)
        error = (self.predict(frames[:, :context], frames.shape[1] - context) - frames[:, context:]).abs()
        return (error.flatten(2).mean(dim=2) * (2 - feed_mask[:, context - 1 :])).mean()


class KeepsCalls(Mean):
    """Counts its calls."""

    calls = 0

    def predict(self, context, horizon):
        self.calls += 1
        return super().predict(context, horizon) + self.calls


class WritesInput(Mean):
    """Changes what it is given."""

    def predict(self, context, horizon):
        predicted = super().predict(context, horizon)
        context.mul_(0.5)
        return predicted


class MixesClips(Mean):
    """Subtracts the mean of the batch."""

    def predict(self, context, horizon):
        return super().predict(context - context.mean(dim=0, keepdim=True), horizon)


class FailsBeside(Mean):
    """Is no number where the clips beside are bright."""

    def predict(self, context, horizon):
        bright = context[1:].mean() > 0.5
        return super().predict(context, horizon) + torch.where(bright, float("nan"), 0.0)


class Detached(Mean):
    """Its prediction has no gradient at the context."""

    def predict(self, context, horizon):
        return super().predict(context.detach(), horizon)


class Idle(Mean):
    """Has a weight that nothing reads."""

    def __init__(self, context):
        super().__init__(context)
        self.idle = nn.Parameter(torch.zeros(3))


class KeepsSteps(Mean):
    """Trains on what it kept of the step before, in no buffer."""

    before = 0.0

    def loss(self, frames, feed_mask):
        loss = (self.predict(frames[:, : len(self.weights)], 1) - frames[:, -1:] - self.before).square().mean()
        self.before = loss.item()
        return loss


class OneHorizon(Mean):
    """Predicts three frames, whatever is asked."""

    def predict(self, context, horizon):
        return super().predict(context, 3)


class Raises(Mean):
    """Has a mistake of its own."""

    def predict(self, context, horizon):
        return context @ torch.zeros(7, 7)


class NoPredict(nn.Module):
    """Has no method predict."""


class NoWeights(nn.Module):
    """Has nothing to train."""

    def predict(self, context, horizon):
        return context[:, -1:].expand(-1, horizon, -1, -1, -1)


class Frozen(Mean):
    """Has a weight that is not trained."""

    def __init__(self, context):
        super().__init__(context)
        self.bias.requires_grad_(False)
