"""Charts for every shape of data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from mcp_server.reports.chart import Line, Mark, chart, sparkline, ticks
from mcp_server.training.history import Points


def numbers(markup: str) -> list[float]:
    """All coordinates of lines and dots."""
    pairs = " ".join(re.findall(r'points="([^"]*)"', markup)).replace(",", " ").split()
    return [float(word) for word in pairs]


@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 2.0)],
        [(0.0, 0.0), (1.0, 0.0)],
        [(5.0, -1.0), (6.0, 3.0)],
        [(1.0, 1e-9), (2.0, 1e9)],
        [(float(step), 1.0 + step % 7) for step in range(10_000)],
    ],
    ids=["one", "zeros", "negative", "huge span", "ten thousand"],
)
def test_every_point_lies_inside_the_picture(points: Points):
    markup = chart([Line("loss", points, "train")], label="loss", log=True)
    ElementTree.fromstring(markup)  # well-formed
    assert numbers(markup)
    assert all(0 <= number <= 760 for number in numbers(markup))
    assert len(markup) < 60_000
    assert "nan" not in markup


def test_no_points_are_said_in_words():
    assert "no data yet" in chart([Line("loss", [], "train")], label="loss")
    assert sparkline([]) == ""
    assert "<svg" in sparkline([(1.0, 0.0), (2.0, -1.0)])


def test_best_checkpoint_and_alerts_are_marked_with_their_text():
    marks = [Mark(12, "NaN <b>", "alert"), Mark(5, "best 0.5", "best", value=0.5)]
    markup = chart([Line("loss", [(1.0, 1.0), (10.0, 0.4)], "train")], label="loss", marks=marks)
    assert "NaN &lt;b&gt;" in markup
    assert "best 0.5" in markup
    assert "alert" in markup.partition("<svg")[0], "the legend names it"
    inside = [float(x) for x in re.findall(r'<g class="alert"><line x1="([\d.]+)"', markup)]
    assert inside and max(inside) <= 760, "an alert after the last loss is still seen"


def test_ticks_are_round_and_inside():
    assert ticks(0, 100, 5) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.61, 0.79, 4) == pytest.approx([0.65, 0.7, 0.75])
    assert ticks(1e-5, 2e-5, 5) == pytest.approx([1e-5, 1.2e-5, 1.4e-5, 1.6e-5, 1.8e-5, 2e-5])
