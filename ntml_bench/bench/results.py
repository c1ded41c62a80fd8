"""What the throughput part finds out, with units; the JSON file has the same names."""

from dataclasses import dataclass

from ntml_bench.bench.timing import Comparison, Spread


@dataclass(frozen=True)
class Ceiling:
    """FLOP a second of the product of square matrices with `matrix_size` rows, in this process, with its threads.

    It is what torch's best-tuned operation reaches, not the processor's arithmetic limit: some convolutions come above
    it. On a GPU float32 may be computed as TF32, as the project and the reference do. A precision that is not timed has 0.
    """

    matrix_size: int
    float32_flop_per_second: float
    bfloat16_flop_per_second: float = 0.0

    def of(self, precision: str) -> float:
        return self.bfloat16_flop_per_second if precision == "bfloat16" else self.float32_flop_per_second

    def best(self, other: "Ceiling") -> "Ceiling":
        """The higher of two measurements: what else the machine does can only lower them."""
        return Ceiling(
            self.matrix_size,
            max(self.float32_flop_per_second, other.float32_flop_per_second),
            max(self.bfloat16_flop_per_second, other.bfloat16_flop_per_second),
        )


@dataclass(frozen=True)
class Side:
    """One of the two that are compared. `share_of_ceiling`: of the matrix product in the same precision, 0 to 1."""

    precision: str
    images_per_second: Spread
    images_a_measurement: int
    flop_per_second: float
    share_of_ceiling: float


@dataclass(frozen=True)
class Row:
    """`ratio`: the project's images a second over the reference's, of each round."""

    batch_size: int
    project: Side
    reference: Side
    ratio: Spread

    @classmethod
    def of(cls, found: Comparison, batch_size: int, flop_per_image: int, precision: str, ceiling: Ceiling) -> "Row":
        """From the project's (first, in `precision`) and the reference's images a second."""

        def side(precision: str, rate: Spread, images: int) -> Side:
            achieved = rate.median * flop_per_image
            return Side(precision, rate, images, achieved, achieved / ceiling.of(precision))

        project = side(precision, found.first, found.first_images)
        return cls(batch_size, project, side("float32", found.second, found.second_images), found.ratio)


@dataclass(frozen=True)
class CellsAtATimeRow:
    """The project's training as a sweep runs it on a CPU, in images a second.

    `together`: the sum over `cells` trainings with `threads_each` threads; `alone`: one training with `threads_alone`
    threads; `ratio`: together over alone.
    """

    cells: int
    threads_each: int
    threads_alone: int
    together: Spread
    alone: Spread
    ratio: Spread


@dataclass(frozen=True)
class LargeBatch:
    """The project's training with a batch that fills a GPU better; there is no reference for it."""

    batch_size: int
    images_per_second: Spread
    share_of_ceiling: float


@dataclass(frozen=True)
class LoaderWorkers:
    """Processes that load images for the reference: `chosen` had the most `images_per_second` in training."""

    chosen: int
    images_per_second: dict[int, float]


@dataclass(frozen=True)
class ModelThroughput:
    """`training` and `inference` in the precision that `auto` means here, `other_` in the other one of the two: None
    where the device has no instructions for it.

    `cells_at_a_time` is None on a GPU and where torch has one thread; `large_batch` is None on a CPU.
    """

    parameters: int
    forward_flop_per_image: int
    training_flop_per_image: int
    loader_workers: LoaderWorkers
    training: Row
    inference: Row
    other_training: Row | None
    other_inference: Row | None
    cells_at_a_time: CellsAtATimeRow | None
    large_batch: LargeBatch | None


@dataclass(frozen=True)
class Throughput:
    """Models by name."""

    ceiling: Ceiling
    models: dict[str, ModelThroughput]
