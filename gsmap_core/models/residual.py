"""Residual convolution blocks on BEV maps (ResNet's, without a change of resolution)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a residual on the BEV map."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dims, dims, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dims)
        self.conv2 = nn.Conv2d(dims, dims, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dims)
        for convolution in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(convolution.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(x + self.bn2(self.conv2(y)))


class WideBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions at full width with a residual; projects where it narrows.

    Args:
        dims: channels that come in, and width of the block.
        out_dims: channels that go out.
    """

    def __init__(self, dims: int, out_dims: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dims, dims, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dims)
        self.conv2 = nn.Conv2d(dims, dims, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dims)
        self.conv3 = nn.Conv2d(dims, out_dims, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_dims)
        self.shortcut: nn.Module = nn.Identity()
        if out_dims != dims:
            self.shortcut = nn.Sequential(
                nn.Conv2d(dims, out_dims, 1, bias=False), nn.BatchNorm2d(out_dims)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dims, H, W) to (B, out_dims, H, W)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        return functional.relu(self.shortcut(x) + self.bn3(self.conv3(y)))


def narrowing(dims: int, out_dims: int) -> nn.Sequential:
    """Return a 3x3 convolution to fewer channels with normalisation and ReLU."""
    convolution = nn.Conv2d(dims, out_dims, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode='fan_out', nonlinearity='relu')
    return nn.Sequential(convolution, nn.BatchNorm2d(out_dims), nn.ReLU(inplace=True))


def residual_blocks(num_blocks: int, dims: int) -> nn.Sequential:
    """Return blocks in a row; none: the identity."""
    return nn.Sequential(*(ResidualBlock(dims) for _ in range(num_blocks)))
