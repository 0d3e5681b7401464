"""Time gone and left of a training, without waiting for any."""

from __future__ import annotations

from napari_svpseg.plugin.docks.run_clock import RunClock


def test_what_is_left_follows_the_speed_of_this_sitting():
    now = [100.0]
    clock = RunClock(lambda: now[0])
    assert clock.remaining(50, 300) is None  # resumed: 50 steps took no time here
    now[0] += 20
    assert clock.remaining(51, 300) is None
    assert clock.remaining(60, 300) == 20 / 10 * 240
    assert clock.elapsed == 20
    assert clock.bar(60, 300) == "60 / 300 · 8:00 min left"
    assert "20 s" in clock.line("Training", 60, 300)
    clock.begin()
    assert clock.elapsed == 0 and clock.remaining(60, 300) is None
