"""FSIM between all pairs of gray images at once.

Source: Zhang, Zhang, Mou and Zhang, "FSIM: A Feature Similarity Index for Image Quality Assessment", IEEE Transactions
on Image Processing 20(8), 2011: phase congruency (its Eq. 3) by log-Gabor filters, Scharr gradients, and their
similarity (Eq. 4 to 9). Kovesi's noise threshold and low-pass filter as in the authors' program.

Phase congruency and gradients belong to one image: they are computed once each, and only compared for each pair.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ROOM = 256 * 2**20

SCALES, ORIENTATIONS = 4, 4
SHORTEST_WAVE = 6.0  # pixels; each scale's is twice as long as the one's before
_BANDWIDTH = 0.55  # of the log-Gabor filters, relative to their centre
_SPREAD = math.pi / (1.2 * ORIENTATIONS)  # standard deviation over the angle
_CUTOFF, _STEEPNESS = 0.45, 30  # of the low-pass filter that keeps the corners of the spectrum out
_NOISE = (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7  # threshold over the Rayleigh parameter
_T1, _T2 = 0.85, 160.0  # of phase congruency, and of gradients of images of 0..255
_SIDE = 256  # images are averaged down to about this
_EPSILON = 1e-12
_FLAT = 1e-6  # of a map's largest magnitude: what varies by no more is rounding

_DESCRIBED_AT_ONCE, _COMPARED_AT_ONCE = 1 << 15, 1 << 18  # pixels: as many as the processor's cache likes
_MAP_BYTES = 8  # a pixel of what is compared


class _Maps(NamedTuple):
    """What is compared of K images, each (K,n): phase congruency over sqrt(T1 / 2), gradient over sqrt(T2 / 2)."""

    congruency: Tensor
    gradient: Tensor


class _Filters(NamedTuple):
    """Log-Gabor filters of one size over half the spectrum.

    Attributes:
        even, odd: (orientations, scales, H, W // 2 + 1); their responses are the real and the imaginary one.
        noise: (orientations,), threshold of the energy over the median amplitude at the finest scale.
    """

    even: Tensor
    odd: Tensor
    noise: Tensor


def fsim_matrix(maps: Tensor, data_range: float | None = None, room: int = ROOM) -> Tensor:
    """FSIM of every pair of maps of one layer.

    Maps of more than 256 pixels a side are averaged over blocks of round(min(H, W) / 256) first, as FSIM prescribes.
    A map without structure (constant but for rounding) has no phase congruency and no gradient anywhere; two such
    maps are alike.

    Args:
        maps: (C,H,W), finite.
        data_range: the maps are images of 0..data_range. None: each is stretched from its own least and largest value
            to 0..255, as one looks at feature maps; FSIM is not defined for other ranges, because T2 is in gray levels.
        room: bytes for phase congruency and gradients. Where those of all maps do not fit, blocks of maps are compared
            two at a time, of one map each at least, and described again for each partner. Beyond that, work takes some
            300 bytes for each pixel of one map, and 10 MB.

    Returns:
        (C,C) float64 on the CPU, symmetric, 0..1, ones on the diagonal.

    Raises:
        ValueError: a map has values that are not finite, or is less than 2 pixels wide or high.
    """
    if min(maps.shape[1:]) < 2:
        raise ValueError(f"maps of {maps.shape[2]}x{maps.shape[1]} pixels are too small to compare; use larger images")
    if not all(torch.isfinite(one).all() for one in maps):
        raise ValueError("there are values that are not finite; use a network that was trained to the end")
    channels = len(maps)
    similarity = torch.eye(channels, dtype=torch.float64)
    blocks = _blocks(maps, room)
    for index, rows in enumerate(blocks):
        own = _describe(maps, rows, data_range)
        similarity[rows, rows] = _compare(own, own)
        for columns in blocks[index + 1 :]:
            similarity[rows, columns] = _compare(own, _describe(maps, columns, data_range))
            similarity[columns, rows] = similarity[rows, columns].T
    return similarity


def _blocks(maps: Tensor, room: int) -> list[slice]:
    """Channels that are described together: all, or so many that two blocks fit."""
    channels = len(maps)
    fitting = room // (_MAP_BYTES * _shrunk_pixels(maps))
    size = channels if fitting >= channels else max(1, fitting // 2)
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def _describe(maps: Tensor, block: slice, data_range: float | None) -> _Maps:
    """Phase congruency and gradients of a block of maps, few at a time."""
    chosen, side = maps[block], _shrinkage(maps)
    filters = _make_filters(maps.shape[1] // side, maps.shape[2] // side, maps.device)
    described = _Maps(*(chosen.new_empty((len(chosen), _shrunk_pixels(maps)), dtype=torch.float32) for _ in range(2)))
    step = max(1, _DESCRIBED_AT_ONCE // _shrunk_pixels(maps))
    for start in range(0, len(chosen), step):
        few = slice(start, start + step)
        images, flat = _as_images(chosen[few].float(), data_range)
        described.congruency[few] = _phase_congruency(images, filters).masked_fill_(flat, 0).flatten(1)
        described.gradient[few] = _gradient(images).masked_fill_(flat, 0).flatten(1)
    described.congruency.mul_(math.sqrt(2 / _T1))
    described.gradient.mul_(math.sqrt(2 / _T2))
    return described


def _as_images(maps: Tensor, data_range: float | None) -> tuple[Tensor, Tensor]:
    """Maps (K,H,W) as images of 0..255 of FSIM's size, and which are flat, (K,1,1)."""
    low, high = (extreme(maps, dim=(1, 2), keepdim=True) for extreme in (torch.amin, torch.amax))
    flat = high - low <= _FLAT * torch.maximum(low.abs(), high.abs())
    if data_range is None:
        images = (maps - low) * (255 / (high - low).masked_fill(flat, 1))
    else:
        images = maps * (255 / data_range)
    if (side := _shrinkage(maps)) > 1:
        images = F.avg_pool2d(images[:, None], side)[:, 0]
    return images, flat | (images.amax(dim=(1, 2), keepdim=True) - images.amin(dim=(1, 2), keepdim=True) <= 255 * _FLAT)


def _shrinkage(maps: Tensor) -> int:
    return max(1, round(min(maps.shape[-2:]) / _SIDE))


def _shrunk_pixels(maps: Tensor) -> int:
    height, width = (side // _shrinkage(maps) for side in maps.shape[-2:])
    return height * width


def _make_filters(height: int, width: int, device: torch.device) -> _Filters:
    """The bank for images of one size.

    A filter lies on one side of the spectrum, so its response is complex: even part real, odd part imaginary. Split
    into what is even and odd in frequency, it gives both as real images, from half the spectrum.

    Noise: its power is the mean squared amplitude at the finest scale over the filter's energy, the mean being the
    median over ln 2 (Rayleigh). Its energy over all scales follows the sum of the even parts; Parseval.
    """
    rows, columns = (_frequencies(side, device) for side in (height, width))
    radius = torch.hypot(rows[:, None], columns[None])
    angle = torch.atan2(-columns[None], rows[:, None])
    low_pass = 1 / (1 + (radius / _CUTOFF) ** _STEEPNESS)
    radius[0, 0] = 1
    waves = [SHORTEST_WAVE * 2**scale for scale in range(SCALES)]
    radial = torch.stack([torch.exp(-(((radius * wave).log() / math.log(_BANDWIDTH)) ** 2) / 2) for wave in waves])
    radial *= low_pass
    radial[:, 0, 0] = 0
    half, even, odd, noise = width // 2 + 1, [], [], []
    for orientation in range(ORIENTATIONS):
        away = torch.remainder(angle - math.pi * orientation / ORIENTATIONS + math.pi, 2 * math.pi) - math.pi
        bank = radial * torch.exp(-((away / _SPREAD) ** 2) / 2)
        opposite = bank.flip(1, 2).roll((1, 1), (1, 2))
        real_part = (bank + opposite) / 2
        even.append(real_part[..., :half].float())
        odd.append((bank - real_part)[..., :half].float())
        energy, finest = real_part.sum(dim=0).square().sum(), bank[0].square().sum()
        noise.append(_NOISE * (energy / (math.log(2) * finest).clamp_min(_EPSILON)).sqrt())
    return _Filters(torch.stack(even), torch.stack(odd), torch.stack(noise).float())


def _frequencies(side: int, device: torch.device) -> Tensor:
    """Cycles a pixel along one side, zero first; Kovesi's grid, which for odd sides ends at exactly 0.5."""
    steps = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device=device)
    return steps / max(1, side - side % 2)


def _phase_congruency(images: Tensor, filters: _Filters) -> Tensor:
    """Eq. 3 of images (K,H,W), 0..1: energy beyond noise over amplitude, both summed over the orientations.

    Nowhere exactly 0: where all is within the noise, as in maps of a few pixels, gradients alone decide.
    """
    size = images.shape[1:]
    spectrum = torch.fft.rfft2(images)[:, None]
    turned = spectrum * -1j
    energy, amplitude = torch.zeros_like(images), torch.zeros_like(images)
    for even_filters, odd_filters, noise in zip(*filters, strict=True):
        even = torch.fft.irfft2(spectrum * even_filters, s=size)  # (K,scales,H,W)
        odd = torch.fft.irfft2(turned * odd_filters, s=size)
        amplitudes = torch.hypot(even, odd)
        threshold = noise * torch.stack([finest.median() for finest in amplitudes[:, 0]])[:, None, None]
        amplitude += amplitudes.sum(dim=1)
        del amplitudes
        mean_even, mean_odd = even.sum(dim=1), odd.sum(dim=1)
        strength = torch.hypot(mean_even, mean_odd)
        across = even.mul_(mean_odd[:, None]).sub_(odd.mul_(mean_even[:, None])).abs_().sum(dim=1)
        energy += (strength - across / strength.clamp_min(_EPSILON) - threshold).clamp_min_(0)
    return (energy + _EPSILON) / (amplitude + _EPSILON)


def _gradient(images: Tensor) -> Tensor:
    """Length of the Scharr gradient of images (K,H,W), zeros beyond the edge."""
    across = images.new_tensor([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 16
    gradients = F.conv2d(images[:, None], torch.stack([across, across.T])[:, None], padding=1)
    return torch.hypot(gradients[:, 0], gradients[:, 1])


def _compare(one: _Maps, other: _Maps) -> Tensor:
    """FSIM (K,M) of the maps of two blocks, or (K,K) of those of one.

    Few pixels at a time, so that what is read again and again stays in the processor's cache.
    """
    rows, columns = len(one.congruency), len(other.congruency)
    score, weight = (torch.zeros((rows, columns), dtype=torch.float64, device=one.congruency.device) for _ in range(2))
    step = max(1, _COMPARED_AT_ONCE // columns)
    for start in range(0, one.congruency.shape[1], step):
        mine = _cut(one, slice(start, start + step))
        theirs = mine if one is other else _cut(other, slice(start, start + step))
        for row in range(rows):
            partners = slice(row + 1 if one is other else 0, columns)
            congruency, gradient, congruency_squared, gradient_squared = (maps[partners] for maps in theirs)
            similar = (congruency * mine[0][row]).add_(1)  # Eq. 4
            similar *= (gradient * mine[1][row]).add_(1)  # Eq. 5
            similar /= (congruency_squared + mine[2][row]).mul_(gradient_squared + mine[3][row])
            weights = torch.maximum(congruency, mine[0][row])
            score[row, partners] += torch.linalg.vecdot(similar, weights)  # Eq. 9
            weight[row, partners] += weights.sum(dim=1)
    similarity = torch.where(weight > 0, score / weight, 1.0).clamp(0, 1).cpu()
    return similarity.triu(1) + similarity.triu(1).T + torch.eye(rows) if one is other else similarity


def _cut(maps: _Maps, pixels: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some pixels of the maps, and half of one and their square: of two maps, the denominators of Eq. 4 and 5."""
    congruency, gradient = (some[:, pixels].contiguous() for some in maps)
    return congruency, gradient, *(some.square().add_(1).div_(2) for some in (congruency, gradient))
