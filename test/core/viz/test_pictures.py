"""Pictures show what geometry says: colours are looked for where vertices must land."""

import cv2
import numpy as np
import pytest

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.errors import DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import (
    Camera,
    CameraRig,
    MapElement,
    PerceptionRange,
    SurroundFrame,
    VectorMap,
)
from gsmap_core.viz import video
from gsmap_core.viz.bev import BevStyle, BevView, draw_bev
from gsmap_core.viz.drive_map import DriveMapStyle, draw_map
from gsmap_core.viz.figure import FigureStyle, camera_rows, compose_frame_figure
from gsmap_core.viz.overlay import OverlayStyle, draw_overlay, draw_points, project_polyline

PLAIN = BevStyle(pixels_per_metre=10, ring_step_m=0, vertex_px=0, show_direction=False)
#: Wide enough for a core that anti-aliasing leaves alone.
THICK = OverlayStyle(line_px=8, outline=False)
#: Optical axes: z forward, x right, y down, for a camera that looks along the ego x axis.
EGO_FROM_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def camera(name='cam_front', yaw_deg=0.0, width=320, height=180):
    rotation = rotation_from_rpy(0, 0, np.radians(yaw_deg)) @ EGO_FROM_OPTICAL
    intrinsics = [[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]]
    pose = make_transform(rotation, [1.0, 0.0, 1.5])
    return Camera(name, f'{name}_optical', width, height, np.array(intrinsics), pose)


def frame_of(*cameras, images=None):
    blank = tuple(np.full((c.height_px, c.width_px, 3), 90, np.uint8) for c in cameras)
    return SurroundFrame(5, CameraRig('rig', cameras), blank if images is None else images)


def is_colour(pixel, colour, tolerance=12):
    return bool(np.abs(pixel.astype(int) - np.array(colour)).max() <= tolerance)


def near(image, column, row, colour, radius=1):
    window = image[
        max(int(row) - radius, 0) : int(row) + radius + 1,
        max(int(column) - radius, 0) : int(column) + radius + 1,
    ]
    return any(is_colour(pixel, colour) for pixel in window.reshape(-1, 3))


@pytest.mark.parametrize(
    ('reference', 'heading', 'point', 'pixel'),
    [
        # 60 x 30 m at 10 px/m; ahead is up, left is left.
        ('ego', 'up', (30.0, 15.0), (0, 0)),
        ('ego', 'up', (20.0, 5.0), (100, 100)),
        ('ego', 'right', (20.0, 5.0), (500, 100)),
        ('lidar', 'up', (-5.0, 20.0), (100, 100)),
        ('lidar', 'right', (-5.0, 20.0), (500, 100)),
    ],
)
def test_view_places_metres(reference, heading, point, pixel):
    limits = PerceptionRange() if reference == 'ego' else PerceptionRange(-15, 15, -30, 30)
    view = BevView(limits, reference, 10.0, heading)
    assert view.size_px == ((300, 600) if heading == 'up' else (600, 300))
    np.testing.assert_allclose(view.pixels(point), np.array(pixel) - 0.5)


def test_plan_view_colours_elements_where_they_are():
    line = MapElement(DIVIDER.id, np.array([[-20.0, 5.0], [20.0, 5.0]]))
    ring = MapElement(
        PED_CROSSING.id, np.array([[10.0, -8], [14, -8], [14, -2], [10, -2]]), closed=True
    )
    image = draw_bev(VectorMap((line, ring)), PLAIN)
    assert image.shape == (600, 300, 3)
    assert is_colour(image[200, 100], DIVIDER.colour_rgb)  # x 10, y 5
    assert is_colour(image[450, 100], DIVIDER.colour_rgb)  # x -15, y 5
    assert is_colour(image[520, 100], PLAIN.palette.panel)  # x -22: the line has ended
    assert is_colour(image[180, 170], PED_CROSSING.colour_rgb)  # the closing edge y = -2
    inside = image[180, 200].astype(int)  # tinted, not painted over
    assert inside[2] > inside[0] + 15
    assert not is_colour(inside, PED_CROSSING.colour_rgb)
    assert is_colour(image[300, 150], PLAIN.palette.vehicle)


