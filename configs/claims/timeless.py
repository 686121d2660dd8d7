"""`timeless`: adaLN-Zero whose c has the prompt and no time, for the claim `t-13-time`."""

from torch import Tensor

from architectures import register
from architectures.conditioning.adaln_zero import AdaLNZero
from architectures.prompt import Encoded
from architectures.sublayer import Condition


@register("timeless")
class Timeless(AdaLNZero):
    """adaLN-Zero without time: c = prompt, all else as there."""

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        """c, which e_t is no part of."""
        c = prompt.pooled  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c))
