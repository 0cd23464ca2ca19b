"""Tables in a file or a pipe are not cut to the 80 columns of no terminal."""

from usp_mm.runtime.console import table_console


def test_width_without_a_terminal(capsys):
    assert (table_console().width, table_console(100).width) == (200, 100)
    table_console().print('x' * 150)
    assert capsys.readouterr().out == 'x' * 150 + '\n'