def test_weak_elements_are_paler_and_below_the_threshold_absent():
    strong, weak = (
        MapElement(BOUNDARY.id, np.array([[-20.0, y], [20.0, y]]), score=score)
        for y, score in ((5.0, 1.0), (-5.0, 0.2))
    )
    everything = draw_bev(VectorMap((strong, weak)), PLAIN)
    assert is_colour(everything[200, 100], BOUNDARY.colour_rgb)
    assert not is_colour(everything[200, 200], BOUNDARY.colour_rgb)
    assert not is_colour(everything[200, 200], PLAIN.palette.panel)
    cut = draw_bev(VectorMap((strong, weak)), PLAIN, min_score=0.5)
    assert is_colour(cut[200, 200], PLAIN.palette.panel)


def test_map_frame_map_has_no_plan_view_around_the_vehicle():
    with pytest.raises(DataError, match="'map'.*expected a local map"):
        draw_bev(VectorMap(reference='map'))


@pytest.mark.parametrize('z', [None, 0.0, 0.6])
def test_overlay_colours_projected_vertices(z):
    vertices = np.array([[8.0, -2.0], [12.0, 2.0], [20.0, 1.0]])
    if z is not None:
        vertices = np.column_stack([vertices, np.full(3, z)])
    view = camera()
    picture = draw_overlay(frame_of(view), VectorMap((MapElement(DIVIDER.id, vertices),)), THICK)[
        0
    ]
    spatial = np.column_stack([vertices[:, :2], np.full(3, z or 0.0)])
    projection = project_points(view, spatial)
    assert projection.is_visible.all()
    for column, row in projection.pixels:
        assert near(picture, column, row, DIVIDER.colour_rgb)
    # Nothing is painted where there is no element, e.g. in the sky.
    assert (picture[:60] == 90).all()


def test_overlay_cuts_lines_at_the_camera_plane():
    # From behind the camera to far ahead: only the part in front may show, and it must.
    line = MapElement(DIVIDER.id, np.array([[-20.0, -1.0], [30.0, -1.0]]))
    view = camera()
    picture = draw_overlay(frame_of(view), VectorMap((line,)), THICK)[0]
    column, row = project_points(view, np.array([[10.0, -1.0, 0.0]])).pixels[0]
    assert near(picture, column, row, DIVIDER.colour_rgb)
    stretches = project_polyline(view, [[-20.0, -1.0, 0.0], [30.0, -1.0, 0.0]], near_m=0.5)
    assert len(stretches) == 1
    expected = project_points(view, np.array([[1.5, -1.0, 0], [30.0, -1.0, 0]])).pixels
    np.testing.assert_allclose(stretches[0], expected, atol=1e-6)
    assert project_polyline(view, [[-20.0, 0, 0], [0.0, 0, 0]]) == []


def test_line_that_leaves_and_returns_gives_two_stretches():
    points = [[5.0, -2, 0], [-5.0, 0, 0], [5.0, 2, 0]]
    assert len(project_polyline(camera(), points)) == 2


def test_overlay_uses_the_extrinsics_of_the_frame():
    view = camera()
    moved = view.base_from_camera.copy()
    moved[:3, 3] += (0.0, 0.8, 0.0)
    blank = np.full((180, 320, 3), 90, np.uint8)
    frame = SurroundFrame(5, CameraRig('r', (view,)), (blank,), base_from_cameras=moved[None])
    line = MapElement(DIVIDER.id, np.array([[6.0, 0.0], [20.0, 0.0]]))
    picture = draw_overlay(frame, VectorMap((line,)), THICK)[0]
    point = np.array([[6.0, 0.0, 0.0]])
    with_motion = project_points(view, point, moved).pixels[0]
    without = project_points(view, point).pixels[0]
    assert near(picture, *with_motion, DIVIDER.colour_rgb)
    assert not near(picture, *without, DIVIDER.colour_rgb)


