"""The network of a learned scale while it is trained, and the RLOO gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfg_lab.guidance.policy import FEATURES, Matrix


class PolicyNetwork(nn.Module):
    """The network of `LearnedScale` with weights that can be trained.

    Before training all shares have the same probability.

    Args:
        shares: number of shares to choose from.
        units: number of hidden units.
        seed: seed of the first weights of the hidden units.
    """

    def __init__(self, shares: int, units: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hidden = nn.Parameter(torch.randn(units, 1 + len(FEATURES), generator=generator))
        self.output = nn.Parameter(torch.zeros(shares, 1 + units))

    def forward(self, features: Tensor) -> Tensor:
        """The log-probs of the shares, [steps, shares], for features [steps, features]."""
        units = torch.tanh(torch.addmm(self.hidden[:, 0], features, self.hidden[:, 1:].T))
        return torch.addmm(self.output[:, 0], units, self.output[:, 1:].T).log_softmax(1)

    def matrices(self) -> tuple[Matrix, Matrix]:
        """The weights `hidden` and `output` of `LearnedScale`."""
        return _as_matrix(self.hidden), _as_matrix(self.output)


def _as_matrix(weights: Tensor) -> Matrix:
    return tuple(tuple(map(float, row)) for row in weights.detach())


def rloo_advantages(rewards: Tensor) -> Tensor:
    """The reward of each text minus the mean reward of the other texts of its prompt, [prompts, samples].

    Source: REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740). The mean of the others does not
    depend on the text's own actions. So it changes the variance of the gradient, not its expectation.

    Args:
        rewards: [prompts, samples], with at least two samples.
    """
    samples = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
    return rewards - others


def policy_loss(
    log_probs: Tensor, actions: Tensor, texts: Tensor, advantages: Tensor, entropy_bonus: float
) -> Tensor:
    """The loss whose gradient is minus the RLOO estimate of the gradient of the mean reward.

        loss = - mean over texts of (advantage * sum over steps of log pi(action))
               - entropy_bonus * mean over steps of the entropy of pi

    Args:
        log_probs: [steps, shares], log pi of every share at every step of all texts.
        actions: [steps], the number of the share that was chosen.
        texts: [steps], the number of the text that a step belongs to.
        advantages: [texts], from `rloo_advantages`, flattened.
        entropy_bonus: weight of the entropy, at least 0.
    """
    of_actions = log_probs.gather(1, actions[:, None])[:, 0]
    gain = (advantages[texts] * of_actions).sum() / len(advantages)
    entropy = -(log_probs.exp() * log_probs).sum(1).mean()
    return -gain - entropy_bonus * entropy
