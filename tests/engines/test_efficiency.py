"""The cost of a network."""

import torch.nn.functional as F
from torch import nn

from common.engines.efficiency import network_facts


class Attention(nn.Module):
    """Attend to 500 tokens with 8 heads of 64 channels."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 8 * 64, bias=False)

    def forward(self, image):
        query = self.query(image.flatten(2).transpose(1, 2)).unflatten(2, (8, 64)).transpose(1, 2)
        return F.scaled_dot_product_attention(query, query, query)


def test_attention_counts_on_a_cpu_too():
    """PyTorch's counter takes the CPU's fused attention for free."""
    facts = network_facts(Attention(), 4, (10, 10, 5))
    assert facts == {"parameters": 4 * 512, "gflops": round((2 * 500 * 4 * 512 + 2 * 2 * 8 * 500 * 500 * 64) / 1e9, 3)}