def test_overlay_of_a_missing_image_and_of_another_reference():
    pictures = draw_overlay(frame_of(camera(), images=(None,)), VectorMap())
    assert pictures[0].shape == (180, 320, 3)
    with pytest.raises(DataError, match="'lidar'"):
        draw_overlay(frame_of(camera()), VectorMap(reference='lidar'))


def test_points_land_on_their_pixels_and_near_ones_win():
    view = camera()
    blank = np.zeros((180, 320, 3), np.uint8)
    points = np.array([[41.0, 0, 1.5, 0.1], [5.0, 0, 1.5, 0.2], [-5.0, 0, 1.5, 0.3]])
    picture = draw_points(blank, view, points, max_depth_m=40.0)
    red, _, blue = picture[90, 160].astype(int)  # both ahead on the optical axis
    assert red > blue
    assert (picture.sum(axis=2) > 0).sum() < 40
    far = draw_points(blank, view, points[:1], max_depth_m=40.0)[90, 160].astype(int)
    assert far[2] > far[0]


def test_cameras_are_laid_out_as_seen_from_the_driver():
    yaws = {'f': 0, 'fr': -55, 'fl': 55, 'b': 180, 'bl': 110, 'br': -110}
    rig = CameraRig('six', tuple(camera(name, yaw) for name, yaw in yaws.items()))
    names = [[rig.names[i] for i in row] for row in camera_rows(rig)]
    assert names == [['fl', 'f', 'fr'], ['bl', 'b', 'br']]
    seven = {'rl': 153, 'rr': -153, 'sl': 99, 'sr': -99, 'fr': -45, 'fl': 45, 'c': 0}
    rig = CameraRig('seven', tuple(camera(name, yaw) for name, yaw in seven.items()))
    names = [[rig.names[i] for i in row] for row in camera_rows(rig)]
    assert names == [['fl', 'c', 'fr'], ['sl', 'rl', 'rr', 'sr']]
    assert camera_rows(CameraRig('one', (camera(),))) == ((0,),)


@pytest.mark.parametrize('with_truth', [True, False])
def test_figure_holds_cameras_and_both_maps(with_truth):
    cameras = [camera(n, y) for n, y in (('fl', 55), ('f', 0), ('fr', -55), ('b', 180))]
    cameras.append(camera('portrait', -120, 180, 320))
    line = MapElement(DIVIDER.id, np.array([[-20.0, 5.0], [20.0, 5.0]]), score=0.9)
    weak = MapElement(PED_CROSSING.id, np.array([[-20.0, -5.0], [20.0, -5.0]]), score=0.1)
    other = MapElement(BOUNDARY.id, np.array([[-20.0, 5.0], [20.0, 5.0]]))
    truth = VectorMap((other,)) if with_truth else None
    picture = compose_frame_figure(
        frame_of(*cameras), VectorMap((line, weak)), truth, style=FigureStyle(width_px=960)
    )
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 960
    assert picture.shape[0] % 2 == 0
    plans = picture[-240:]
    left, right = plans[:, :480], plans[:, 480:]

    def count(region, colour):
        return int((np.abs(region.astype(int) - colour).max(axis=2) <= 20).sum())

    if with_truth:
        assert count(left, DIVIDER.colour_rgb) > 300
        assert count(left, BOUNDARY.colour_rgb) == 0
        assert count(right, BOUNDARY.colour_rgb) > 300
        assert count(right, DIVIDER.colour_rgb) == 0
    assert count(plans, DIVIDER.colour_rgb) > 300
    assert count(plans, PED_CROSSING.colour_rgb) == 0  # below the style's least score


def test_figure_refuses_two_ranges():
    with pytest.raises(DataError, match='same range'):
        compose_frame_figure(
            frame_of(camera()), VectorMap(), VectorMap(range=PerceptionRange(-50, 50, -25, 25))
        )


