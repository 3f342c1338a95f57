import math

import pytest
import torch

from gsmap_core.losses.dense import bev_segmentation_loss, depth_loss, pv_segmentation_loss


def test_bev_cells_of_an_element_weigh_four_times() -> None:
    loss = bev_segmentation_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1, 0]]]]))
    assert loss.item() == pytest.approx((4 + 1) * math.log(2) / 2)


def test_pv_cells_of_missing_cameras_do_not_count() -> None:
    """Two cameras of 1 x 2 cells; the second sample has one, its second cell unsupervised."""
    logits = torch.tensor([[0.0, 2.0], [-1.0, 9.0], [1.0, 9.0], [9.0, 9.0]]).view(2, 2, 1, 1, 2)
    masks = [
        torch.tensor([[0, 1], [-1, -1]], dtype=torch.int8).view(2, 1, 1, 2),
        torch.tensor([[0, -1]], dtype=torch.int8).view(1, 1, 1, 2),
    ]
    parts = [math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(1))]
    assert pv_segmentation_loss(logits, masks).item() == pytest.approx(sum(parts) / 3, rel=1e-6)


def test_depth_is_the_log_probability_of_the_right_bin() -> None:
    """One labelled cell with p = 0.25, one with p = 0.5; the others have no label."""
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, math.log(3)]])
    logits = logits.T.reshape(1, 1, 4, 1, 2).repeat(1, 2, 1, 1, 1).requires_grad_()
    bins = [torch.tensor([[[2, 3]]])]
    loss = depth_loss(logits, bins)
    assert loss.item() == pytest.approx((math.log(4) + math.log(2)) / 2)
    loss.backward()
    assert not logits.grad[0, 1].any() and logits.grad[0, 0].any()


def test_nothing_labelled_gives_zero_and_zero_gradients() -> None:
    logits = torch.randn(1, 1, 3, 2, 2, requires_grad=True)
    loss = depth_loss(logits, [torch.full((1, 2, 2), -1)])
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
    masks = torch.randn(1, 1, 1, 2, 2)
    assert pv_segmentation_loss(masks, [torch.full((1, 1, 2, 2), -1)]).item() == 0
