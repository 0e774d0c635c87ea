"""Tables escape what they show and are read without scrolling sideways."""

from geonb.record_tables import table_html


def test_tables_escape_their_cells():
    html = table_html(["<x>"], [["<script>"], [1.23456]], caption="a & b")
    assert "&lt;script&gt;" in html and "<script>" not in html and "1.235" in html and "a &amp; b" in html


def test_a_column_that_holds_a_sentence_wraps_and_the_others_do_not():
    reason = "Adam adds epsilon to a gradient's size, so a squared weight does not belong there."
    page = table_html(["what", "because"], [["epsilon", reason], ["beta", "as given"]])
    wraps = ["white-space:pre-wrap" in cell for cell in page.split("<td")[1:]]
    assert wraps == [False, True, False, True]
