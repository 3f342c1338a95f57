"""Query instance segmentation: what the head computes, and when."""

from dataclasses import replace

import torch

from gsmap_core.config import InstanceMaskConfig, LossConfig, ModelConfig
from gsmap_core.models.instance_masks import InstanceMaskHead
from gsmap_core.models.mapper import OnlineMapper


def segmented(config, **options):
    losses = LossConfig(instance_mask=30.0, instance_mask_options=InstanceMaskConfig(**options))
    decoder = replace(config.decoder, num_one_to_many=3)
    return replace(config, losses=losses, decoder=decoder)


def test_masks_are_products_of_mean_query_and_projected_map(config):
    head = InstanceMaskHead(segmented(config))
    states, bev = torch.randn(2, 3, 4, 5, 16), torch.randn(3, 16, 6, 7)
    masks = head(states, bev)
    assert masks.shape == (2, 3, 4, 6, 7)
    query = head.mlp(sum(states[1, 2, 3]) / 5)
    cell = head.projection.weight[:, :, 0, 0] @ bev[2, :, 4, 1] + head.projection.bias
    torch.testing.assert_close(masks[1, 2, 3, 4, 1], query @ cell)


def test_options_of_the_head(config):
    states, bev = torch.randn(2, 1, 4, 5, 16), torch.randn(1, 16, 6, 8)
    config = replace(config, bev=replace(config.bev, num_rows=6, num_columns=8))
    head = InstanceMaskHead(segmented(config, layers='last', stride=2, num_mlp_layers=2))
    masks = head(states, bev)
    assert masks.shape == (1, 1, 4, 3, 4)
    query = head.mlp(states[1, 0, 2].mean(0))
    cell = head.projection(bev[:, :, 2:4, 6:8].mean((2, 3), keepdim=True))[0, :, 0, 0]
    torch.testing.assert_close(masks[0, 0, 2, 1, 3], query @ cell)
    assert sum(isinstance(part, torch.nn.Linear) for part in head.mlp) == 2


def test_number_of_parameters_at_the_published_size():
    config = ModelConfig(losses=LossConfig(instance_mask=30.0, instance_dice=3.0))
    head = InstanceMaskHead(config)
    # Three linear layers and the 1x1 convolution, 256 to 256 with bias.
    assert sum(item.numel() for item in head.parameters()) == 4 * (256 * 256 + 256)


def test_masks_are_computed_in_training_or_when_asked(config, batch, monkeypatch):
    model = OnlineMapper(segmented(config))
    size = (len(batch.images), 30, 15)
    output = model.train()(batch)
    assert output.instance_masks.shape == (2, size[0], 5, *size[1:])
    assert output.one_to_many_instance_masks is None
    assert output.bev_mask_logits is None
    asked = model.eval()(batch, instance_masks=True)
    assert asked.instance_masks.shape == output.instance_masks.shape
    monkeypatch.setattr(InstanceMaskHead, 'forward', None)  # calling it would fail
    plain = model(batch)
    assert plain.instance_masks is None
    torch.testing.assert_close(plain.points, asked.points)


def test_one_to_many_queries_have_masks_when_wanted(config, batch):
    model = OnlineMapper(segmented(config, one_to_many=True)).train()
    output = model(batch)
    assert output.instance_masks.shape[2] == 5
    assert output.one_to_many_instance_masks.shape[2] == 3
    asked = model.eval()(batch, instance_masks=True)
    assert asked.instance_masks.shape[2] == 5 and asked.one_to_many_instance_masks is None


def test_models_without_it_are_as_before(config, batch):
    plain = OnlineMapper(config).train()
    assert not any('instance_mask' in name for name in plain.state_dict())
    assert plain(batch).instance_masks is None
    assert plain.eval()(batch, instance_masks=True).instance_masks is None
