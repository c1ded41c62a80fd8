"""The ordinary way to train and evaluate, to compare with: PIL images, per-image transforms, a DataLoader, float32.

What a tutorial shows and most published code does. Nothing of the project's own is in here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ntml_bench.bench.timing import passes


class PilImages(Dataset[tuple[Tensor, int]]):
    """As torchvision's data sets are: PIL images, each of which goes through `transform` when it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Any]) -> None:
        """`images` uint8 [N, 3, H, W], `labels` int64 [N], both on the CPU."""
        self.images = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
        self.labels: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def train_one_epoch(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Mean loss of the epoch."""
    net.train()
    criterion = nn.CrossEntropyLoss()
    total = 0.0
    for batch, answers in loader:
        images, labels = batch.to(device), answers.to(device)
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def accuracy(net: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Share (0 to 1) of images that are classified right."""
    net.eval()
    correct, count = 0, 0
    with torch.no_grad():
        for batch, answers in loader:
            images, labels = batch.to(device), answers.to(device)
            correct += (net(images).argmax(dim=1) == labels).sum().item()
            count += len(labels)
    return correct / count


class Reference(ABC):
    """What training and inference share: a loader over PIL images, with `workers` processes that stay alive between epochs."""

    shuffled = False

    def __init__(
        self,
        net: nn.Module,
        images: Tensor,
        labels: Tensor,
        statistics: tuple[Tensor, Tensor],
        device: torch.device,
        batch_size: int,
        workers: int,
    ) -> None:
        """`net` is on `device` and wants normalised images; `statistics`: mean and standard deviation of the channels."""
        self.net = net
        self.images = images
        self.labels = labels
        self.statistics = statistics
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.passes = 1
        self.loader: DataLoader[tuple[Tensor, int]] | None = None

    def prepare(self, images: int) -> int:
        size, self.passes = passes(images, self.batch_size, len(self.images))
        mean, std = (values.tolist() for values in self.statistics)
        transform = transforms.Compose([*self.augmentations(), transforms.ToTensor(), transforms.Normalize(mean, std)])
        self.loader = DataLoader(
            PilImages(self.images[:size], self.labels[:size], transform),
            batch_size=self.batch_size,
            shuffle=self.shuffled,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        if self.workers > 0:
            # Starts the processes, which a training of many epochs pays for once.
            next(iter(self.loader))
        return size * self.passes

    def epochs(self) -> Iterator[DataLoader[tuple[Tensor, int]]]:
        assert self.loader is not None
        for _ in range(self.passes):
            yield self.loader

    def augmentations(self) -> list[nn.Module]:
        return []

    @abstractmethod
    def run(self) -> None:
        """Go through the images that `prepare` chose."""


class ReferenceTraining(Reference):
    """Epochs of training with random crops and flips, as CIFAR-10 is usually trained."""

    shuffled = True

    def augmentations(self) -> list[nn.Module]:
        size = self.images.shape[-1]
        return [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()]

    def run(self) -> None:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for loader in self.epochs():
            train_one_epoch(self.net, loader, optimizer, self.device)


class ReferenceInference(Reference):
    """Accuracy, image by image through the same loader without augmentation."""

    def run(self) -> None:
        for loader in self.epochs():
            accuracy(self.net, loader, self.device)
