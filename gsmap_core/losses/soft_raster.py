"""Lines and polygons drawn as soft masks that their vertices can be moved by (MapVR).

Everything is in pixels: x along columns, y along rows, pixel centres at whole numbers. With d2 the
squared distance of a pixel to the nearest edge, a line has the value exp(-d2 / 2) and a polygon
sigmoid(s * d2 / 4), where s is 1 inside and -1 outside by the even-odd rule.

Two differences to the published operator:

- The gradient is the derivative of these values. The published backward pass applies the polygon's
  derivative to lines as well, which damps it away from the line and reverses it closer than about
  1.18 px.
- A line is published as the closed loop that walks it there and, shifted by 0.01 px, back again.
  Here it is walked once; the distances differ by less than 0.015 px.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: What squared distances are divided by [px^2].
LINE_SOFTNESS = 2.0
POLYGON_SOFTNESS = 4.0
#: Beyond that many softnesses a value is its limit, 0 or 1, to 5e-8. Such pixels have no gradient,
#: so that the memory it takes grows with the length of an element and not with the canvas.
_MAX_EXPONENT = 17.0
#: Added to squared edge lengths, so that edges without length have a nearest point [px^2].
_LENGTH_EPS = 1e-5
#: Pixels that are searched together: few enough for the cache of a CPU, many for other devices.
_CACHED_PIXELS = 2**15
_DEVICE_PIXELS = 2**24


def render_vectors(points: Tensor, areas: Tensor, rows: int, columns: int) -> Tensor:
    """Draw elements as soft masks.

    Args:
        points: (T, P, 2) float x, y of the vertices in order [px], P >= 1; a polygon's last vertex
            is joined to its first, whether it repeats it or not.
        areas: (T,) bool, True: drawn as a polygon, False: as a line.
        rows: H of the canvas.
        columns: W of the canvas.

    Returns:
        (T, H, W) in [0, 1], with gradients to the points; NaN where an element's points are not
        finite.

    Source: MapVR, differentiable rasteriser.
    """
    usable = points.isfinite().all(dim=(1, 2)) if len(points) else areas
    clean = points if bool(usable.all()) else points.nan_to_num(0.0, 0.0, 0.0)
    edges = _edges(clean, areas)
    softness = torch.where(areas, POLYGON_SOFTNESS, LINE_SOFTNESS).to(points)
    with torch.no_grad():
        pixel, edge = _nearest_edges(edges, (_MAX_EXPONENT * softness).sqrt(), rows, columns)
        inside = _insides(edges, areas, rows, columns)
    element = edge.div(edges.shape[1], rounding_mode='floor')
    centres = torch.stack([pixel % columns, pixel.div(columns, rounding_mode='floor') % rows], 1)
    squared = _squared_distances(centres.to(points), edges.flatten(0, 1).index_select(0, edge))
    exponent = squared / softness[element]
    limits = inside.flatten().to(points)
    signed = torch.where(limits[pixel] > 0.5, exponent, -exponent)
    values = torch.where(areas[element], signed.sigmoid(), (-exponent).exp())
    masks = limits.scatter(0, pixel, values).view(len(points), rows, columns)
    return masks if clean is points else masks.masked_fill(~usable[:, None, None], torch.nan)


def draw_binary(
    pixels: Tensor, filled: Tensor, rows: int, columns: int, width_px: float
) -> Tensor:
    """Draw lines as binary masks, some of them with what they enclose.

    A pixel is set whose centre is no farther from the line than half its width. Drawing programs
    round vertices and widths to whole pixels: OpenCV's thickness 3 is five pixels wide.

    Args:
        pixels: (E, P, 2) x, y of the vertices in order [px].
        filled: (E,) bool, True: the inside belongs to it.
        rows: H of the canvas.
        columns: W of the canvas.
        width_px: of the lines [px].

    Returns:
        (E, H, W) of 0 and 1 in the type of the vertices, without gradients.
    """
    lines = torch.zeros_like(filled)
    least = math.exp(-((width_px / 2) ** 2) / LINE_SOFTNESS)
    masks = render_vectors(pixels, lines, rows, columns) >= least
    if bool(filled.any()):
        masks[filled] |= render_vectors(pixels[filled], filled[filled], rows, columns) > 0.5
    return masks.to(pixels.dtype)


def _edges(points: Tensor, areas: Tensor) -> Tensor:
    """Return (T, P, 4) x, y of both ends of every edge [px].

    The last edge of a polygon leads back to the first vertex; that of a line has no length.
    """
    closing = torch.where(areas[:, None, None], points[:, :1], points[:, -1:])
    return torch.cat([points, torch.cat([points[:, 1:], closing], dim=1)], dim=2)


def _squared_distances(centres: Tensor, edges: Tensor) -> Tensor:
    """Return (K,) squared distances of pixel centres (K, 2) to edges (K, 4) [px^2]."""
    start, along = edges[:, :2], edges[:, 2:] - edges[:, :2]
    offset = centres - start
    share = (offset * along).sum(1) / (along.square().sum(1) + _LENGTH_EPS)
    return (offset - share.clamp(0.0, 1.0)[:, None] * along).square().sum(1)


def _nearest_edges(edges: Tensor, reach: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Find the pixels near every element and the edge that each of them is nearest to.

    Args:
        edges: (T, S, 4) both ends [px].
        reach: (T,) distance up to which pixels are wanted [px].
        rows: H.
        columns: W.

    Returns:
        pixel (K,) int64 in the flattened (T, H, W), every pixel at most once, and edge (K,) int64
        in the flattened (T, S).
    """
    limit = _CACHED_PIXELS if edges.device.type == 'cpu' else _DEVICE_PIXELS
    size = max(1, limit // (rows * columns))
    pixels = [torch.zeros(0, dtype=torch.int64, device=edges.device)]
    nearest = [pixels[0]]
    for first in range(0, len(edges), size):
        block = edges[first : first + size]
        squared, owner = _nearest_in_block(block, rows, columns)
        near = (squared <= reach[first : first + size].square()[:, None, None]).flatten()
        pixel = near.nonzero()[:, 0]
        element = pixel.div(rows * columns, rounding_mode='floor') + first
        pixels.append(pixel + first * rows * columns)
        nearest.append(element * edges.shape[1] + owner.flatten()[pixel])
    return torch.cat(pixels), torch.cat(nearest)


def _nearest_in_block(edges: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return (T, H, W) least squared distances and the int16 index of the edge that gives them.

    One edge of every element at a time, in place: the block stays in the cache of a CPU.
    """
    x = torch.arange(columns, device=edges.device, dtype=edges.dtype)
    y = torch.arange(rows, device=edges.device, dtype=edges.dtype)
    x0, y0, x1, y1 = edges.unbind(2)
    along_x, along_y = x1 - x0, y1 - y0
    squared_length = along_x.square() + along_y.square() + _LENGTH_EPS
    from_x, from_y = x - x0[..., None], y - y0[..., None]  # (T, S, W) and (T, S, H)
    share_x = from_x * (along_x / squared_length)[..., None]
    share_y = from_y * (along_y / squared_length)[..., None]
    shape = (len(edges), rows, columns)
    least = edges.new_full(shape, torch.inf)
    owner = torch.zeros(shape, dtype=torch.int16, device=edges.device)
    share, off_x, off_y = (torch.empty_like(least) for _ in range(3))
    for index in range(edges.shape[1]):
        torch.add(share_x[:, index, None, :], share_y[:, index, :, None], out=share)
        share.clamp_(0.0, 1.0)
        back_x, back_y = -along_x[:, index, None, None], -along_y[:, index, None, None]
        torch.addcmul(from_x[:, index, None, :], share, back_x, out=off_x)
        torch.addcmul(from_y[:, index, :, None], share, back_y, out=off_y)
        squared = off_x.square_().addcmul_(off_y, off_y)
        owner.masked_fill_(squared < least, index)
        torch.minimum(least, squared, out=least)
    return least, owner


def _insides(edges: Tensor, areas: Tensor, rows: int, columns: int) -> Tensor:
    """Return (T, H, W) bool: pixel centres inside a polygon by the even-odd rule."""
    result = torch.zeros(len(edges), rows, columns, dtype=torch.bool, device=edges.device)
    chosen = areas.nonzero()[:, 0]
    if not len(chosen):
        return result
    x0, y0, x1, y1 = edges[chosen].unsqueeze(-1).unbind(2)  # (A, S, 1) each
    y = torch.arange(rows, device=edges.device, dtype=edges.dtype)
    crosses = (y0 <= y) != (y1 <= y)  # (A, S, H)
    slope = (x1 - x0) / torch.where(y1 == y0, torch.ones_like(y0), y1 - y0)
    # The first column right of the crossing; in the last bucket no column is.
    bucket = (x0 + (y - y0) * slope).ceil().clamp(0, columns).long()
    flips = torch.zeros(len(chosen), rows, columns + 1, dtype=torch.int32, device=edges.device)
    flips.scatter_add_(2, bucket.transpose(1, 2), crosses.transpose(1, 2).to(torch.int32))
    result[chosen] = flips[..., :columns].cumsum(2) % 2 == 1
    return result