def test_drive_map_puts_local_maps_into_the_map_frame():
    style = DriveMapStyle(margin_m=5.0, max_pixels_per_metre=10.0, opacity=1.0, line_m=0.4)
    local = MapElement(DIVIDER.id, np.array([[0.0, 3.0], [20.0, 3.0]]), score=1.0)
    # Heading north at (100, 50): 3 m to the left is x = 97, ahead is +y.
    pose = make_transform(rotation_from_rpy(0, 0, np.pi / 2), [100.0, 50.0, 0.0])
    truth = VectorMap(
        (MapElement(BOUNDARY.id, np.array([[94.0, 50.0], [94.0, 70.0]])),), reference='map'
    )
    predicted = VectorMap((local,), map_from_base=pose)
    picture = draw_map([predicted], truth, style=style)
    height = round((20 + 2 * 5) * 10)  # y from 45 to 75
    drawing = picture[-height:]
    width = round((3 + 2 * 5) * 10)  # x from 92 (97 - 5) to 105
    left = (drawing.shape[1] - width) // 2
    assert is_colour(drawing[150, left + 50], DIVIDER.colour_rgb)
    assert is_colour(drawing[150, left + 20], style.palette.truth)
    assert is_colour(drawing[150, left + 35], style.palette.panel)


def test_drive_map_needs_poses_and_something_to_draw():
    line = MapElement(DIVIDER.id, np.array([[0.0, 3.0], [20.0, 3.0]]), score=1.0)
    with pytest.raises(DataError, match='has no pose'):
        draw_map([VectorMap((line,), 7)])
    with pytest.raises(DataError, match='nothing to draw'):
        draw_map([])
    with pytest.raises(DataError, match="'ego'; expected 'map'"):
        draw_map([VectorMap((line,), 7, map_from_base=np.eye(4))], VectorMap())


def colour_frames(count=5, size=(61, 81)):
    for index in range(count):
        yield np.full((*size, 3), (200, 30 + 40 * index, 20), dtype=np.uint8)


def test_film_can_be_read_back(tmp_path):
    result = video.write_video(tmp_path / 'x.mp4', colour_frames(), 5.0)
    assert (result.path.name, result.codec, result.num_frames, result.note) == (
        ('x.mp4', 'mp4v', 5, '')
    )
    reader = cv2.VideoCapture(str(result.path))
    pictures = []
    while True:
        found, picture = reader.read()
        if not found:
            break
        pictures.append(picture[..., ::-1])
    assert len(pictures) == 5
    assert pictures[0].shape == (62, 82, 3)  # even sizes
    for index, picture in enumerate(pictures):
        assert is_colour(picture[30, 40], (200, 30 + 40 * index, 20), 12)
    assert [item.name for item in tmp_path.iterdir()] == ['x.mp4']


def test_film_without_codec_becomes_a_gif_and_says_so(tmp_path, monkeypatch, caplog):
    class Closed:
        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(video, '_open_writer', lambda *_: Closed())
    result = video.write_video(tmp_path / 'x.mp4', colour_frames(), 5.0)
    assert (result.path.name, result.codec, result.num_frames) == ('x.gif', 'gif', 5)
    assert 'cannot write MPEG-4' in result.note
    assert 'cannot write MPEG-4' in caplog.text
    from PIL import Image

    with Image.open(result.path) as film:
        assert film.n_frames == 5
        assert film.info['duration'] == 200


def test_film_refuses_bad_input(tmp_path):
    with pytest.raises(DataError, match='no picture'):
        video.write_video(tmp_path / 'x.mp4', [], 5.0)
    with pytest.raises(DataError, match='picture 1 is uint8'):
        frames = [np.zeros((4, 4, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]
        video.write_video(tmp_path / 'x.mp4', frames, 5.0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"'\*\.mp4' or '\*\.gif'"):
        video.write_video(tmp_path / 'x.avi', colour_frames(), 5.0)
    with pytest.raises(DataError, match='expected a positive number'):
        video.write_video(tmp_path / 'x.mp4', colour_frames(), 0.0)
