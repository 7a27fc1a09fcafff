"""The figures about token lengths, against counting by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_server.datasets import lengths

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=50)


def test_percentiles_of_a_hundred_values():
    values = list(range(1, 101))
    assert [lengths.percentile(values, share) for share in (0, 0.5, 0.9, 0.99, 1)] == [1, 50, 90, 99, 100]
    assert lengths.percentile([], 0.5) == 0


@given(LENGTHS)
def test_a_histogram_counts_every_value_once_in_its_bin(values: list[int]):
    bins = lengths.histogram(sorted(values))
    assert sum(rows for _, rows in bins) == len(values)
    for edge, rows in bins:
        assert rows == sum((edge // 2 if edge > 16 else 0) < value <= edge for value in values)
    assert bins[0][1] and bins[-1][1]


def test_widths_are_those_of_mlx_lm():
    assert [lengths.padded_length(longest, 100) for longest in (1, 32, 33, 64, 96, 97, 400)] == [
        33,
        33,
        65,
        65,
        97,
        100,
        100,
    ]


def test_padding_of_two_batches_by_hand():
    # Batches [10, 40] → 2 × 65 places and [10, 10] → 2 × 33; the fifth row is in no whole batch.
    assert lengths.padding_share([10, 40, 10, 10, 7], 2, 2048) == 1 - 70 / (130 + 66)
    assert lengths.padding_share([10], 2, 2048) == 0


@given(LENGTHS, st.integers(1, 6), st.integers(8, 200))
def test_like_lengths_together_never_pad_more_when_all_batches_are_whole(
    values: list[int], batch_size: int, window: int
):
    values = values * batch_size
    assert lengths.padding_share(sorted(values), batch_size, window) <= (
        lengths.padding_share(values, batch_size, window) + 1e-9
    )


def test_stock_sorts_by_the_number_of_keys():
    assert lengths.stock_order([5, 9, 7, 1], [2, 1, 2, 1]) == [9, 1, 5, 7]


def test_what_the_window_cuts_and_what_is_trained():
    assert lengths.cut([5, 10, 12, 20], 10) == (2, 12)
    assert lengths.trained_tokens(10, 0, 100) == 9  # the first token is never predicted
    assert lengths.trained_tokens(10, 6, 100) == 4
    assert lengths.trained_tokens(10, 6, 8) == 2
    assert lengths.trained_tokens(10, 9, 8) == 0
