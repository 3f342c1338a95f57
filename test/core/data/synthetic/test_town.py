"""Towns: the same everywhere, drivable, and with ground truth that is what is painted."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import shapely

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.data.synthetic.scene import BoxKind, Material, Town
from gsmap_core.data.synthetic.town import MAX_SLOPE, generate_town, town_hash
from gsmap_core.errors import ConfigError

TOWNS = [(0, 'normal'), (7, 'normal'), (11, 'normal'), (3, 'easy'), (16, 'easy')]
EXPECTED_HASHES = {
    (0, 'normal'): 'f3d6f88629b28d79eb5d858024212f8fb7507fb67bf15176273943112ed19234',
    (7, 'normal'): '902cd0f220be4a1bb61306ec6da8c9186d6f3f05676bd7b39c4b53357059026b',
    (3, 'easy_occluded'): '30f9fc09cd082b4728ddf499e2bd87ee36d228f3d4c6d69d712a0ba487a0dd7f',
    (3, 'easy'): '1e5d46d9f83d340a900beea02dea21976e41b23081ee3beb924308c832e62d18',
}
every_town = pytest.mark.parametrize(('seed', 'setting'), TOWNS)


@functools.cache
def town_of(seed: int, setting: str) -> Town:
    return generate_town(seed, setting)


@functools.cache
def area_of(seed: int, setting: str, material: Material) -> shapely.Geometry:
    patches = [p for p in town_of(seed, setting).patches if p.material == material]
    return shapely.union_all([shapely.Polygon(p.outline, p.holes) for p in patches])


def area(town: Town, material: Material) -> shapely.Geometry:
    return shapely.union_all(
        [shapely.Polygon(p.outline, p.holes) for p in town.patches if p.material == material]
    )


def paint(town: Town) -> shapely.Geometry:
    return shapely.union_all([area(town, Material.PAINT_WHITE), area(town, Material.PAINT_YELLOW)])


def rings(town: Town) -> list[shapely.Polygon]:
    return [
        shapely.Polygon(element.vertices[:, :2])
        for element in town.elements
        if element.category == PED_CROSSING.id
    ]


def lines(town: Town) -> list[shapely.LineString]:
    return [
        shapely.LineString(element.vertices[:, :2])
        for element in town.elements
        if element.category == DIVIDER.id
    ]


@pytest.mark.parametrize(('seed', 'setting'), list(EXPECTED_HASHES))
def test_the_same_seed_gives_the_same_town(seed: int, setting: str) -> None:
    assert town_hash(generate_town(seed, setting)) == EXPECTED_HASHES[seed, setting]


def test_seed_and_setting_change_the_town() -> None:
    hashes = {town_hash(town_of(seed, setting)) for seed, setting in TOWNS}
    assert len(hashes) == len(TOWNS)
    assert town_hash(town_of(3, 'easy')) != town_hash(town_of(3, 'normal'))


def test_the_hash_sees_a_change_of_two_millimetres() -> None:
    from dataclasses import replace

    town = town_of(0, 'normal')
    moved = replace(town.elements[0], vertices=town.elements[0].vertices + 0.002)
    assert town_hash(replace(town, elements=(moved, *town.elements[1:]))) != town_hash(town)


def test_unknown_setting_and_negative_seed_are_refused() -> None:
    with pytest.raises(ConfigError, match='normal, easy, easy_occluded'):
        generate_town(0, 'hard')
    with pytest.raises(ConfigError, match='-1'):
        generate_town(-1)


@every_town
def test_no_street_climbs_more_than_eight_percent(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    x, y = np.meshgrid(
        np.arange(town.extent[0], town.extent[2], 3.0),
        np.arange(town.extent[1], town.extent[3], 3.0),
    )
    slope = np.linalg.norm(town.ground.gradient(np.stack([x, y], axis=-1)), axis=-1)
    assert slope.max() <= MAX_SLOPE + 1e-9
    if setting == 'easy':
        assert slope.max() == 0.0
    else:
        assert slope.max() > 0.005


@every_town
def test_ground_truth_lies_on_the_ground_even_between_its_vertices(
    seed: int, setting: str
) -> None:
    town = town_of(seed, setting)
    for element in town.elements:
        assert element.has_z
        loop = element.vertices
        if element.closed:
            loop = np.concatenate([loop, loop[:1]])
        middles = (loop[1:] + loop[:-1]) / 2
        heights = town.ground.height(middles[:, :2])
        assert np.abs(heights - middles[:, 2]).max() < 0.02


@every_town
def test_dividers_and_crossings_lie_on_the_asphalt(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    asphalt = area(town, Material.ASPHALT)
    assert all(asphalt.buffer(-0.5).contains(line) for line in lines(town))
    assert all(asphalt.contains(ring) for ring in rings(town))
    assert len(lines(town)) > 5
    assert len(rings(town)) > 3


@every_town
def test_boundaries_are_the_outline_of_the_asphalt(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    outline = area(town, Material.ASPHALT).boundary
    boundaries = [element for element in town.elements if element.category == BOUNDARY.id]
    drawn = shapely.MultiLineString([element.loop_xy() for element in boundaries])
    assert all(element.closed for element in boundaries)
    assert drawn.length == pytest.approx(outline.length, abs=0.01)
    assert outline.hausdorff_distance(drawn) < 1e-3


@every_town
def test_dividers_keep_clear_of_crossings_and_of_each_other(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    crossings = shapely.union_all(rings(town)).buffer(0.25)
    dividers = lines(town)
    for number, line in enumerate(dividers):
        assert not line.intersects(crossings)
        if number:
            assert line.distance(shapely.MultiLineString(dividers[:number])) > 1.5


@every_town
def test_crossings_do_not_overlap(seed: int, setting: str) -> None:
    crossings = rings(town_of(seed, setting))
    for number, ring in enumerate(crossings[1:], start=1):
        assert shapely.distance(ring, crossings[:number]).min() > 0.8


@every_town
def test_every_divider_is_painted_along_its_whole_length(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    painted = paint(town)
    # A double line leaves its middle free: look at a band as wide as the pair.
    grown = painted.buffer(0.2)
    for line in lines(town):
        covered = line.intersection(grown).length / line.length
        assert covered > 0.28
        for end in (line.coords[0], line.coords[-1]):
            assert painted.distance(shapely.Point(end)) < 0.2


@every_town
def test_paint_is_centred_on_the_divider(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    painted = paint(town)
    for line in lines(town):
        left = line.buffer(0.32, single_sided=True).intersection(painted).area
        right = line.buffer(-0.32, single_sided=True).intersection(painted).area
        assert left + right > 0
        # Half the imbalance of a 0.3 m wide marking is how far its middle is off the line.
        assert abs(left - right) / (left + right) * 0.15 < 0.02


@every_town
def test_the_stripes_of_a_crossing_fill_exactly_its_ring(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    painted = paint(town)
    for ring in rings(town):
        stripes = ring.buffer(0.05).intersection(painted)
        assert 0.35 < stripes.area / ring.area < 0.65
        assert stripes.minimum_rotated_rectangle.symmetric_difference(ring).area < 0.15


@every_town
def test_paint_stays_on_the_asphalt(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    assert paint(town).difference(area(town, Material.ASPHALT).buffer(0.01)).area < 1e-6


@every_town
def test_lanes_lead_on_for_ever_and_join_smoothly(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    room = area(town, Material.ASPHALT).buffer(-0.8)
    entered = set()
    for lane, successors in zip(town.lanes, town.lane_successors, strict=True):
        assert successors
        assert room.contains(shapely.LineString(lane))
        for successor in successors:
            entered.add(town.lane_streets[successor])
            following = town.lanes[successor]
            assert np.linalg.norm(lane[-1] - following[0]) < 0.01
            before, after = lane[-1] - lane[-2], following[1] - following[0]
            cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
            assert cosine > np.cos(np.radians(10))
    assert entered == set(town.lane_streets)


@every_town
def test_nothing_stands_on_the_lanes(seed: int, setting: str) -> None:
    town = town_of(seed, setting)
    driven = shapely.union_all([shapely.LineString(lane) for lane in town.lanes]).buffer(1.0)
    asphalt = area(town, Material.ASPHALT)
    for box in town.boxes:
        place = shapely.Point(box.centre_xy)
        assert driven.distance(place) > box.size_m[1] / 2 - 0.1
        assert (box.kind == BoxKind.VEHICLE) == asphalt.contains(place)
    for tree in town.billboards:
        assert not asphalt.contains(shapely.Point(tree.centre_xy))


def test_towns_have_what_the_setting_promises() -> None:
    town = town_of(0, 'normal')
    assert any(box.kind == BoxKind.VEHICLE for box in town.boxes)
    assert not area(town, Material.GRASS).union(area(town, Material.SIDEWALK)).is_empty
    assert any(patch.wear > 0.2 for patch in town.patches)
    widths = {
        sum(1 for street in town.lane_streets if street == label)
        for label in set(town.lane_streets) - {0}
    }
    assert widths == {1, 2, 3}
    size = town.extent[2:] - town.extent[:2]
    assert ((300 < size) & (size < 520)).all()
