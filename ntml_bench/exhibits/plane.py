"""A plane through a model's features on which the target class stands apart from the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = 1e-7
"""A difference that is this share of the features themselves is one of rounding: they are single precision at best."""


@dataclass(frozen=True)
class Plane:
    """`origin` and the two `axes`, float64 [D] and [D, 2]; a feature's place is its distance from the origin along each."""

    origin: Tensor
    axes: Tensor

    def places(self, features: Tensor) -> Tensor:
        """Float32 [N, 2] of features float [N, D]."""
        return ((features.double() - self.origin) @ self.axes).float()


def plane_of(features: Tensor, labels: Tensor, target_class: int | None) -> Plane:
    """The plane of clean images: their features float [N, D] and labels int64 [N].

    x leads from the mean of the other classes, the origin, to that of the target class, which is at x = 1. y is the first
    principal component of what is left without x, in the same scale; of its two directions the one in which the mean of the
    first other class lies. Where the two means are one, or one of them is missing, x says nothing, and is 0 everywhere.

    Without a target class (None) x and y are the first two principal components, from the mean of all, in units of the
    standard deviation along x.
    """
    features = features.double()
    if target_class is None:
        return _principal_plane(features)
    target = labels == target_class
    others = features[~target] if not target.all() else features
    origin = others.mean(0)
    way = features[target].mean(0) - origin if target.any() else torch.zeros_like(origin)
    distance = float(way.norm())
    length = float(features.norm(dim=1).max())
    if distance <= NOTHING * length:
        way, distance = torch.zeros_like(way), length or 1.0
    unit = way / distance
    centred = features - features.mean(0)
    up = _principal(centred - (centred @ unit)[:, None] * unit, NOTHING * length)
    first = features[labels == labels[~target].min()] if not target.all() else features
    if float((first.mean(0) - origin) @ up) < 0:
        up = -up
    return Plane(origin, torch.stack([unit, up], dim=1) / distance)


def _principal_plane(features: Tensor) -> Plane:
    origin = features.mean(0)
    centred = features - origin
    length = float(features.norm(dim=1).max())
    right = _principal(centred, NOTHING * length)
    along = centred @ right
    up = _principal(centred - along[:, None] * right, NOTHING * length)
    scale = float(along.square().mean().sqrt()) or 1.0
    return Plane(origin, torch.stack([right, up], dim=1) / scale)


def _principal(centred: Tensor, least: float) -> Tensor:
    """The direction of length 1 in which float64 [N, D] has the largest spread; zeros where that spread is `least` or less."""
    # N is small where D need not be: from the products of the images with each other.
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    direction = centred.T @ vectors[:, -1]
    length = direction.norm()
    return direction / length if float(length) > least else torch.zeros_like(direction)
