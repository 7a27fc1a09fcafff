"""The list of breaks that ``make mutate`` tries fits the code as it is."""

from __future__ import annotations

import pytest

from scripts import mutate

LIST = mutate.read()


@pytest.mark.parametrize("mutation", LIST, ids=lambda each: each.breaks)
def test_every_break_can_be_made_and_is_more_than_a_spelling_mistake(mutation: mutate.Mutation):
    text = (mutate.ROOT / mutation.file).read_text(encoding="utf-8")
    broken = mutation.applied(text)
    assert broken != text
    compile(broken, mutation.file, "exec")
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert (mutate.ROOT / file).exists()
        assert not name or f"def {name}(" in (mutate.ROOT / file).read_text(encoding="utf-8")


def test_the_list_is_long_and_spread_over_the_product():
    assert len(LIST) >= 40
    assert len({mutation.breaks for mutation in LIST}) == len(LIST)
    places = {"/".join(mutation.file.split("/")[:2]) for mutation in LIST}
    assert len(places) >= 12, places


def test_a_text_that_has_gone_or_stands_twice_is_an_error():
    mutation = LIST[0].model_copy(update={"old": "word"})
    with pytest.raises(ValueError, match="0 times"):
        mutation.applied("nothing of it")
    with pytest.raises(ValueError, match="2 times"):
        mutation.applied("word and word")
