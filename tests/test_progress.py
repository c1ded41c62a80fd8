"""What a log file says of cells under way."""

import io

from rich.console import Console

from ntml_bench.app.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_file_hears_of_a_long_cell_once_a_minute() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(2, Console(file=file, force_terminal=False), clock)
    first, second = progress.cell("badnets x ft"), progress.cell("sig x ft")
    for second_of_the_day in range(0, 200, 10):
        clock.now = 100.0 + second_of_the_day
        first.say(f"epoch {second_of_the_day}")
        second.say(f"epoch [{second_of_the_day}]")
    progress.close()
    of_first = [f"badnets x ft: epoch {number}" for number in (0, 60, 120, 180)]
    of_second = [f"sig x ft: epoch [{number}]" for number in (60, 120, 180)]
    assert [line for line in file.getvalue().splitlines() if line.startswith("badnets")] == of_first
    assert [line for line in file.getvalue().splitlines() if line.startswith("sig")] == of_second


def test_many_short_cells_do_not_flood_a_log_file() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(50, Console(file=file, force_terminal=False), clock)
    for number in range(50):
        clock.now += 5
        cell = progress.cell(f"cell {number}")
        cell.say("training")
        clock.now += 20
        cell.say("defending")
        cell.close()
    progress.close()
    assert file.getvalue() == "cell 0: training\n"


def test_a_terminal_has_the_bar_alone() -> None:
    file = io.StringIO()
    progress = Progress(1, Console(file=file, force_terminal=True, width=80), Clock())
    cell = progress.cell("badnets x ft")
    cell.say("training")
    cell.close()
    progress.close()
    assert "\nbadnets x ft: training\n" not in file.getvalue().replace("\r", "\n")
