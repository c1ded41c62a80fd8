"""What is made before a training is the same bits in every vector code path of torch, and so on every machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import make_dataset
from machine_bits import checksums

from ntml_bench.data import exact
from ntml_bench.data.base import fingerprint
from ntml_bench.machine import has_bfloat16

CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")
"""From the least on; a processor has those up to its own."""

PINNED = {
    "digit_scenes": "b6fdff84ad09e16b",
    "digits of 8 pixels": "b37821ecf7108fe3",
    "digits of 12 pixels": "864a338c9830345a",
    "digits of 28 pixels": "448fe685b1d434c5",
    "digits of 32 pixels": "9d5a2eb97a39a7cd",
    "channel statistics": "c4de1ae34f727a2c",
    "badnets": "57f061a7b65ab792",
    "blended": "543f8e94c80bfdf5",
    "sig": "3b99e2ef29eaae0f",
    "wanet": "40d20771eeb50472",
    "lc": "32354fbfa78867f1",
    "ftrojan": "0752f457b701a5f1",
    "ctrl": "5c2bc10f82c93bcc",
    "bpp": "796ea2d065bcbb53",
    "lf": "caf503488646b810",
    "adaptive_blend": "b8123a95ccf61259",
    "adaptive_patch": "78227fa306303d93",
    "wanet's batches": "94d7aba8bb6c606b",
    "bpp's batches": "8d710ef2f96bffca",
    "blended's shapes": "67c3ed932002be2c",
}


def printed(script: str, **environment: str) -> str:
    """What a script beside this file prints with these variables."""
    there = {**os.environ, **environment}
    folder = Path(__file__).parent
    return subprocess.run([sys.executable, script], env=there, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return checksums()


def test_what_is_made_before_a_training_is_what_it_was(here: dict[str, str]) -> None:
    assert here == PINNED


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_vector_code_path_changes_no_bit(capability: str, here: dict[str, str]) -> None:
    own = torch.backends.cpu.get_cpu_capability()
    if own not in CAPABILITIES or CAPABILITIES.index(capability) > CAPABILITIES.index(own):
        pytest.skip(f"this processor has no {capability}")
    found = json.loads(printed("machine_bits.py", ATEN_CPU_CAPABILITY=capability.lower()))
    assert found == {"capability": capability, **here}


@pytest.mark.slow
def test_the_scenes_of_the_embedded_default_are_these() -> None:
    assert fingerprint(*make_dataset("digit_scenes").raw(Path())) == "2a3f8aec056c675b"


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not has_bfloat16(torch.device("cpu")),
    reason="needs AVX512 and instructions for bfloat16",
)
def test_a_short_training_in_bfloat16_ends_in_the_same_weights() -> None:
    assert printed("machine_training.py", ATEN_CPU_CAPABILITY="avx2") == printed("machine_training.py")


def test_no_direction_is_near_an_edge_of_its_rounding() -> None:
    index = torch.arange(exact.DIRECTIONS, dtype=torch.float64)
    scaled = (index * (2 * torch.pi / exact.DIRECTIONS)).cos() * 2**16
    assert float((scaled - scaled.floor() - 0.5).abs().min()) > 1e-7


def test_draws_have_the_moments_that_they_say() -> None:
    rng = torch.Generator().manual_seed(0)
    normal = exact.gaussian((400_000,), rng)
    assert abs(float(normal.mean())) < 0.01
    assert float(normal.var()) == pytest.approx(1, abs=0.01)
    # Of a normal distribution: 31.7 % are beyond one standard deviation, 4.6 % beyond two.
    assert float((normal.abs() > 1).double().mean()) == pytest.approx(0.317, abs=0.01)
    assert float((normal.abs() > 2).double().mean()) == pytest.approx(0.046, abs=0.004)
    even = exact.uniform(100_000, -2, 3, rng)
    assert (float(even.min()), float(even.max())) == pytest.approx((-2, 3), abs=0.001)
    assert float(even.mean()) == pytest.approx(0.5, abs=0.02)


def test_turned_is_cosine_and_sine() -> None:
    turns = torch.linspace(-1.5, 1.5, 1001, dtype=torch.float64)
    cosine, sine = exact.turned(turns)
    assert torch.allclose(cosine, (2 * torch.pi * turns).cos(), atol=3e-4)
    assert torch.allclose(sine, (2 * torch.pi * turns).sin(), atol=3e-4)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("aligned", [False, True])
def test_resampling_is_that_of_torch_but_for_the_rounding_of_its_weights(mode: str, aligned: bool) -> None:
    image = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(image[None], (13, 13), mode=mode, align_corners=aligned)[0]
    place = torch.arange(13, dtype=torch.float64)
    positions = place * 4 / 12 if aligned else (place + 0.5) * 5 / 13 - 0.5
    weights = exact.linear_weights(positions, 5) if mode == "bilinear" else exact.cubic_weights(positions, 5, beyond=2)
    assert torch.allclose(exact.resampled(image, weights, weights), expected, atol=2e-3)
