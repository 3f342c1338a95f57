from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.models.postprocess import to_vector_maps


def output_of(
    config: ModelConfig, lines_m: list[list[list[float]]], probabilities
) -> MapperOutput:
    """Return a one-sample output of lines [m] and probabilities, after a layer of nonsense."""
    unit = torch.from_numpy(config.grid.metres_to_unit(np.array(lines_m, dtype=float))).float()
    logits = torch.logit(torch.tensor(probabilities, dtype=torch.float32))
    points = torch.stack([torch.full_like(unit, 0.5), unit])[:, None]
    return MapperOutput(torch.stack([-logits, logits])[:, None], points, torch.zeros(1, 1, 1, 1))


LINE = [[-10.0, 5.0], [0.0, 5.0], [10.0, 5.0], [20.0, 5.0], [25.0, 5.0]]
RING = [[4.0, -4.0], [8.0, -4.0], [8.0, 4.0], [4.0, 4.0], [4.0, -3.5]]


def test_lines_come_back_in_metres_and_rings_close(config: ModelConfig) -> None:
    output = output_of(config, [LINE, RING], [[0.01, 0.02, 0.9], [0.03, 0.7, 0.04]])
    (result,) = to_vector_maps(output, config, score_threshold=0.5, stamps_ns=[7], scenes=['s'])
    line, ring = result.elements
    assert (result.reference, result.stamp_ns, result.scene) == ('ego', 7, 's')
    assert (line.category_name, line.closed) == ('boundary', False)
    assert line.score == pytest.approx(0.9, abs=1e-5)
    np.testing.assert_allclose(line.vertices, LINE, atol=1e-4)
    assert (ring.category_name, ring.closed) == ('ped_crossing', True)
    np.testing.assert_allclose(ring.vertices, RING[:-1], atol=1e-4)


def test_closing_distance_zero_keeps_all_points(config: ModelConfig) -> None:
    output = output_of(config, [RING], [[0.1, 0.7, 0.2]])
    (result,) = to_vector_maps(output, config, closing_distance_m=0.0, max_elements=1)
    assert not result.elements[0].closed and len(result.elements[0].vertices) == 5
    (result,) = to_vector_maps(output, config, closing_distance_m=0.4, max_elements=1)
    assert not result.elements[0].closed
    (result,) = to_vector_maps(output, config, closing_distance_m=0.6, max_elements=1)
    assert result.elements[0].closed


def test_best_pairs_first_and_one_line_may_have_two_categories(config: ModelConfig) -> None:
    output = output_of(config, [LINE, RING], [[0.6, 0.1, 0.8], [0.2, 0.7, 0.05]])
    (result,) = to_vector_maps(output, config, max_elements=4)
    found = [(element.category_name, len(element.vertices)) for element in result.elements]
    assert found == [('boundary', 5), ('ped_crossing', 4), ('divider', 5), ('divider', 4)]
    assert len(to_vector_maps(output, config)[0]) == 6
    assert len(to_vector_maps(output, config, score_threshold=0.65)[0]) == 2


def test_categories_follow_the_configuration(config: ModelConfig) -> None:
    config = replace(config, categories=('boundary', 'centerline'))
    output = output_of(config, [LINE], [[0.2, 0.9]])
    (result,) = to_vector_maps(output, config, score_threshold=0.5)
    assert [element.category_name for element in result.elements] == ['centerline']


def test_lidar_results_turn_into_the_ego_frame_on_request(config: ModelConfig) -> None:
    """The lidar's y axis looks ahead, its origin lies 0.9 m in front of the ego's."""
    config = replace(
        config,
        reference='lidar',
        range=type(config.range)(-15.0, 15.0, -30.0, 30.0),
        bev=replace(config.bev, order='official'),
    )
    output = output_of(config, [[[1.0, 0.0], [1.0, 10.0], [1.0, 20.0]]], [[0.1, 0.2, 0.9]])
    (lidar,) = to_vector_maps(output, config, max_elements=1)
    assert lidar.reference == 'lidar' and lidar.range == config.range
    np.testing.assert_allclose(lidar.elements[0].vertices[1], [1.0, 10.0], atol=1e-4)
    transform = np.array([[0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1.0]])
    (ego,) = to_vector_maps(output, config, max_elements=1, ego_from_reference=[transform])
    assert ego.reference == 'ego'
    np.testing.assert_allclose(ego.elements[0].vertices[1], [10.9, -1.0], atol=1e-4)
    assert (ego.range.x_min, ego.range.x_max) == pytest.approx((-29.1, 30.9))
    assert (ego.range.y_min, ego.range.y_max) == pytest.approx((-15.0, 15.0))


def test_wrong_counts_are_named(config: ModelConfig) -> None:
    output = output_of(config, [LINE], [[0.2, 0.9, 0.1]])
    with pytest.raises(DataError, match='stamps_ns has 2 entries; expected 1'):
        to_vector_maps(output, config, stamps_ns=[1, 2])


def test_heights_come_back_in_metres_and_close_nothing(config: ModelConfig) -> None:
    """Whether a ring closes is seen from above; heights move with the frame."""
    bev = replace(config.bev, z_min_m=-5.0, z_max_m=3.0)
    config = replace(config, bev=bev, decoder=replace(config.decoder, num_dims=3))
    ring = [[*point, height] for point, height in zip(RING, (0.0, 1, 1, 2, 2.5), strict=True)]
    output = output_of(config, [ring], [[0.1, 0.7, 0.2]])
    (result,) = to_vector_maps(output, config, max_elements=1)
    assert result.elements[0].closed and result.elements[0].has_z
    np.testing.assert_allclose(result.elements[0].vertices, ring[:-1], atol=1e-4)
    lidar = replace(config, reference='lidar')
    lift = np.eye(4)
    lift[:3, 3] = [1.0, 0.0, 1.8]
    (moved,) = to_vector_maps(output, lidar, max_elements=1, ego_from_reference=[lift])
    np.testing.assert_allclose(
        moved.elements[0].vertices, np.array(ring[:-1]) + [1, 0, 1.8], atol=1e-4
    )
