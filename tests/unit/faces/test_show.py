import pytest
from dcde import show


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000, "3.4 MB"), (None, ""), (5e15, "5000.0 TB")],
)
def test_sizes_have_units(count, text):
    assert show.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (None, "")])
def test_times_have_units(seconds, text):
    assert show.span(seconds) == text


def test_a_table_is_aligned_as_text_and_escaped_as_html():
    table = show.Table([{"name": "<img onerror=alert(1)>", "size": "1 B"}], empty="nothing")
    assert "<img" in repr(table)
    assert "<img" not in table._repr_html_()
    assert "&lt;img" in table._repr_html_()


def test_an_empty_table_says_so():
    assert repr(show.Table([], empty="This folder is empty.")) == "This folder is empty."
    assert "This folder is empty." in show.Table([], empty="This folder is empty.")._repr_html_()


def test_control_characters_do_not_reach_a_terminal():
    assert "\x1b" not in repr(show.Table([{"name": "a\x1b[2Jb\n"}], empty=""))


def test_metrics_carry_their_unit():
    assert show.metrics({"res": {"value": 12.345, "unit": "Å", "title": "resolution"}}) == "resolution 12.35 Å"
