"""How far rollouts may go from their prompt."""

import math

import pytest
import torch

import drift

FRAME_RATE = 40.0


def walked(steps: torch.Tensor, bounds: drift.Bounds | None = None, n_prompt: int = 80) -> torch.Tensor:
    """A walk ``[B, T, n]`` with these steps after a prompt of zeros, held to the bounds."""
    frame = torch.zeros_like(steps[:, 0])
    gone = drift.start(frame.unsqueeze(1).expand(-1, n_prompt, -1), torch.zeros(len(frame), n_prompt, 1), FRAME_RATE)
    frames = []
    for step in steps.unbind(1):
        frame = frame + step - (0 if bounds is None else drift.pull(gone, bounds))
        gone = drift.follow(gone, frame, frame.mean(-1, keepdim=True), FRAME_RATE)
        frames.append(frame)
    return torch.stack(frames, 1)


def bounds(components: float, level: float = 1e6, n: int = 3) -> drift.Bounds:
    n_lags = len(drift.LAGS)
    return drift.Bounds(torch.full((n_lags, n), components), torch.full((n_lags,), level), torch.ones(n), FRAME_RATE)


def test_inside_the_bounds_nothing_is_pulled():
    gone = drift.start(torch.zeros(1, 80, 3), torch.zeros(1, 80, 1), FRAME_RATE)
    gone = gone._replace(slow=torch.tensor([[0.9, -0.9, 0.0]]), slow_level=torch.tensor([[0.5]]))
    assert not drift.pull(gone, bounds(1.0, 0.6)).any()
    beyond = drift.pull(gone, bounds(0.6))
    torch.testing.assert_close(beyond, 1.5 * drift.PULL * torch.tensor([[0.3, -0.3, 0.0]]))
    far_beyond = drift.pull(gone, bounds(0.01))
    torch.testing.assert_close(far_beyond, drift.FASTER * drift.PULL * torch.tensor([[0.89, -0.89, 0.0]]))
    too_loud = drift.pull(gone, bounds(1e6, 0.2))
    torch.testing.assert_close(too_loud, torch.full((1, 3), drift.LEVEL_PULL * 0.3))


def test_each_lag_has_its_bound():
    gone = drift.start(torch.zeros(1, 80, 3), torch.zeros(1, 80, 1), FRAME_RATE)._replace(slow=torch.ones(1, 3) * 9)
    grows = bounds(1e6)._replace(components=torch.arange(1.0, 8.0).unsqueeze(-1).expand(-1, 3))
    for seconds, bound in ((0.4, 1), (0.5, 2), (1.9, 3), (2, 4), (5, 5), (15, 6), (16, 7), (3600, 7)):
        at = gone._replace(n_frames=round(seconds * FRAME_RATE))
        faster = min(drift.FASTER, 9 / bound)
        assert drift.pull(at, grows)[0, 0] == pytest.approx(drift.PULL * faster * (9 - bound), rel=1e-5), seconds


def test_what_drifts_is_held():
    """A constant drift of 0.01 a frame ends 0.1 beyond its bound, where the pull equals it; a random walk stays
    within the bound and 1.5 times its own spread in the memory's time, where without it goes six times as far."""
    held = walked(torch.full((1, 2000, 3), 0.01), bounds(1.0))
    torch.testing.assert_close(held[:, -1], torch.full((1, 3), 1.0 + 0.01 / drift.PULL), atol=0.02, rtol=0)
    torch.manual_seed(0)
    steps = 0.1 * torch.randn(64, 2000, 3)
    free, held = walked(steps)[:, -500:].std(), walked(steps, bounds(0.0))[:, -500:].std()
    assert free > 3.5 and held < 0.7


@pytest.mark.parametrize("leap", [1.5, 4.0, 10.0])
def test_a_leap_settles_without_swinging(leap):
    """After a leap the walk comes back between its bounds within two seconds, and swings by less than two fifths."""
    steps = torch.zeros(1, 400, 3)
    steps[:, 0] = leap
    held = walked(steps, bounds(1.0))[0, :, 0]
    assert held.min() > -0.4 * leap and held[80:].abs().max() < 1.05


def test_distances_of_recordings():
    """Of pieces that are a prompt of zeros and then a level, the distances are those of the slow means."""
    heights = torch.linspace(-1, 1, 21)
    frames = torch.zeros(21, 80 + 700, 2)
    frames[:, 80:] = heights.view(-1, 1, 1) * torch.tensor([1.0, 2.0])
    start = drift.start(frames[:, :80], frames[:, :80, :1], FRAME_RATE)
    components, level = drift.measure(start, frames[:, 80:], frames[:, 80:, :1], FRAME_RATE)
    at = float(heights.abs().quantile(drift.QUANTILE))
    for i, lag in enumerate(drift.LAGS):
        n, memory = round(lag * FRAME_RATE), 1 + drift.MEMORY * FRAME_RATE
        reached = 1 - (1 - 1 / memory) ** n
        torch.testing.assert_close(components[i], at * reached * torch.tensor([1.0, 2.0]), atol=1e-4, rtol=1e-4)
    assert level[-1] == pytest.approx(at, abs=1e-3)
    short, _ = drift.measure(start, frames[:, 80:180], frames[:, 80:180, :1], FRAME_RATE)
    torch.testing.assert_close(short[3:], components[3].expand(4, -1))  # a longer lag than there is has the last one


