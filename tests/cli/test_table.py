"""Tables that fit the terminal."""

from cli.render.table import Column, Name, Table

_COLUMNS = [Column("NAME", flexible=True), Column("SIZE", right=True), Column("LIKES", rank=1)]
_LONG = f"hf/acme/{'x' * 60}/file.gguf"


def _plain(table: Table, width: int | None) -> list[str]:
    return [line.plain for line in table.lines(width)]


def test_nothing_is_cut_without_a_terminal() -> None:
    table = Table(_COLUMNS, [[Name(_LONG, "short"), "4.9 GB", "7"]])

    assert _plain(table, None)[1] == f"{_LONG}  4.9 GB  7"


def test_a_narrow_terminal_gets_the_short_form_first() -> None:
    table = Table(_COLUMNS, [[Name(_LONG, "acme/x:Q4"), "4.9 GB", "7"]])

    assert _plain(table, 40) == ["NAME         SIZE  LIKES", "acme/x:Q4  4.9 GB  7"]


def test_a_narrower_one_loses_the_least_important_column_and_then_the_middle_of_names() -> None:
    table = Table(_COLUMNS, [[_LONG, "4.9 GB", "7"]])

    header, row = _plain(table, 40)

    assert header.split() == ["NAME", "SIZE"]
    assert row.startswith("hf/acme/xxx") and "…" in row and "file.gguf  4.9 GB" in row
    assert len(row) == 40


def test_wide_characters_count_double() -> None:
    table = Table([Column("NAME"), Column("SIZE")], [["模型", "1"], ["abcd", "2"]])

    assert _plain(table, None)[1:] == ["模型  1", "abcd  2"]


def test_an_escape_sequence_in_a_cell_loses_its_power() -> None:
    table = Table([Column("NAME")], [["a\x1b[31mb\n"]])

    assert _plain(table, None)[1] == "a [31mb "


def test_an_empty_cell_is_a_dash() -> None:
    assert _plain(Table([Column("NAME")], [[""]]), None)[1] == "-"
