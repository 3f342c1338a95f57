"""Depth networks of the LSS view transform: depth bins and context of every image cell.

`PlainDepthNet` is one convolution (MapTR with bevpool); `CameraAwareDepthNet` also looks at the
calibration of the camera (MapTRv2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import LssConfig
from gsmap_core.models.backbone import BasicBlock

#: Numbers that describe a camera, see `camera_vectors`.
NUM_CAMERA_VALUES = 22
#: Dilations of the 3x3 convolutions of the pyramid pooling.
_DILATIONS = (6, 12, 18)


def camera_vectors(
    intrinsics: Tensor,
    base_from_cameras: Tensor,
    scale: float | None,
    input_from_image: Tensor | None = None,
) -> Tensor:
    """Describe every camera by the 22 numbers that the published network reads.

    They are: fx, fy, cx, cy of the image before it was resized [px]; the resize as the affine map
    from its pixels to those of the network input, row by row (r00, r01, tx, r10, r11, ty); and the
    first three rows of the matrix from the camera to the ego frame [m], row by row.

    A batch does not tell how large its images once were (they may have been decoded at a fraction
    of their size, or come from another camera), so the resize is by definition `scale` without
    translation, the constant of the published pipelines, and fx to cy follow from it.

    Args:
        intrinsics: (B, N, 3, 3) of the network input [px].
        base_from_cameras: (B, N, 4, 4).
        scale: size of the network input relative to that image; None: the same (1).
        input_from_image: (B, N, 3, 3) the resize, where it is known; replaces `scale`.

    Returns:
        (B, N, 22) float32.
    """
    with torch.autocast(intrinsics.device.type, enabled=False):
        if input_from_image is None:
            factor = 1.0 if scale is None else scale
            diagonal = intrinsics.new_tensor([factor, factor, 1.0])
            input_from_image = torch.diag(diagonal).expand_as(intrinsics)
        resize = input_from_image.double()
        own = torch.linalg.inv(resize) @ intrinsics.double()
        numbers = [
            own[..., 0, 0, None],
            own[..., 1, 1, None],
            own[..., :2, 2],
            resize[..., :2, :].flatten(-2),
            base_from_cameras[..., :3, :].double().flatten(-2),
        ]
        return torch.cat(numbers, dim=-1).float()


class PlainDepthNet(nn.Module):
    """One 1x1 convolution for both (reference-models.md, 1.8).

    Args:
        dims: C, of the features and of the context.
        num_bins: D.
    """

    def __init__(self, dims: int, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.output = nn.Conv2d(dims, num_bins + dims, 1)

    def forward(self, features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Map (I, C, h, w) to depth logits (I, D, h, w) and context (I, C, h, w)."""
        both = self.output(features)
        return both[:, : self.num_bins], both[:, self.num_bins :]


def _normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a BatchNorm; a single value per channel has no statistics, so the stored ones serve.

    That happens in training when a batch consists of one image.
    """
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))
    if norm.training and x.numel() == x.shape[1]:
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    return norm(x)


class CameraGate(nn.Module):
    """Scales the channels of an image's features by what is known of its camera.

    Args:
        dims: channels.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(NUM_CAMERA_VALUES, dims)
        self.mlp2 = nn.Linear(dims, dims)
        self.reduce = nn.Conv2d(dims, dims, 1)
        self.expand = nn.Conv2d(dims, dims, 1)

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        """Scale (I, C, h, w) by a gate from (I, 22)."""
        code = self.mlp2(torch.relu(self.mlp1(vectors)))[:, :, None, None]
        return features * self.expand(torch.relu(self.reduce(code))).sigmoid()


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling: what stands around a cell, near and far.

    Args:
        dims: channels in and out.
        hidden: channels of each of the five branches.
        dropout: on the result.
    """

    def __init__(self, dims: int, hidden: int, dropout: float) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(dims, hidden, 1, bias=False)]
        convolutions += [
            nn.Conv2d(dims, hidden, 3, padding=dilation, dilation=dilation, bias=False)
            for dilation in _DILATIONS
        ]
        self.branches = nn.ModuleList(convolutions)
        self.branch_norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in convolutions)
        self.pool = nn.Conv2d(dims, hidden, 1, bias=False)
        self.pool_norm = nn.BatchNorm2d(hidden)
        self.merge = nn.Conv2d(hidden * (len(convolutions) + 1), dims, 1, bias=False)
        self.merge_norm = nn.BatchNorm2d(dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (I, C, h, w) to the same."""
        parts = [
            torch.relu(norm(convolution(x)))
            for convolution, norm in zip(self.branches, self.branch_norms, strict=True)
        ]
        whole = torch.relu(_normalised(self.pool_norm, self.pool(x.mean((2, 3), keepdim=True))))
        parts.append(whole.expand(-1, -1, *x.shape[2:]))
        merged = self.merge_norm(self.merge(torch.cat(parts, dim=1)))
        return self.dropout(torch.relu(merged))


class CameraAwareDepthNet(nn.Module):
    """Depth and context from features and calibration (reference-models.md, 2.1).

    Args:
        dims: C, of the features and of the context.
        config: widths and number of bins.
    """

    def __init__(self, dims: int, config: LssConfig) -> None:
        super().__init__()
        hidden = config.hidden_dims
        self.reduce = nn.Conv2d(dims, hidden, 3, padding=1)
        self.reduce_norm = nn.BatchNorm2d(hidden)
        self.camera_norm = nn.BatchNorm1d(NUM_CAMERA_VALUES)
        self.context_gate = CameraGate(hidden)
        self.context_output = nn.Conv2d(hidden, dims, 1)
        self.depth_gate = CameraGate(hidden)
        self.depth_blocks = nn.Sequential(
            *(BasicBlock(hidden, hidden, 1) for _ in range(config.num_depth_blocks))
        )
        self.depth_pyramid = PyramidPooling(hidden, config.pyramid_dims, config.pyramid_dropout)
        self.depth_output = nn.Conv2d(hidden, config.num_depth_bins, 1)

    def forward(self, features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            features: (I, C, h, w).
            vectors: (I, 22), see `camera_vectors`.

        Returns:
            Depth logits (I, D, h, w) and context (I, C, h, w).
        """
        x = torch.relu(self.reduce_norm(self.reduce(features)))
        code = _normalised(self.camera_norm, vectors)
        context = self.context_output(self.context_gate(x, code))
        depth = self.depth_blocks(self.depth_gate(x, code))
        return self.depth_output(self.depth_pyramid(depth)), context