def test_the_start_knows_the_prompt():
    frames = torch.cat([torch.zeros(1, 100, 1), torch.ones(1, 60, 1)], 1)
    gone = drift.start(frames, frames, FRAME_RATE)
    assert gone.origin.item() == gone.origin_level.item() == pytest.approx(60 / 160)
    memory = drift.MEMORY * FRAME_RATE
    assert gone.slow.item() == pytest.approx(1 - math.exp(-60 / memory), abs=1e-3)


def test_silence_is_nothing_to_stay_at():
    """A prompt that ends in silence: its origin is that of what sounds; of one that is silent, the silence."""
    frames = torch.cat([torch.ones(1, 100, 1), torch.full((1, 60, 1), -9.0)], 1)
    gone = drift.start(frames, frames, FRAME_RATE, softest=-5.0)
    assert gone.origin.item() == gone.origin_level.item() == pytest.approx(1.0)
    assert gone.slow_level.item() == gone.last_level.item() == -5.0  # what follows need not make up for silence
    assert gone.slow.item() == pytest.approx(1.0, abs=1e-5)
    silent = drift.start(frames[:, 100:], frames[:, 100:], FRAME_RATE, softest=-5.0)
    assert silent.origin.item() == pytest.approx(-9.0)
    assert not drift.pull(gone, bounds(1.0, 0.5)).any()  # it goes on from silence, and comes back
    later = gone._replace(n_frames=round(20 * FRAME_RATE))  # half a neper of bound, and no more than one at once
    back = drift.pull(later, bounds(1e6, 0.5))
    torch.testing.assert_close(back, torch.full((1, 3), -drift.LEVEL_PULL * drift.MOST_NEPERS))


def test_the_level_grows_out_of_the_last_second():
    """Of a prompt that has become louder by 2 nepers: its last second's level, and the whole prompt's once that is
    forgotten."""
    level = torch.cat([torch.zeros(1, 80, 1), torch.full((1, 40, 1), 2.0)], 1)
    gone = drift.start(level.expand(-1, -1, 3), level, FRAME_RATE)
    mean = 2 / 3
    for seconds in (0, 1, 2, 60):
        usual = drift.usual_level(gone._replace(n_frames=round(seconds * FRAME_RATE)), FRAME_RATE)
        wanted = mean + (2 - mean) * math.exp(-seconds / drift.LAST_MEMORY)
        assert usual.item() == pytest.approx(wanted, abs=1e-5), seconds


@pytest.mark.parametrize("leap", [1.0, -2.0])
def test_a_leap_in_level_is_no_leap_to_the_ear(leap):
    """Of frames that are all a neper or more off, about half of what is beyond the tolerance is left, which is
    STEADY_NEPERS in the first second, twice that after two; in the end all of it is back."""
    gone = drift.start(torch.zeros(1, 80, 3), torch.zeros(1, 80, 1), FRAME_RATE)
    slow = []
    for _ in range(round(10 * FRAME_RATE)):
        level = torch.full((1, 1), leap)
        jump = drift.level_jump(gone, level, FRAME_RATE)
        level = level if jump is None else level - jump
        gone = drift.follow(gone, torch.zeros(1, 3), level, FRAME_RATE)
        slow.append(abs(gone.slow_level.item()))
    for seconds in (1, 2, 3.9):
        new = 1 / (1 + drift.LEVEL_MEMORY * FRAME_RATE)  # share of a frame in the slow mean, where it comes to rest
        left = ((1 - new) * abs(leap) + seconds * drift.STEADY_NEPERS) / (2 - new)
        assert slow[round(seconds * FRAME_RATE) - 1] == pytest.approx(left, abs=0.02), seconds
    assert slow[-1] == pytest.approx(abs(leap), abs=1e-3)


def test_within_the_tolerance_the_level_is_free():
    gone = drift.start(torch.zeros(1, 80, 3), torch.zeros(1, 80, 1), FRAME_RATE)
    assert drift.level_jump(gone, torch.full((1, 1), drift.STEADY_NEPERS), FRAME_RATE) == 0
    assert drift.level_jump(gone._replace(n_frames=round(5 * FRAME_RATE)), torch.ones(1, 1), FRAME_RATE) is None
