"""What a criterion reads of a model's output."""

from types import SimpleNamespace


def make_output(logits, points, mask_logits=None, one_to_many=None):
    return SimpleNamespace(
        class_logits=logits,
        points=points,
        bev_mask_logits=mask_logits,
        one_to_many=one_to_many,
        gaussians=None,
        one_to_many_gaussians=None,
    )
