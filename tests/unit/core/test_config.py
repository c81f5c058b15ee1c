from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import MinLen
from hypothesis import given
from hypothesis import strategies as st

from chibit.core.config import Checked, config_hash, from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import Distinct
from chibit.core.home import home_folder


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 3
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.1
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] | None = None
    path: Path | None = None
    flag: bool = False


INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
REALS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=60)


@given(
    st.builds(
        Outer,
        name=TEXT,
        rate=REALS,
        inner=st.builds(Inner, width=INTEGERS, kind=st.sampled_from(["a", "b"])),
        sizes=st.lists(INTEGERS).map(tuple),
        pair=st.none() | st.tuples(INTEGERS, REALS),
        path=st.none() | st.sampled_from([Path("a/b")]),
        flag=st.booleans(),
    )
)
def test_round_trip(config):
    assert from_json(Outer, json.loads(json.dumps(to_json(config)))) == config


def test_a_path_from_home_is_in_it(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    assert from_json(Outer, {"name": "~/x", "path": "~/x"}) == Outer(name="~/x", path=Path("/somebody/x"))
    assert home_folder("~/cache") == Path("/somebody/cache")
    monkeypatch.setenv("CHIBIT_HOME", "~/kept")
    assert home_folder() == Path("/somebody/kept")


@dataclass(frozen=True, kw_only=True)
class Optional(Checked):
    values: Annotated[tuple[int, ...] | None, MinLen(2), Distinct()] = None


def test_nothing_has_no_range():
    assert Optional().values is None
    with pytest.raises(InputError, match="at least 2 values"):
        Optional(values=(1,))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "rat": 1}, "unknown field 'rat'; did you mean 'rate'"),
        ({}, "missing field 'name'"),
        ({"name": 3}, "config.name: got 3, expected str"),
        ({"name": "x", "rate": "fast"}, "config.rate: got 'fast', expected float"),
        ({"name": "x", "rate": True}, "config.rate: got True, expected float"),
        ({"name": "x", "inner": {"width": 1.5}}, "config.inner.width: got 1.5, expected int"),
        ({"name": "x", "inner": {"kind": "c"}}, "config.inner.kind: got 'c', expected one of a, b"),
        ({"name": "x", "sizes": 3}, "config.sizes: got 3, expected a list"),
        ({"name": "x", "pair": [1]}, "expected 2 values"),
        ({"name": "x", "flag": 1}, "config.flag: got 1, expected bool"),
        ([], "config: got [], expected an object"),
    ],
)
def test_refusals_name_the_field(data, message):
    with pytest.raises(InputError) as caught:
        from_json(Outer, data)
    assert message in str(caught.value)


def test_an_integer_is_a_float_but_not_the_reverse():
    assert from_json(Outer, {"name": "x", "rate": 1}).rate == 1.0


def test_hash_depends_on_every_value_and_not_on_order():
    config = Outer(name="x")
    assert len(config_hash(config)) == 8
    assert config_hash(config) == config_hash(Outer(rate=0.1, name="x"))
    assert config_hash(config) != config_hash(replace(config, inner=Inner(width=4)))


def test_reading_json(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DamagedFileError, match="not valid JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DamagedFileError, match="not valid JSON"):
        read_json(tmp_path / "deep.json")
    (tmp_path / "twice.json").write_text('{"outer": {"seed": 1, "rate": 2, "seed": 3}}')
    with pytest.raises(DamagedFileError, match=r"twice.json: not valid JSON \('seed' is there twice\)"):
        read_json(tmp_path / "twice.json")


def test_a_mark_of_byte_order_is_no_part_of_a_file(tmp_path):
    (tmp_path / "marked.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "marked.json") == {"a": 1}
