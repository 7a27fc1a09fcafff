"""Near-duplicates against comparing every pair."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.datasets.duplicates import SIMILAR, ExactIndex, Groups, NearIndex, shingles, similarity


def no_progress(done: int, of: int) -> None:
    assert 0 <= done < of


def pairs_of(texts: list[str]) -> set[tuple[int, int]]:
    index = NearIndex()
    for number, text in enumerate(texts):
        index.add(number, text)
    found = list(index.pairs(texts.__getitem__, lambda one, other: True, no_progress))
    assert all(one < other for one, other, _ in found)
    return {(one, other) for one, other, _ in found}


def alike(texts: list[str]) -> set[tuple[int, int]]:
    hashes = [shingles(text) for text in texts]
    pairs = itertools.combinations(range(len(texts)), 2)
    return {(a, b) for a, b in pairs if similarity(hashes[a], hashes[b]) >= SIMILAR}


def variants(seed: int, originals: int, words: tuple[int, int]) -> list[str]:
    """Random texts, each followed by one with a word or two changed."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("etaoinshr", k=rng.randint(2, 9))) for _ in range(3000)]
    texts: list[str] = []
    for _ in range(originals):
        text = rng.choices(vocabulary, k=rng.randint(*words))
        changed = list(text)
        for _ in range(1 + len(text) // 40):
            changed[rng.randrange(len(changed))] = rng.choice(vocabulary)
        texts += [" ".join(text), " ".join(changed)]
    return texts


def test_every_pair_that_is_alike_is_found_and_no_other():
    for seed, words in enumerate([(6, 20), (20, 60), (60, 150)]):
        texts = variants(seed, 100, words)
        expected = alike(texts)
        assert len(expected) > 3
        assert pairs_of(texts) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet="abc ,\n日本語", max_size=60), max_size=25))
def test_any_texts_are_compared_like_every_pair(texts: list[str]):
    assert pairs_of(texts) == alike(texts)


def test_case_punctuation_and_spaces_do_not_count():
    one, other = "The cat sat, on the mat!", "the cat  sat on the (mat)"
    assert shingles(one) == shingles(other)


def test_text_without_spaces_is_compared_by_characters():
    one = "今日はとても天気が良いので公園まで散歩に行きましょうと彼女は言いました"
    assert 0.8 < similarity(shingles(one), shingles(one[:-1])) < 1
    assert similarity(shingles(one), shingles(one[::-1])) < 0.2


def test_a_large_bucket_is_one_group_at_a_linear_cost():
    # Unlike for the thousand rows that tell the frame, then all alike.
    base = " ".join(f"word{n}" for n in range(60))
    texts = [f"{n} apples {n * 7} pears {n * 11}" for n in range(1000)] + [f"{base} ending {n}" for n in range(3000)]
    index = NearIndex()
    for number, text in enumerate(texts):
        index.add(number, text)
    groups = Groups(len(texts))
    compared = 0

    def wanted(one: int, other: int) -> bool:
        nonlocal compared
        compared += 1
        return groups.find(one) != groups.find(other)

    for one, other, _ in index.pairs(texts.__getitem__, wanted, no_progress):
        groups.join(one, other)
    assert {groups.find(row) for row in range(1000, len(texts))} == {1000}
    assert compared < 12 * 6 * len(texts)


def test_a_frame_that_many_rows_share_does_not_make_them_alike():
    frame = " ".join(f"instruction{n}" for n in range(500))
    contents = variants(9, 100, (20, 40))
    texts = [f"{frame} {content} END OF THE SENTENCE" for content in contents]
    assert len(alike(texts)) == 200 * 199 / 2
    # Runs that straddle the frame's edges count too: equal edges make a pair a little more alike, others less.
    hashes = [shingles(content) for content in contents]
    words = [content.split() for content in contents]
    found = pairs_of(texts)
    same_edges = {(a, b) for a, b in alike(contents) if words[a][:2] + words[a][-2:] == words[b][:2] + words[b][-2:]}
    assert len(same_edges) > 10
    assert found >= same_edges
    assert all(similarity(hashes[a], hashes[b]) > SIMILAR - 0.08 for a, b in found)


def test_many_rows_that_are_half_alike_stay_cheap():
    halves = [" ".join(f"half{h}w{n}" for n in range(45)) for h in range(5)]
    texts = [f"{halves[n % 5]} " + " ".join(f"row{n}w{m}" for m in range(20)) for n in range(3000)]
    index = NearIndex()
    for number, text in enumerate(texts):
        index.add(number, text)
    read = 0

    def text_of(row: int) -> str:
        nonlocal read
        read += 1
        return texts[row]

    assert not [found for _, _, found in index.pairs(text_of, lambda one, other: True, no_progress) if found < SIMILAR]
    assert read <= 2 * (10_000 + 8 * len(texts))


def test_the_first_row_with_a_text_is_remembered():
    index = ExactIndex()
    assert [index.first(row, text) for row, text in enumerate(["a", "b", "a", "a ", "b"])] == [0, 1, 0, 3, 1]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19))))
def test_groups_are_the_connected_rows_named_by_their_first(joined: list[tuple[int, int]]):
    groups = Groups(20)
    sets = [{row} for row in range(20)]
    for one, other in joined:
        groups.join(one, other)
        whole = sets[one] | sets[other]
        for row in whole:
            sets[row] = whole
    assert [groups.find(row) for row in range(20)] == [min(whole) for whole in sets]
