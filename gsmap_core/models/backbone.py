"""Image backbone (ResNet family) and feature pyramid.

Parameter names of the backbone are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, ...), so that
a torchvision file
loads as it is. The stride of a bottleneck sits in its 3x3 convolution, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import BackboneConfig
from gsmap_core.errors import CheckpointError
from gsmap_core.models.tensor_files import read_tensor_file


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation right before the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation right before the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class ResNet(nn.Module):
    """ResNet that returns the chosen stages.

    Both stems give stages 1 to 4 the strides 4, 8, 16 and 32. `conv7` is torchvision's: a 7x7
    convolution of stride 2, then max-pooling
    (stage 1 keeps the size). `conv3` is one 3x3 convolution of stride 2 and no pooling (stage 1
    halves the size), which
    is cheaper at small images.

    Args:
        config: blocks, widths, stem, stages.
    """

    STRIDES = (4, 8, 16, 32)

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        block: type[BasicBlock | Bottleneck] = (
            BasicBlock if config.block == 'basic' else Bottleneck
        )
        width = config.base_width
        if config.stem == 'conv7':
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        self.stage_channels: list[int] = []
        for stage, num_blocks in enumerate(config.num_blocks[: max(config.out_stages)]):
            stage_width = width * 2**stage
            stride = 1 if stage == 0 and config.stem == 'conv7' else 2
            blocks = []
            for index in range(num_blocks):
                blocks.append(block(channels, stage_width, stride if index == 0 else 1))
                channels = stage_width * block.expansion
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
            self.stage_channels.append(channels)
        self.is_frozen = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming for convolutions; every block starts as its shortcut (last norm weight 0)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        for module in self.modules():
            if isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    @property
    def out_channels(self) -> list[int]:
        """Channels of the returned stages."""
        return [self.stage_channels[stage - 1] for stage in self.config.out_stages]

    def load_pretrained(self, tensors: Mapping[str, Tensor], where: str = 'backbone') -> None:
        """Load torchvision-named tensors and freeze what the configuration says.

        The classifier (`fc.*`) and stages that this backbone does not have are ignored.

        Raises:
            CheckpointError: a tensor is missing, unknown or of another shape; the message lists
                them.
        """
        own = self.state_dict()
        unused = tuple(f'layer{stage}.' for stage in range(len(self.stage_channels) + 1, 5))
        given = {key: value for key, value in tensors.items() if not key.startswith('fc.')}
        given = {key: value for key, value in given.items() if not key.startswith(unused)}
        counters = {key for key in own if key.endswith('num_batches_tracked')}
        check_tensors(own, given, where, optional=counters)
        self.load_state_dict(given, strict=False)
        self.freeze()

    def freeze(self) -> None:
        """Freeze what the configuration names; only sensible with pretrained weights."""
        self.is_frozen = True
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.config.num_frozen_stages == 0:
            return []
        names = [f'layer{stage + 1}' for stage in range(self.config.num_frozen_stages)]
        return [self.conv1, self.bn1, *(getattr(self, name) for name in names)]

    def _frozen_parameters(self) -> list[nn.Parameter]:
        modules = self._frozen_modules()
        if self.config.frozen_norm:
            modules += [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        return [parameter for module in modules for parameter in module.parameters()]

    def train(self, mode: bool = True) -> ResNet:
        """Switch mode; frozen parts stay in eval mode, so that their statistics do not move."""
        super().train(mode)
        if self.is_frozen:
            for frozen in self._frozen_modules():
                frozen.eval()
            if self.config.frozen_norm:
                for module in self.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the chosen stages (B, C_s, H / stride, W / stride), finest first."""
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        if self.config.stem == 'conv7':
            x = functional.max_pool2d(x, 3, 2, 1)
        stages = []
        for stage in range(len(self.stage_channels)):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage + 1 in self.config.out_stages:
                stages.append(x)
        return stages


class FeaturePyramid(nn.Module):
    """Feature pyramid that returns its finest level only.

    One input: a 1x1 and a 3x3 convolution, as published. Several: every level gets its own 1x1
    convolution, coarser levels are
    added upwards (nearest neighbour), then one 3x3 convolution on the finest.

    Args:
        in_channels: channels of the input stages, finest first.
        out_channels: C.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, out_channels, 1) for channels in in_channels
        )
        self.output = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Merge stages (B, C_s, H_s, W_s), finest first, into (B, C, H_0, W_0)."""
        merged = self.lateral[-1](stages[-1])
        for lateral, stage in zip(self.lateral[-2::-1], stages[-2::-1], strict=True):
            merged = lateral(stage) + functional.interpolate(merged, size=stage.shape[-2:])
        return self.output(merged)


class ImageEncoder(nn.Module):
    """Backbone and pyramid, run only on the images that exist.

    Args:
        config: backbone part of the configuration.
        out_channels: C.
    """

    def __init__(self, config: BackboneConfig, out_channels: int) -> None:
        super().__init__()
        self.backbone = ResNet(config)
        self.neck = FeaturePyramid(self.backbone.out_channels, out_channels)

    def forward(self, images: Tensor, camera_mask: Tensor) -> Tensor:
        """Encode.

        Args:
            images: (B, N, 3, H, W) normalised.
            camera_mask: (B, N) bool; a missing image is not looked at and does not enter any batch
                statistics.

        Returns:
            (B, N, C, H / stride, W / stride); zeros where the camera is missing.
        """
        batch, cameras = camera_mask.shape
        # Channels-last convolutions are a quarter to a third faster on CPUs, and the tokens come
        # out in order.
        flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if bool(camera_mask.all()):
            return self.neck(self.backbone(flat)).unflatten(0, (batch, cameras))
        present = camera_mask.flatten().nonzero().squeeze(1)
        # Without any image the size of the map is still needed; nothing reads the values.
        used = present if len(present) else present.new_zeros(1)
        chosen = flat[used].contiguous(memory_format=torch.channels_last)
        features = self.neck(self.backbone(chosen))
        result = features.new_zeros(batch * cameras, *features.shape[1:])
        if len(present):
            result = result.index_copy(0, present, features)
        return result.unflatten(0, (batch, cameras))


def check_tensors(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    where: str,
    optional: set[str] | frozenset[str] = frozenset(),
) -> None:
    """Compare names and shapes of tensors.

    Args:
        own: what is needed.
        given: what a file holds.
        where: names the file in the message.
        optional: needed names that may be absent.

    Raises:
        CheckpointError: with the missing and unexpected names and the differing shapes.
    """
    missing = sorted(set(own) - set(given) - set(optional))
    unexpected = sorted(set(given) - set(own))
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
        for key in sorted(set(own) & set(given))
        if own[key].shape != given[key].shape
    ]
    problems = [
        f'{len(names)} {kind}: {", ".join(names[:20])}{", ..." if len(names) > 20 else ""}'
        for kind, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('of another shape', shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f'{where}: its tensors do not fit this configuration ({"; ".join(problems)}); give '
            'the file that belongs to the '
            'configuration, or the configuration that belongs to the file'
        )


def load_backbone_file(path: str) -> dict[str, Tensor]:
    """Read a torchvision-named ResNet file: `.safetensors`, or `.pth` without running its code.

    Raises:
        CheckpointError: the file is missing or is not a mapping of tensors.
    """
    return read_tensor_file(
        path, 'backbone weights', 'a torchvision-named .pth or .safetensors file'
    )
