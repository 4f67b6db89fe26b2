"""Values: revisions of a number, the newest and what was known at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qala.store.base import VALUES, Span, Store, ValueSelector
from qala.store.conformance.builders import ALWAYS, DAY, MINUTE, NAMES, T0, a_value


class ValuesConformance:
    def test_every_field_comes_back(self, store: Store) -> None:
        given = a_value(detail={"main": "pm2_5", "parts": {"b": 1, "a": [1, 2]}}, status="ok")
        assert store.put_values([given]) == 1
        table = store.values(ValueSelector(), ALWAYS)
        assert table.schema.equals(VALUES)
        [row] = table.to_pylist()
        assert msgspec.json.decode(row.pop("detail")) == given.detail
        assert row == {
            name: value for name, value in (msgspec.structs.asdict(given) | {"revision": 1}).items() if name != "detail"
        }

    def test_the_same_number_writes_nothing(self, store: Store) -> None:
        store.put_values([a_value(detail={"a": 1, "b": 2})])
        again = a_value(detail={"b": 2, "a": 1}, known_us=T0 + 99 * MINUTE, revision=5)
        assert store.put_values([again, again]) == 0
        [row] = store.values(ValueSelector(), ALWAYS).to_pylist()
        assert (row["revision"], row["known_us"]) == (1, T0 + 61 * MINUTE)

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"value": 13.0}, id="value"),
            pytest.param({"value": None}, id="no number"),
            pytest.param({"status": "incomplete"}, id="status"),
            pytest.param({"n_good": 59}, id="coverage"),
            pytest.param({"method_version": "2"}, id="method"),
            pytest.param({"detail": {"main": "pm10"}}, id="detail"),
            pytest.param({"final_us": T0}, id="final"),
        ],
    )
    def test_any_other_change_makes_a_new_revision(self, store: Store, changed: dict[str, Any]) -> None:
        store.put_values([a_value()])
        assert store.put_values([msgspec.structs.replace(a_value(), **changed)]) == 1
        [row] = store.values(ValueSelector(), ALWAYS).to_pylist()
        assert row["revision"] == 2
        assert [row["revision"] for row in store.revisions(ValueSelector(), ALWAYS).to_pylist()] == [1, 2]

    def test_no_number_is_null_and_stays_the_same_number(self, store: Store) -> None:
        nothing = a_value(None, status="incomplete")
        assert store.put_values([nothing]) == 1
        assert store.put_values([nothing]) == 0
        assert store.values(ValueSelector(), ALWAYS)["value"].to_pylist() == [None]

    def test_one_call_may_revise_a_value_more_than_once(self, store: Store) -> None:
        assert store.put_values([a_value(1.0), a_value(2.0), a_value(2.0), a_value(1.0)]) == 3
        revisions = store.revisions(ValueSelector(), ALWAYS).to_pylist()
        assert [(row["revision"], row["value"]) for row in revisions] == [(1, 1.0), (2, 2.0), (3, 1.0)]

    def test_as_of_gives_what_was_known_then(self, store: Store) -> None:
        store.put_values([a_value(1.0, known_us=T0 + 10)])
        store.put_values([a_value(2.0, known_us=T0 + 20)])
        known = {
            at: store.values(ValueSelector(), ALWAYS, as_of_us=T0 + at)["value"].to_pylist() for at in (9, 10, 19, 20)
        }
        assert known == {9: [], 10: [1.0], 19: [1.0], 20: [2.0]}

    @pytest.mark.parametrize(
        ("select", "expected"),
        [
            pytest.param(ValueSelector(), ["aqi:a", "aqi:b", "flow:a"], id="any"),
            pytest.param(ValueSelector(indicators=frozenset({"flow"})), ["flow:a"], id="indicator"),
            pytest.param(ValueSelector(zones=frozenset({"b", "c"})), ["aqi:b"], id="zones"),
            pytest.param(ValueSelector(windows=frozenset({"1d"})), ["aqi:b"], id="window"),
            pytest.param(ValueSelector(indicators=frozenset({"aqi"}), zones=frozenset({"a"})), ["aqi:a"], id="both"),
            pytest.param(ValueSelector(zones=frozenset()), [], id="none"),
        ],
    )
    def test_values_are_selected_and_ordered(
        self,
        store: Store,
        select: ValueSelector,
        expected: list[str],
    ) -> None:
        store.put_values(
            [
                a_value(indicator="flow", zone="a"),
                a_value(indicator="aqi", zone="b", window="1d"),
                a_value(indicator="aqi", zone="a"),
            ],
        )
        found = store.values(select, ALWAYS).to_pylist()
        assert [f"{row['indicator']}:{row['zone']}" for row in found] == expected
        assert store.revisions(select, ALWAYS).num_rows == len(expected)

    def test_a_span_of_values_goes_by_their_starts(self, store: Store) -> None:
        store.put_values([a_value(start_us=T0 + n) for n in range(4)])
        span = Span(T0 + 1, T0 + 3)
        assert store.values(ValueSelector(), span)["start_us"].to_pylist() == [T0 + 1, T0 + 2]
        assert store.revisions(ValueSelector(), span)["start_us"].to_pylist() == [T0 + 1, T0 + 2]

    def test_ten_thousand_values_at_once(self, store: Store) -> None:
        many = [a_value(float(n), zone=f"z{n % 100}", start_us=T0 + n // 100) for n in range(10_000)]
        assert store.put_values(many) == 10_000
        assert store.put_values(many) == 0
        changed = [msgspec.structs.replace(v, value=-1.0) if i % 10 == 0 else v for i, v in enumerate(many)]
        assert store.put_values(changed) == 1_000
        assert store.values(ValueSelector(), ALWAYS).num_rows == 10_000

    def test_no_values_are_nothing_to_store(self, store: Store) -> None:
        assert store.put_values([]) == 0
        assert store.values(ValueSelector(), ALWAYS).schema.equals(VALUES)

    def test_the_extent_of_values_goes_by_their_starts(self, store: Store) -> None:
        assert store.values_extent() is None
        store.put_values([a_value(start_us=T0 + 5), a_value(start_us=T0 - DAY), a_value(2.0, start_us=T0 - DAY)])
        assert store.values_extent() == Span(T0 - DAY, T0 + 6)

    @pytest.mark.parametrize("name", NAMES)
    def test_any_text_may_be_in_a_value(self, store: Store, name: str) -> None:
        given = a_value(indicator=name, zone=name, unit=name, method=name, status=name, detail={name: [name]})
        assert store.put_values([given, a_value()]) == 2
        assert store.put_values([given]) == 0
        picked = ValueSelector(indicators=frozenset({name}), zones=frozenset({name}))
        [row] = store.values(picked, ALWAYS).to_pylist()
        assert [row[field] for field in ("indicator", "zone", "unit", "method", "status")] == [name] * 5
        assert msgspec.json.decode(row["detail"]) == given.detail

    def test_the_bits_of_a_value_come_back(self, store: Store) -> None:
        numbers = [0.1 + 0.2, 5e-324, -1.7976931348623157e308, 1 / 3]
        store.put_values([a_value(number, start_us=T0 + n) for n, number in enumerate(numbers)])
        found = store.values(ValueSelector(), ALWAYS)["value"].to_pylist()
        assert [value.hex() for value in found] == [number.hex() for number in numbers]

    def test_a_number_that_comes_back_later_is_a_revision_of_its_own(self, store: Store) -> None:
        for known, number in enumerate([1.0, 2.0, 1.0]):
            assert store.put_values([a_value(number, known_us=T0 + known)]) == 1
        at = [store.values(ValueSelector(), ALWAYS, as_of_us=T0 + known).to_pylist() for known in range(3)]
        assert [[(row["value"], row["revision"]) for row in found] for found in at] == [
            [(1.0, 1)],
            [(2.0, 2)],
            [(1.0, 3)],
        ]

    def test_deleting_readings_leaves_values(self, store: Store) -> None:
        store.put_values([a_value()])
        store.delete_before(T0 + 100 * DAY)
        assert store.values(ValueSelector(), ALWAYS).num_rows == 1
