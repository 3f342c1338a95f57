"""Pictures agree with geometry, look as the conditions say, and come out the same again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.data.synthetic import occluders
from gsmap_core.data.synthetic.raycast import Waves, intersect_ground, make_rays
from gsmap_core.data.synthetic.renderer import Renderer
from gsmap_core.data.synthetic.scene import (
    Billboard,
    Box,
    BoxKind,
    Conditions,
    GroundPatch,
    HeightField,
    Material,
    Town,
)
from gsmap_core.errors import CalibrationError, DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import invert, make_transform, transform_points
from gsmap_core.rig import load_rig, scaled_rig

CLEAR = Conditions(haze_per_m=0.0, noise=0.0)
#: 8 % at its steepest, where the sine crosses zero, with a cross slope.
SLOPE = HeightField(
    np.array([1.0, 0.4]), np.array([[0.08, 0.0], [0.0, 0.1]]), np.array([0.0, 0.3])
)


def make_town(ground=None, patches=(), boxes=(), billboards=()):
    asphalt = GroundPatch(
        np.array([[-35.0, -35.0], [35, -35], [35, 35], [-35, 35]]), Material.ASPHALT
    )
    return Town(
        name='test',
        seed=3,
        extent=np.array([-40.0, -40.0, 40.0, 40.0]),
        ground=HeightField() if ground is None else ground,
        patches=(asphalt, *patches),
        boxes=tuple(boxes),
        billboards=tuple(billboards),
        elements=(),
        lanes=(),
        lane_successors=(),
    )


def pose_on_ground(ground, xy, yaw):
    """The vehicle stands on the ground, its z axis along the surface normal."""
    gradient = ground.gradient(np.array(xy))
    up = np.array([-gradient[0], -gradient[1], 1.0])
    up /= np.linalg.norm(up)
    ahead = np.array([np.cos(yaw), np.sin(yaw), gradient @ [np.cos(yaw), np.sin(yaw)]])
    ahead /= np.linalg.norm(ahead)
    rotation = np.stack([ahead, np.cross(up, ahead), up], axis=1)
    return make_transform(rotation, [*xy, ground.height(np.array(xy))])


def shoot(town, rig, map_from_base, conditions=CLEAR, **options):
    poses = np.stack([map_from_base @ camera.base_from_camera for camera in rig.cameras])
    times = options.pop('times_s', [0.0] * len(rig))
    return Renderer(town).render(rig.cameras, poses, times, conditions, **options)


def psnr(one, other):
    """Return the peak signal-to-noise ratio of two pictures [dB]."""
    error = np.mean((one.astype(float) - other) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def profile(grey, pixel, normal, reach):
    """Return offsets [px] and grey values along a line through a pixel."""
    offsets = np.arange(-reach, reach + 1e-9, 0.25)
    u, v = (pixel[axis] + offsets * normal[axis] for axis in range(2))
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    fu, fv = u - u0, v - v0
    values = (
        grey[v0, u0] * (1 - fu) * (1 - fv)
        + grey[v0, u0 + 1] * fu * (1 - fv)
        + grey[v0 + 1, u0] * (1 - fu) * fv
        + grey[v0 + 1, u0 + 1] * fu * fv
    )
    return offsets, values


CENTRE, YAW = (1.3, -2.2), 0.4


@pytest.fixture(scope='module', params=[HeightField(), SLOPE], ids=['level', 'slope'])
def rings(request):
    """A renderer of painted rings around a point, and their centre lines."""
    ground = request.param
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    patches, lines = [], []
    for radius in (7.0, 12.0):
        outer, inner = (np.array(CENTRE) + circle * (radius + side) for side in (0.08, -0.08))
        patches.append(GroundPatch(outer, Material.PAINT_WHITE, holes=(inner,)))
        line = np.array(CENTRE) + circle * radius
        lines.append(np.column_stack([line, ground.height(line)]))
    return Renderer(make_town(ground, patches)), pose_on_ground(ground, CENTRE, YAW), lines


@pytest.mark.parametrize(('rig_name', 'width'), [('nuscenes_like', 640), ('av2_like', 480)])
def test_paint_lies_on_the_projected_line(rings, rig_name, width):
    renderer, map_from_base, lines = rings
    rig = scaled_rig(load_rig(rig_name), width)
    poses = np.stack([map_from_base @ camera.base_from_camera for camera in rig.cameras])
    images = renderer.render(rig.cameras, poses, [0.0] * len(rig), CLEAR)
    for camera, image in zip(rig.cameras, images, strict=True):
        grey = image.astype(float).mean(axis=2)
        for line in lines:
            projection = project_points(camera, transform_points(invert(map_from_base), line))
            pixels, limit = projection.pixels, [camera.width_px - 12, camera.height_px - 12]
            inside = ((pixels > 11) & (pixels < limit)).all(axis=1)
            errors = []
            for index in np.flatnonzero(inside & projection.is_visible):
                tangent = pixels[(index + 1) % len(line)] - pixels[index - 1]
                normal = np.array([-tangent[1], tangent[0]]) / np.linalg.norm(tangent)
                offsets, values = profile(grey, pixels[index], normal, 9)
                weight = np.clip(values - np.median(values) - 25, 0, None)
                assert weight.sum() > 20, f'{camera.name}: no paint at {pixels[index]}'
                errors.append((offsets * weight).sum() / weight.sum())
            assert len(errors) > 15, camera.name
            assert np.abs(errors).max() < 1.0, camera.name
            # A systematic shift would be a wrong convention of pixel or texel centres.
            assert abs(np.mean(errors)) < 0.25, camera.name


def test_rays_meet_the_ground_where_it_is():
    rig = scaled_rig(load_rig('nuscenes_like'), 160)
    ground = HeightField(
        np.array([1.5, 0.5]), np.array([[0.04, 0.03], [-0.05, 0.07]]), np.array([0.2, 1.0])
    )
    pose = pose_on_ground(ground, (30.0, 40.0), 1.0)
    poses = np.stack([pose @ camera.base_from_camera for camera in rig.cameras])
    centre = np.array([30.0, 40.0, 0.0])
    rays = make_rays(list(rig.cameras), poses, centre, torch.device('cpu'))
    hits = intersect_ground(rays, Waves(ground, centre[:2]))
    xy = np.stack([hits.x.numpy(), hits.y.numpy()], axis=1).astype(float) + centre[:2]
    pixels = rig.cameras[0].width_px * rig.cameras[0].height_px
    camera = hits.index.numpy() // pixels
    direction = np.stack(
        [axis.reshape(-1).numpy()[hits.index.numpy()] for axis in (rays.x, rays.y, rays.z)], axis=1
    )
    z = rays.origins[camera, 2] + hits.depth.numpy() * direction[:, 2]
    distance = np.linalg.norm(xy - centre[:2], axis=1)
    near = distance < 60
    assert near.sum() > 10_000
    error = np.abs(z - ground.height(xy))[near]
    assert np.median(error) < 1e-4
    # Grazing rays: less than half a pixel at a focal length of 1000 px.
    assert (error / distance[near]).max() < 5e-4
    # Nothing in front of the hit is below the ground: the first intersection was taken.
    for share in np.linspace(0.05, 0.97, 30):
        points = rays.origins[camera] + (share * hits.depth.numpy())[:, None] * direction
        clearance = points[:, 2] - ground.height(points[:, :2] + centre[:2])
        assert clearance[near].min() > -0.02


RED_BOX = Box(np.array([12.0, 0.0]), (4.0, 3.0, 2.0), 0.3, BoxKind.PLAIN, (0.9, 0.05, 0.05))


def box_corners(box):
    cosine, sine = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    length, width, height = box.size_m
    return np.array(
        [
            [
                box.centre_xy[0] + cosine * sx * length / 2 - sine * sy * width / 2,
                box.centre_xy[1] + sine * sx * length / 2 + cosine * sy * width / 2,
                box.base_z_m + sz * height,
            ]
            for sx in (-1, 1)
            for sy in (-1, 1)
            for sz in (0, 1)
        ]
    )


def is_red(image):
    rgb = image.astype(float)
    return (rgb[..., 0] > 2 * rgb[..., 1] + 10) & (rgb[..., 0] > 2 * rgb[..., 2] + 10)


def test_a_box_projects_where_its_corners_do():
    rig = scaled_rig(load_rig('nuscenes_like'), 800)
    image = shoot(make_town(boxes=[RED_BOX]), rig, np.eye(4))[0]
    pixels = project_points(rig.cameras[0], box_corners(RED_BOX)).pixels
    rows, columns = np.nonzero(is_red(image))
    expected = [*pixels.min(axis=0), *pixels.max(axis=0)]
    measured = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(measured, expected, atol=1.0)


def test_a_box_hides_what_is_behind_it_and_not_what_is_before():
    rig = scaled_rig(load_rig('nuscenes_like'), 400)
    wall = replace(RED_BOX, centre_xy=np.array([8.0, 0.0]), colour_rgb=(0.1, 0.1, 0.9), yaw_rad=0)
    behind = shoot(make_town(boxes=[wall, RED_BOX]), rig, np.eye(4))[0]
    before = shoot(
        make_town(boxes=[replace(wall, centre_xy=np.array([20.0, 0.0])), RED_BOX]), rig, np.eye(4)
    )[0]
    alone = shoot(make_town(boxes=[RED_BOX]), rig, np.eye(4))[0]
    assert is_red(alone).sum() > 500
    assert is_red(behind).sum() < 0.2 * is_red(alone).sum()
    assert is_red(before).sum() == is_red(alone).sum()


def test_a_crest_hides_what_lies_beyond():
    """The road falls away behind a crest: a low box there is not seen, a tower is."""
    rig = scaled_rig(load_rig('nuscenes_like'), 400)
    ground = HeightField(np.array([2.0]), np.array([[0.05, 0.0]]), np.array([np.pi / 2 - 0.5]))
    pose = pose_on_ground(ground, (-20.0, 0.0), 0.0)
    low = replace(RED_BOX, centre_xy=np.array([60.0, 0.0]), size_m=(4.0, 3.0, 0.6))
    tower = replace(low, size_m=(4.0, 3.0, 20.0))
    assert is_red(shoot(make_town(ground, boxes=[low]), rig, pose)[0]).sum() == 0
    assert is_red(shoot(make_town(ground, boxes=[tower]), rig, pose)[0]).sum() > 50


def test_moving_boxes_move_with_the_time_of_each_camera():
    rig = scaled_rig(load_rig('nuscenes_like'), 400)
    moving = replace(RED_BOX, centre_xy=np.array([12.0, -3.0]), velocity_xy=(0.0, 10.0))
    for time_s in (0.0, 0.3):
        image = shoot(
            make_town(), rig, np.eye(4), times_s=[time_s] + [9.0] * 5, moving_boxes=[moving]
        )[0]
        there = replace(moving, centre_xy=np.array([12.0, -3.0 + 10 * time_s]))
        pixels = project_points(rig.cameras[0], box_corners(there)).pixels
        columns = np.nonzero(is_red(image))[1]
        assert columns.min() == pytest.approx(pixels[:, 0].min(), abs=1.0)
        assert columns.max() == pytest.approx(pixels[:, 0].max(), abs=1.0)


def test_portrait_camera_has_its_shape_and_its_horizon():
    rig = scaled_rig(load_rig('av2_like'), 300)
    images = shoot(make_town(), rig, np.eye(4))
    assert images[0].shape == (396, 300, 3) and images[1].shape == (300, 396, 3)
    far = project_points(rig.cameras[0], np.array([[400.0, 0.0, 0.0]])).pixels[0]
    column = images[0][:, round(far[0])].astype(float)
    below, above = column[round(far[1]) + 12], column[round(far[1]) - 40]
    assert above[2] > above[0] + 15, 'sky above the horizon is blue'
    assert abs(below[2] - below[0]) < 45


def tree_town():
    tree = Billboard(np.array([14.0, -4.0]), 2.0, 0.3, 4.0, 5.0, (0.2, 0.45, 0.15), seed=5)
    car = Box(np.array([11.0, 3.0]), (4.4, 1.8, 1.5), 0.1, BoxKind.VEHICLE, (0.7, 0.7, 0.75))
    house = Box(np.array([30.0, 18.0]), (20.0, 10.0, 9.0), 0.0, BoxKind.BUILDING, (0.6, 0.5, 0.4))
    strip = np.array([[3.0, -0.1], [30, -0.1], [30, 0.1], [3, 0.1]])
    return make_town(
        SLOPE, [GroundPatch(strip, Material.PAINT_YELLOW, wear=0.4)], [car, house], [tree]
    )


def test_equal_calls_give_equal_bytes_whatever_was_drawn_before():
    rig = scaled_rig(load_rig('nuscenes_like'), 200)
    conditions = Conditions()
    first, second = Renderer(tree_town()), Renderer(tree_town())
    pose = pose_on_ground(SLOPE, (0.0, 0.0), 0.0)
    elsewhere = pose_on_ground(SLOPE, (-60.0, 50.0), 2.0)

    def draw(renderer, map_from_base, seed=1):
        poses = np.stack([map_from_base @ camera.base_from_camera for camera in rig.cameras])
        return renderer.render(rig.cameras, poses, [0.0] * 6, conditions, noise_seed=seed)

    expected = draw(first, pose)
    draw(second, elsewhere)
    again = draw(second, pose)
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other_noise = draw(second, pose, seed=2)
    difference = other_noise[0].astype(float) - expected[0]
    assert 0.5 < difference.std() / (255 * conditions.noise * np.sqrt(2)) < 1.5


def test_cameras_drawn_together_look_as_drawn_one_by_one(monkeypatch):
    """What a GPU does for its speed, on the CPU."""
    rig = scaled_rig(load_rig('av2_like'), 150)
    pose = pose_on_ground(SLOPE, (0.0, 0.0), 0.3)
    options = {'moving_boxes': [RED_BOX], 'times_s': [0.5] * 7}
    single = shoot(tree_town(), rig, pose, **options)
    monkeypatch.setattr(
        Renderer, '_groups', lambda self, cameras, moments: [[0], list(range(1, len(cameras)))]
    )
    for one, other in zip(single, shoot(tree_town(), rig, pose, **options), strict=True):
        assert psnr(one, other) > 50


@pytest.mark.parametrize('small_px', [0, 10**9])
def test_solids_look_the_same_as_slices_and_as_lists(monkeypatch, small_px):
    rig = scaled_rig(load_rig('nuscenes_like'), 200)
    pose = pose_on_ground(SLOPE, (0.0, 0.0), 0.3)
    expected = shoot(tree_town(), rig, pose, moving_boxes=[RED_BOX])
    monkeypatch.setattr(occluders, '_SMALL_PX', small_px)
    for one, other in zip(
        expected, shoot(tree_town(), rig, pose, moving_boxes=[RED_BOX]), strict=True
    ):
        assert psnr(one, other) > 50


def test_conditions_change_the_picture_as_they_should():
    rig = scaled_rig(load_rig('nuscenes_like'), 200)
    town, pose = tree_town(), pose_on_ground(SLOPE, (0.0, 0.0), 0.0)

    def mean(**changes):
        return float(np.mean(shoot(town, rig, pose, replace(CLEAR, **changes))[0]))

    noon = shoot(town, rig, pose)[0].astype(float)
    assert mean(ambient=0.1, sun_strength=0.1, sky_rgb=(0.02, 0.02, 0.05)) < 0.5 * noon.mean()
    dark = dict(ambient=0.05, sun_strength=0.0, sky_rgb=(0.02, 0.02, 0.05))
    assert mean(**dark, headlights=True) > 1.15 * mean(**dark)
    brighter = shoot(town, rig, pose, exposure_gain=[1.3] * 6)[0].astype(float)
    assert brighter.mean() > 1.1 * noon.mean()
    road = np.s_[-8:, 60:140]
    wet, wet_at_night = (
        shoot(town, rig, pose, replace(CLEAR, wetness=1.0, sky_rgb=sky))[0].astype(float)
        for sky in (CLEAR.sky_rgb, (0.02, 0.02, 0.05))
    )
    assert wet_at_night[road].mean() < 0.8 * noon[road].mean(), 'wet asphalt is darker'
    assert wet[road].mean() > 1.1 * wet_at_night[road].mean(), 'and mirrors the sky'
    hazy = shoot(town, rig, pose, replace(CLEAR, haze_per_m=0.03))[0].astype(float)
    assert hazy.std() < noon.std()
    warm = shoot(town, rig, pose, replace(CLEAR, tint_rgb=(1.0, 0.8, 0.6)))[0].astype(float)
    assert (warm[road].mean(axis=(0, 1)) / noon[road].mean(axis=(0, 1)))[2] < 0.7


def test_boxes_and_trees_throw_shadows_away_from_the_sun():
    rig = scaled_rig(load_rig('nuscenes_like'), 400)
    sun = replace(CLEAR, sun_azimuth_rad=np.pi / 2, sun_elevation_rad=0.7)
    post = Box(np.array([10.0, 3.0]), (1.0, 1.0, 3.0), 0.0, BoxKind.PLAIN, (0.5, 0.5, 0.5))
    spots = np.array([[10.0, 1.0, 0.0], [10.0, 6.5, 0.0]])
    pixels = np.rint(project_points(rig.cameras[0], spots).pixels).astype(int)
    lit = shoot(make_town(), rig, np.eye(4), sun)[0].astype(float)
    for options in (
        {'town': make_town(boxes=[post])},
        {'town': make_town(), 'moving_boxes': [post]},
    ):
        image = shoot(rig=rig, map_from_base=np.eye(4), conditions=sun, **options)[0].astype(float)
        shaded, open_ground = (
            image[v - 1 : v + 2, u - 1 : u + 2].mean() / lit[v - 1 : v + 2, u - 1 : u + 2].mean()
            for u, v in pixels
        )
        assert shaded < 0.75
        assert open_ground == pytest.approx(1.0, abs=0.02)


def test_wrong_input_is_refused():
    rig = scaled_rig(load_rig('nuscenes_like'), 100)
    renderer = Renderer(make_town())
    with pytest.raises(DataError, match='6 cameras'):
        renderer.render(rig.cameras, np.eye(4)[None], [0.0], CLEAR)
    bent = replace(rig.cameras[0], distortion_model='plumb_bob', distortion=(0.1, 0, 0, 0, 0))
    with pytest.raises(CalibrationError, match='cam_front'):
        renderer.render([bent], np.eye(4)[None], [0.0], CLEAR)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cpu_and_gpu_agree_within_40_db():
    rig = scaled_rig(load_rig('av2_like'), 300)
    pose = pose_on_ground(SLOPE, (0.0, 0.0), 0.0)
    poses = np.stack([pose @ camera.base_from_camera for camera in rig.cameras])
    pictures = [
        Renderer(tree_town(), device).render(rig.cameras, poses, [0.0] * 7, Conditions())
        for device in ('cpu', 'cuda')
    ]
    for one, other in zip(*pictures, strict=True):
        assert psnr(one, other) > 40
