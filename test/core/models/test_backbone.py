from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gsmap_core.config import BackboneConfig, ModelConfig
from gsmap_core.errors import CheckpointError
from gsmap_core.models.backbone import FeaturePyramid, ResNet, load_backbone_file
from gsmap_core.models.heads import inverse_sigmoid
from gsmap_core.models.mapper import OnlineMapper

R18 = BackboneConfig(block='basic', num_blocks=(2, 2, 2, 2), base_width=8, out_stages=(2, 3, 4))


def torchvision_file(config: BackboneConfig) -> dict[str, torch.Tensor]:
    """Return tensors as a torchvision file has them: with the classifier, and all four stages."""
    state = ResNet(replace(config, out_stages=(4,))).state_dict()
    return {**state, 'fc.weight': torch.zeros(1000, 64), 'fc.bias': torch.zeros(1000)}


def test_names_of_a_torchvision_resnet() -> None:
    """Spot checks, and the number of tensors of ResNet-18 and ResNet-50 without classifier."""
    basic = ResNet(R18).state_dict()
    assert len(basic) == 120
    assert {'conv1.weight', 'bn1.running_mean', 'layer1.0.conv2.weight'} < set(basic)
    assert {'layer2.0.downsample.0.weight', 'layer2.0.downsample.1.bias'} < set(basic)
    assert 'layer1.0.downsample.0.weight' not in basic
    fifty = ResNet(BackboneConfig(base_width=8)).state_dict()
    assert len(fifty) == 318
    assert fifty['layer1.0.downsample.0.weight'].shape == (32, 8, 1, 1)
    assert fifty['layer4.2.conv3.weight'].shape == (256, 64, 1, 1)


def test_published_backbone_size() -> None:
    with torch.device('meta'):
        model = ResNet(BackboneConfig())
    assert sum(item.numel() for item in model.parameters()) == 23_508_032
    model.freeze()
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == 23_232_512


@pytest.mark.parametrize('stem', ['conv7', 'conv3'])
def test_strides(stem: str) -> None:
    model = ResNet(replace(R18, stem=stem, out_stages=(1, 2, 3, 4)))
    sizes = [tuple(stage.shape[1:]) for stage in model(torch.randn(1, 3, 64, 96))]
    assert sizes == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]


def test_pyramid_brings_coarse_levels_to_the_finest() -> None:
    pyramid = FeaturePyramid([2, 3], 4)
    fine, coarse = torch.zeros(1, 2, 4, 6), torch.zeros(1, 3, 2, 3)
    before = pyramid([fine, coarse])
    assert before.shape == (1, 4, 4, 6)
    coarse[0, :, 1, 2] = 1.0
    changed = (pyramid([fine, coarse]) - before).abs().sum(1)[0] > 1e-6
    # The four fine cells under the coarse one, and the 3 x 3 neighbourhood of the last
    # convolution.
    assert changed[1:, 3:].all() and not changed[0].any() and not changed[:, :3].any()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_torchvision_file_loads_and_freezes(tmp_path, suffix: str) -> None:
    torch.manual_seed(1)
    tensors = torchvision_file(R18)
    path = str(tmp_path / f'resnet{suffix}')
    if suffix == '.pth':
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    config = ModelConfig(embed_dims=16, backbone=R18)
    config = replace(config, bev=replace(config.bev, num_rows=4, num_columns=4))
    backbone = OnlineMapper(config, load_backbone_file(path)).train().image_encoder.backbone
    torch.testing.assert_close(backbone.layer3[1].conv1.weight, tensors['layer3.1.conv1.weight'])
    assert not backbone.conv1.weight.requires_grad
    assert not backbone.layer1[0].conv1.weight.requires_grad
    assert backbone.layer2[0].conv1.weight.requires_grad
    assert not backbone.layer2[0].bn1.weight.requires_grad
    mean = backbone.layer4[0].bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(backbone.layer4[0].bn1.running_mean, mean, rtol=0, atol=0)


def test_fewer_stages_ignore_the_rest_of_the_file() -> None:
    model = ResNet(replace(R18, out_stages=(2, 3)))
    model.load_pretrained(torchvision_file(R18))
    assert not hasattr(model, 'layer4')


def test_wrong_backbone_files_are_explained(tmp_path) -> None:
    tensors = torchvision_file(R18)
    del tensors['layer2.0.conv1.weight']
    tensors['layer2.0.conv9.weight'] = torch.zeros(1)
    tensors['conv1.weight'] = torch.zeros(16, 3, 7, 7)
    with pytest.raises(CheckpointError) as caught:
        ResNet(R18).load_pretrained(tensors, 'file.pth')
    message = str(caught.value)
    assert '1 missing: layer2.0.conv1.weight' in message
    assert '1 unexpected: layer2.0.conv9.weight' in message
    assert 'conv1.weight (16, 3, 7, 7) instead of (8, 3, 7, 7)' in message
    for name, content in (('a.pth', b'no pickle'), ('b.safetensors', b'no tensors')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match='cannot be read'):
            load_backbone_file(str(tmp_path / name))
    torch.save({'conv1.weight': 'text'}, tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='no mapping of tensors'):
        load_backbone_file(str(tmp_path / 'c.pth'))
    with pytest.raises(CheckpointError, match='do not exist'):
        load_backbone_file(str(tmp_path / 'none.pth'))


@pytest.mark.golden
def test_golden_maptr_inverse_sigmoid(golden_dir) -> None:
    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    torch.testing.assert_close(
        inverse_sigmoid(ops['inverse_sigmoid.input']), ops['inverse_sigmoid.output']
    )


@pytest.mark.golden
def test_golden_maptr_reference_points_and_normalisation(golden_dir) -> None:
    """Cell centres, pillar heights and normalised points in the published order."""
    from gsmap_core.geometry.bev_grid import BevGrid
    from gsmap_core.models.bev.pillars import pillar_heights
    from gsmap_core.structures import PerceptionRange

    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    extent = PerceptionRange(-15.0, 15.0, -30.0, 30.0)
    grid = BevGrid(extent, 4, 3, 'official')
    unit = torch.from_numpy(grid.metres_to_unit(grid.cell_centres())).float().reshape(1, -1, 1, 2)
    torch.testing.assert_close(unit, ops['ref.points_2d.h4_w3'])
    expected = ops['ref.points_3d.h4_w3_z4'][0]  # (heights, cells, xyz) as fractions of the range
    heights = torch.tensor(pillar_heights(0.0, 4.0, 4)) / 4.0
    torch.testing.assert_close(heights.float(), expected[:, 0, 2])
    points = torch.from_numpy(grid.metres_to_unit(ops['norm.pts'].numpy())).float()
    torch.testing.assert_close(points, ops['norm.pts_normalised'])
    back = torch.from_numpy(grid.unit_to_metres(points.numpy())).float()
    torch.testing.assert_close(back, ops['norm.pts_back'], rtol=1e-5, atol=1e-5)
