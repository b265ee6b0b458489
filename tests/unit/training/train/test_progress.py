import pytest
import torch

from latentserve_training.train.progress import Progress, describe_duration


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def test_the_time_left_is_that_of_the_whole_run():
    clock = Clock()
    progress = Progress(first_epoch=3, epochs=4, batches_per_epoch=5, clock=clock)
    assert progress.seconds_left() is None
    for _ in progress.batches(range(5), epoch=3):
        clock.now_s += 2.0
    clock.now_s += 5.0  # validation
    assert progress.seconds_left() == pytest.approx(15.0)
    for _ in progress.batches(range(5), epoch=4):
        pass
    assert progress.seconds_left() == 0.0


def test_without_a_terminal_an_epoch_is_one_line(capsys):
    clock = Clock()
    progress = Progress(first_epoch=1, epochs=3, batches_per_epoch=2, clock=clock)
    for _ in progress.batches(range(2), epoch=1):
        clock.now_s += 45.0
        progress.show({"loss": torch.tensor(1.0)}, skipped_steps=0)
    row = {"epoch": 1, "train_loss": 1.234567, "validation_loss": 1.5, "skipped_steps": 2}
    progress.finish_epoch(row | {"seconds": 90.2})
    output = capsys.readouterr()
    assert output.out == (
        "epoch 1/3: loss 1.2346, validation 1.5, 90 s, 2 steps skipped, 3 min left\n"
    )
    assert output.err == ""


def test_kinds_without_a_single_loss_have_a_line_too(capsys):
    progress = Progress(first_epoch=2, epochs=2, batches_per_epoch=2)
    row = {"epoch": 2, "train_generator": 1.0, "validation_loss": 0.5, "skipped_steps": 0}
    progress.finish_epoch(row | {"seconds": 3})
    assert capsys.readouterr().out == "epoch 2/2: validation 0.5, 3 s\n"


def test_the_bar_shows_loss_skipped_steps_and_time_left():
    clock, written = Clock(), []
    progress = Progress(first_epoch=1, epochs=2, batches_per_epoch=2, clock=clock)
    batches = progress.batches(range(2), epoch=1)
    next(batches)
    clock.now_s += 10.0
    next(batches)
    progress._bar.disable = False
    progress._bar.set_postfix_str = lambda text, refresh: written.append(text)
    progress.show({"kl": torch.tensor(1.0), "loss": torch.tensor(2.5)}, skipped_steps=1)
    progress._bar.disable = True  # there is no terminal to clean up
    assert written == ["loss 2.5, 1 skipped, run: 30 s left"]


def test_other_processes_are_quiet(capsys):
    progress = Progress(first_epoch=1, epochs=1, batches_per_epoch=1, quiet=True)
    assert list(progress.batches("a", epoch=1)) == ["a"]
    progress.print_line("something")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (754, "13 min"), (7530, "2 h 06 min")],
)
def test_durations_in_words(seconds, words):
    assert describe_duration(seconds) == words
