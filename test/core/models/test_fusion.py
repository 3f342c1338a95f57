"""Temporal fusion: the equations by hand, the memory, and streams that do not see each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsmap_core.config import BevConfig, FusionConfig, ModelConfig
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.models.bev_warp import BevWarp, inverse
from gsmap_core.models.fusion import ConvGru, FusionState, TemporalFusion
from gsmap_core.structures import PerceptionRange

KINDS = ('streaming', 'keyframe_streaming', 'keyframe_stacking')
DIMS, ROWS, COLUMNS = 8, 24, 12


def model(kind: str, **changes: object) -> TemporalFusion:
    """Return a fusion on 24 x 12 cells of 2.5 m, in eval mode, the same one for every call."""
    torch.manual_seed(0)
    config = ModelConfig(
        name='fusing',
        embed_dims=DIMS,
        range=PerceptionRange(-30, 30, -15, 15),
        bev=BevConfig(num_rows=ROWS, num_columns=COLUMNS),
        fusion=FusionConfig(kind=kind, **changes),  # type: ignore[arg-type]
    )
    return TemporalFusion(config).eval()


def bev(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, DIMS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def poses(*x_m: float) -> torch.Tensor:
    """Poses of B streams on one road, (B, 4, 4)."""
    return torch.from_numpy(np.stack([make_transform(translation=[x, 0, 0]) for x in x_m]))


def drive(
    fusion: TemporalFusion, x_m: list[float], state: FusionState | None = None
) -> tuple[list[torch.Tensor], FusionState]:
    """Drive one stream along x and return all maps and the last state."""
    outputs = []
    with torch.no_grad():
        for index, x in enumerate(x_m):
            fused, state = fusion(bev(index), poses(x), None, state)
            outputs.append(fused)
    assert state is not None
    return outputs, state


def test_gru_is_the_formula() -> None:
    """One cell, one channel, 1x1: by hand, before the normalisation over channels."""
    gru = ConvGru(1, 1, tanh=True)
    gru.norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        gru.gates.weight.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.25]])[:, :, None, None])
        gru.candidate.weight.copy_(torch.tensor([[-0.75, 1.5]])[:, :, None, None])
    h, x = 0.8, -0.4
    z = 1 / (1 + np.exp(-(0.5 * h - 1.0 * x)))
    r = 1 / (1 + np.exp(-(2.0 * h + 0.25 * x)))
    q = np.tanh(-0.75 * r * h + 1.5 * x)
    one = torch.ones(1, 1, 1, 1)
    assert gru(h * one, x * one).item() == pytest.approx((1 - z) * h + z * q, abs=1e-6)
    gru.tanh = False
    q = -0.75 * r * h + 1.5 * x
    assert gru(h * one, x * one).item() == pytest.approx((1 - z) * h + z * q, abs=1e-6)


def test_gru_normalises_over_channels() -> None:
    gru = ConvGru(DIMS, 3, tanh=False)
    out = gru(bev(0), bev(1))
    assert torch.allclose(out.mean(1), torch.zeros(1, ROWS, COLUMNS), atol=1e-5)
    assert torch.allclose(out.var(1, unbiased=False), torch.ones(1, ROWS, COLUMNS), atol=1e-3)
    assert gru.gates.bias is None and gru.candidate.bias is None


def test_local_fusion_is_equations_1_and_2() -> None:
    fusion = model('streaming')
    outputs, state = drive(fusion, [0.0, 3.0, 4.5])
    warp = BevWarp(
        ModelConfig(bev=BevConfig(num_rows=ROWS, num_columns=COLUMNS), fusion=FusionConfig()).grid
    )
    with torch.no_grad():
        submap = fusion.local_blocks(fusion.local_gru(bev(0), bev(0)))
        assert torch.allclose(outputs[0], submap, atol=1e-6)
        for index, (before, now) in enumerate(((0.0, 3.0), (3.0, 4.5)), start=1):
            warped = warp(submap, inverse(poses(before)) @ poses(now))
            submap = fusion.local_blocks(fusion.local_gru(warped, bev(index)))
            assert torch.allclose(outputs[index], submap, atol=1e-5)
    assert torch.equal(state.submap, outputs[-1]) and state.memory.shape[1] == 0


def test_global_streaming_is_equations_3_and_4() -> None:
    fusion = model('keyframe_streaming')
    x_m = [0.0, 3.0, 6.0, 8.0]
    outputs, state = drive(fusion, x_m)
    submaps, _ = drive(_local_only(fusion), x_m)
    # Key frames: the first one, and that at 6 m.
    key_frames = {0: None, 1: 0, 2: 0, 3: 2}
    with torch.no_grad():
        for index, key in key_frames.items():
            memory = submaps[index]
            if key is not None:
                motion = inverse(poses(x_m[key])) @ poses(x_m[index])
                memory = fusion.warp(outputs[key], motion)
            expected = fusion.global_gru(memory, submaps[index])  # type: ignore[misc]
            assert torch.allclose(outputs[index], expected, atol=1e-5)
    assert state.num_key_frames.tolist() == [2]
    assert torch.equal(state.memory[:, 0], outputs[2])


@pytest.mark.parametrize('missing', ['current', 'zeros'])
def test_stacking_is_equations_5_and_6(missing: str) -> None:
    fusion = model('keyframe_stacking', num_previous=2, missing=missing)
    x_m = [0.0, 6.0, 12.0, 13.0, 18.0, 19.0]
    outputs, state = drive(fusion, x_m)
    submaps, _ = drive(_local_only(fusion), x_m)
    before: dict[int, list[int]] = {0: [], 1: [0], 2: [0, 1], 3: [1, 2], 4: [1, 2], 5: [2, 4]}
    with torch.no_grad():
        for index, keys in before.items():
            now = submaps[index]
            absent = now if missing == 'current' else torch.zeros_like(now)
            maps = [absent] * (2 - len(keys))
            for key in keys:
                motion = inverse(poses(x_m[key])) @ poses(x_m[index])
                maps.append(fusion.warp(submaps[key], motion))
            stacked = torch.cat([*maps, now], dim=1)
            expected = fusion.stacking.blocks(stacked)  # type: ignore[union-attr]
            assert torch.allclose(outputs[index], expected, atol=1e-5)
    assert state.num_key_frames.tolist() == [4]


def _local_only(fusion: TemporalFusion) -> TemporalFusion:
    """Return plain streaming with the same local weights."""
    local = model('streaming')
    local.local_gru, local.local_blocks = fusion.local_gru, fusion.local_blocks
    return local


def test_key_frame_rules() -> None:
    x_m = [0.0, 2.0, 4.0, 5.0, 4.0, 2.0, 0.0, -1.0]
    travelled = drive(model('keyframe_streaming'), x_m)[1]
    # 5 m on, and 5 m of way later on the way back.
    assert travelled.num_key_frames.tolist() == [3]
    assert travelled.travelled_m.tolist() == pytest.approx([11.0])
    assert drive(model('keyframe_streaming', stride_m=6.0), x_m)[1].num_key_frames.tolist() == [2]
    # As the crow flies: at 5 m, and back at 0 m.
    euclidean = drive(model('keyframe_streaming', keyframe_rule='euclidean'), x_m)[1]
    assert euclidean.num_key_frames.tolist() == [3]
    every = drive(model('keyframe_streaming', keyframe_rule='every_k', every_k=3), x_m)[1]
    assert every.num_key_frames.tolist() == [3]
    assert every.memory_frames.tolist() == [[6]]


def test_noise_of_a_standing_vehicle_makes_no_key_frames() -> None:
    generator = np.random.default_rng(0)
    noisy = [float(x) for x in generator.normal(0, 0.02, 150)]
    state = drive(model('keyframe_streaming'), noisy)[1]
    assert state.num_key_frames.tolist() == [1] and state.travelled_m.item() < 0.3
    slow = [0.1 * i for i in range(150)]
    state = drive(model('keyframe_streaming'), slow)[1]
    assert state.travelled_m.item() == pytest.approx(14.9)
    assert state.num_key_frames.tolist() == [3]


@pytest.mark.parametrize('kind', KINDS)
def test_streams_of_a_batch_do_not_see_each_other(kind: str) -> None:
    """Three streams at different speeds, one restarting in between, equal three alone."""
    fusion = model(kind)
    speeds, restart = (1.0, 3.0, 0.0), 6
    together: list[torch.Tensor] = []
    state = None
    with torch.no_grad():
        for index in range(12):
            if index == restart:
                assert state is not None
                state = state.reset([False, True, False])
            frames = torch.cat([bev(100 * row + index) for row in range(3)])
            fused, state = fusion(frames, poses(*(s * index for s in speeds)), None, state)
            together.append(fused)
        for row, speed in enumerate(speeds):
            alone = None
            for index in range(12):
                if row == 1 and index == restart:
                    alone = None
                fused, alone = fusion(bev(100 * row + index), poses(speed * index), None, alone)
                # Rounding differs with the batch size, and normalisations enlarge it.
                assert torch.allclose(fused[0], together[index][row], atol=1e-3)
    assert state is not None and state.num_frames.tolist() == [12, 6, 12]


@pytest.mark.parametrize('kind', KINDS)
def test_a_lost_pose_maps_alone_and_keeps_the_memory(kind: str) -> None:
    fusion = model(kind)
    outputs, state = drive(fusion, [0.0, 6.0, 12.0])
    lost = torch.full((1, 4, 4), torch.nan, dtype=torch.float64)
    with torch.no_grad():
        alone, after = fusion(bev(9), lost, None, state)
        assert torch.allclose(alone, fusion(bev(9), poses(0.0))[0], atol=1e-6)
        for name, value in state.save().items():
            assert torch.equal(value, after.save()[name]), name
        # A stream that begins without a pose begins with the first one.
        _, started = fusion(bev(9), lost)
        assert started.num_frames.tolist() == [0] and not started.has_submap.any()
        again, begun = fusion(bev(9), poses(50.0), None, started)
    assert torch.allclose(again, alone, atol=1e-6) and begun.travelled_m.tolist() == [0.0]


@pytest.mark.parametrize('kind', KINDS)
def test_state_is_a_value(kind: str) -> None:
    fusion = model(kind)
    _, state = drive(fusion, [0.0, 3.0, 7.0])
    kept = {name: value.clone() for name, value in state.save().items()}
    first = drive(fusion, [8.0, 14.0], state)
    for name, value in state.save().items():
        assert torch.equal(value, kept[name]), name
    restored = FusionState.restore(kept)
    second = drive(fusion, [8.0, 14.0], restored.to('cpu').detach())
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    fresh = state.reset([True])
    for name, value in fusion.create_state(1).save().items():
        assert torch.equal(value, fresh.save()[name]), name
    assert state.reset([False]) is state
    with pytest.raises(DataError, match='one flag for each of 1 streams'):
        state.reset([True, False])
    with pytest.raises(DataError, match='expected submap'):
        FusionState.restore({'submap': kept['submap']})


def test_training_draws_earlier_submaps_at_random_in_range() -> None:
    fusion = model('keyframe_stacking', num_previous=2, num_candidates=5).train()
    assert fusion.num_slots == 5
    usable = torch.tensor([[True] * 5, [False, False, True, True, True], [False] * 5])
    strides = torch.tensor([[2.5, 1.5, 1.0, 0.6, 0.2]] * 3, dtype=torch.float64)
    torch.manual_seed(3)
    drawn = torch.stack([fusion._drawn_slots(usable, strides) for _ in range(300)])
    assert (drawn[..., 0] < drawn[..., 1]).all()
    # Of the first stream, all but the one that is farther back than two strides.
    assert set(drawn[:, 0].flatten().tolist()) == {1, 2, 3, 4}
    assert set(drawn[:, 1].flatten().tolist()) == {2, 3, 4}
    pairs = {tuple(pair) for pair in drawn[:, 0].tolist()}
    assert len(pairs) == 6
    torch.manual_seed(3)
    again = torch.stack([fusion._drawn_slots(usable, strides) for _ in range(300)])
    assert torch.equal(drawn, again)
    # Fast: one in range, so the latest one behind it comes along, always.
    fast = fusion._drawn_slots(usable[:1], 1.6 * torch.arange(5, 0, -1).double()[None])
    assert fast.tolist() == [[3, 4]]


def test_drawn_submaps_are_stacked_like_key_frames() -> None:
    """With as many candidates as key frames, training has nothing to choose."""
    options = {'num_previous': 2, 'num_candidates': 2}
    live = model('keyframe_stacking', **options)
    trained = model('keyframe_stacking', **options).train()
    # Only the choice is to be that of training, not the normalisation.
    for part in trained.children():
        part.eval()
    x_m = [0.0, 6.0, 12.0, 13.0, 18.0]
    for one, other in zip(drive(live, x_m)[0], drive(trained, x_m)[0], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_candidates_cover_the_range_however_slow() -> None:
    fusion = model('keyframe_stacking', num_previous=4, num_candidates=10).train()
    _, state = drive(fusion, [0.5 * i for i in range(90)])
    assert state.memory.shape[1] == 10 and state.has_memory.all()
    back = state.travelled_m[:, None] - state.memory_travelled_m
    assert back.max() >= 17.9 and back.min() <= 2.0
    with pytest.raises(DataError, match='1 streams with 10 maps.*take 1 with 4'):
        fusion.eval()(bev(0), poses(0.0), None, state)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients(kind: str) -> None:
    """Every weight gets one; earlier frames do not, unless asked for."""
    fusion = model(kind).train()
    _, state = fusion(bev(0), poses(0.0))
    first = bev(1).requires_grad_()
    _, state = fusion(first, poses(6.0), None, state)
    assert not any(value.requires_grad for value in state.save().values())
    fused, _ = fusion(bev(2), poses(9.0), None, state)
    (fused * torch.randn_like(fused)).sum().backward()
    assert first.grad is None
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name

    open_ended = model(kind, detach_memory=False).train()
    _, state = open_ended(first, poses(6.0))
    fused, later = open_ended(bev(2), poses(9.0), None, state)
    (fused * torch.randn_like(fused)).sum().backward()
    assert first.grad is not None and first.grad.any()
    assert not later.detach().submap.requires_grad


@pytest.mark.parametrize('kind', KINDS)
def test_a_network_that_has_to_remember_learns_to(kind: str) -> None:
    """Marks are seen in one frame only and asked for in the next one, a cell farther on.

    Without memory nothing is better than the share of marks: 0.61 nats.
    """
    fusion = model(kind).train()
    read = torch.nn.Conv2d(DIMS, 1, 1)
    optimiser = torch.optim.AdamW([*fusion.parameters(), *read.parameters()], lr=1e-2)
    for _ in range(50):
        marks = (torch.rand(4, 1, ROWS, COLUMNS) < 0.3).float()
        seen = torch.cat([marks, torch.ones(4, DIMS - 1, ROWS, COLUMNS)], dim=1)
        with torch.no_grad():
            _, state = fusion(seen, poses(0.0, 0.0, 0.0, 0.0))
        fused, _ = fusion(torch.zeros_like(seen), poses(2.5, 2.5, 2.5, 2.5), None, state)
        loss = functional.binary_cross_entropy_with_logits(read(fused)[:, :, 1:], marks[:, :, :-1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3


def test_turning_on_the_spot_keeps_what_was_seen_in_place() -> None:
    """With a GRU that only remembers, the map turns with the vehicle."""
    fusion = model('streaming', num_residual_blocks=0)
    fusion.local_gru = _Remember()  # type: ignore[assignment]
    turned = torch.from_numpy(make_transform(rotation_from_rpy(0, 0, np.pi), [0, 0, 0]))[None]
    _, state = fusion(bev(0), poses(0.0))
    fused, _ = fusion(bev(1), turned, None, state)
    assert torch.allclose(fused, bev(0).flip(-1, -2), atol=1e-4)


class _Remember(torch.nn.Module):
    def forward(self, memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return memory


def test_options_change_the_network() -> None:
    def count(kind: str, **changes: object) -> int:
        return sum(p.numel() for p in model(kind, **changes).parameters())

    gru, block = 3 * 2 * DIMS * DIMS, 2 * DIMS * DIMS * 9 + 4 * DIMS
    norm = 2 * DIMS
    assert count('streaming') == 9 * gru + norm + block
    assert count('streaming', gru_kernel=1, num_residual_blocks=2) == gru + norm + 2 * block
    assert count('keyframe_streaming') == 2 * (9 * gru + norm) + block
    narrow = 5 * DIMS * DIMS * 9 + 2 * DIMS
    assert count('keyframe_stacking') == 9 * gru + norm + block + narrow + block
    wide = 5 * DIMS
    blocks = 11 * wide**2 + 6 * wide
    last = 10 * wide**2 + wide * DIMS + 4 * wide + 2 * DIMS + wide * DIMS + 2 * DIMS
    assert count('keyframe_stacking', num_wide_blocks=2) == (
        9 * gru + norm + block + blocks + last
    )


def test_impossible_settings_are_refused() -> None:
    for changes, text in (
        ({'num_previous': 0}, 'num_previous is 0'),
        ({'num_candidates': 2}, 'at least num_previous 4'),
        ({'stride_m': 0.1}, 'more than odometer_step_m'),
        ({'num_wide_blocks': -1}, 'num_wide_blocks is -1'),
    ):
        with pytest.raises(ConfigError, match=text):
            FusionConfig(kind='keyframe_stacking', **changes)  # type: ignore[arg-type]
    bev_config = BevConfig(order='official', can_bus=True, history=True)
    with pytest.raises(ConfigError, match='one way to carry BEV maps'):
        ModelConfig(bev=bev_config, fusion=FusionConfig(kind='streaming'))
    with pytest.raises(DataError, match='float32.*expected float64'):
        model('streaming')(bev(0), poses(0.0).float())
    with pytest.raises(DataError, match=r'\(1, 4, 4\).*expected .*\(2, 4, 4\)'):
        model('streaming')(bev(0, 2), poses(0.0))
    with pytest.raises(DataError, match='take 2 with'):
        fusion = model('streaming')
        fusion(bev(0, 2), poses(0.0, 0.0), None, fusion.create_state(1))


def test_half_precision_keeps_the_memory_in_float32() -> None:
    fusion = model('keyframe_streaming')
    exact, _ = drive(fusion, [0.0, 3.0, 6.0])
    with torch.autocast('cpu', torch.bfloat16):
        half, state = drive(fusion, [0.0, 3.0, 6.0])
    assert half[-1].dtype == torch.float32 and state.memory.dtype == torch.float32
    assert torch.allclose(half[-1], exact[-1], atol=0.1)
    assert not torch.equal(half[-1], exact[-1])
    assert replace(state, num_frames=state.num_frames + 1).num_bytes == state.num_bytes
