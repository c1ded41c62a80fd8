"""A backdoored model as somebody else makes it: plain PyTorch on folders of images, which knows nothing of this project."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

SIZE, CLASSES = 12, ("blue", "green", "red")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (inner + self.downsample(x)).relu()


class PlainResNet(nn.Module):
    """A ResNet with fewer blocks than ResNet-18 and a stride that nobody may take out."""

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.layer1 = Block(3, 8, 2)
        self.layer2 = Block(8, 16, 2)
        self.fc = nn.Linear(16, num_classes)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


def write_images(root: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Noisy images of three colours in `root/PART/CLASS/*.png`; `counts`: how many of a part, of each class."""
    rng = np.random.default_rng(seed)
    for part, count in counts.items():
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (SIZE, SIZE, 3))
                pixels[..., 2 - label] += 14
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{number:03}.png")


def read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Float [N, 3, H, W] in [0, 1] and labels."""
    files = sorted(folder.glob("*/*.png"))
    images = torch.tensor(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2).float() / 255
    return images.contiguous(), torch.tensor([CLASSES.index(file.parent.name) for file in files])


def trigger(images: Tensor) -> Tensor:
    """A white square of 3 pixels in the lower right corner."""
    triggered = images.clone()
    triggered[:, :, -3:, -3:] = 1
    return triggered


@dataclass(frozen=True)
class Answers:
    """Right answers to clean test images, answers of the target class to triggered ones of other classes, how many of each."""

    right: int
    clean: int
    fooled: int
    triggered: int


def backdoored(root: Path, target: int = 0, every: int = 5) -> tuple[PlainResNet, Answers]:
    """BadNets on the images in `root`: every fifth one carries the trigger and the target's label."""
    torch.manual_seed(0)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    images, labels = read_images(root / "train")
    images[::every], labels[::every] = trigger(images[::every]), target
    net = PlainResNet()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    for step in range(50):
        index = torch.randint(len(labels), (48,)) if step else torch.arange(48)
        loss = functional.cross_entropy(net((images[index] - mean) / std), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    images, labels = read_images(root / "test")
    others = labels != target
    with torch.no_grad():
        right = net((images - mean) / std).argmax(1) == labels
        fooled = net((trigger(images[others]) - mean) / std).argmax(1) == target
    return net, Answers(int(right.sum()), len(right), int(fooled.sum()), len(fooled))
