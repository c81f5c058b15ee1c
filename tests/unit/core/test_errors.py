import pytest

from chibit.core.errors import DamagedFileError, InputError, one_line


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\nb\tc\rd\0e", r"a\nb\tc\rd\x00e"),
        ("\x1b[31mred\x9b", r"\x1b[31mred\x9b"),
        ("\u202egnp.exe\u2028\ud800\udcff", r"\u202egnp.exe\u2028\ud800\udcff"),
        ("Größe α, ³ and 日本 [/b] stay", "Größe α, ³ and 日本 [/b] stay"),
    ],
)
def test_what_no_terminal_can_show_is_escaped(given, shown):
    assert one_line(given) == shown
    assert str(InputError(given)) == shown


def test_a_long_message_keeps_its_ends():
    line = str(DamagedFileError(f"config.json: {'x' * 5_000_000}; restore the file"))
    assert len(line) < 1300
    assert line.startswith("config.json: xxx")
    assert line.endswith("xxx; restore the file")
