"""Changes: reading through a batch that is being built."""

from hypothesis import given, strategies as st

from tests.engine.harness import Rows
from tq.engine.changes import Changes

KEYS = st.binary(min_size=1, max_size=2)
STORED = st.dictionaries(KEYS, st.binary(max_size=3), max_size=30)
WRITTEN = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=30)


def over(stored: dict[bytes, bytes], written: dict[bytes, bytes | None]) -> Changes:
    changes = Changes(Rows(stored))
    changes.writes.update(written)
    return changes


def merged(stored: dict[bytes, bytes], written: dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    return {key: value for key, value in sorted({**stored, **written}.items()) if value is not None}


@given(STORED, WRITTEN, KEYS)
def test_a_get_sees_the_batch_over_the_store(
    stored: dict[bytes, bytes], written: dict[bytes, bytes | None], key: bytes
) -> None:
    assert over(stored, written).get(key) == merged(stored, written).get(key)


@given(STORED, WRITTEN, KEYS, KEYS, st.integers(1, 5), st.integers(1, 20))
def test_pages_of_a_scan_give_every_row_once_in_order(
    stored: dict[bytes, bytes],
    written: dict[bytes, bytes | None],
    start: bytes,
    end: bytes,
    limit: int,
    bytes_max: int,
) -> None:
    changes = over(stored, written)
    expected = [(key, value) for key, value in merged(stored, written).items() if start <= key < end]

    found: list[tuple[bytes, bytes]] = []
    while page := changes.scan(start, end, limit, bytes_max):
        assert len(page) <= limit
        found += page
        start = page[-1][0] + b"\0"

    assert found == expected


def test_a_page_of_deleted_rows_is_not_the_end() -> None:
    changes = over({b"a": b"1", b"b": b"2", b"c": b"3"}, {b"a": None, b"b": None})

    assert changes.scan(b"a", b"z", 1) == [(b"c", b"3")]


@given(STORED, st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3), KEYS, KEYS), max_size=20))
def test_a_scan_sees_each_write_since_the_last_one(
    stored: dict[bytes, bytes], steps: list[tuple[bytes, bytes | None, bytes, bytes]]
) -> None:
    changes = over(stored, {})

    for key, value, start, end in steps:
        changes.writes[key] = value
        expected = [(k, v) for k, v in merged(stored, changes.writes).items() if start <= k < end]
        assert changes.scan(start, end, 100) == expected


class Compared(bytes):
    """A key that counts how often keys were compared."""

    comparisons = 0

    def __lt__(self, other: bytes) -> bool:
        Compared.comparisons += 1
        return bytes.__lt__(self, other)

    def __le__(self, other: bytes) -> bool:
        Compared.comparisons += 1
        return bytes.__le__(self, other)

    def __ge__(self, other: bytes) -> bool:
        Compared.comparisons += 1
        return bytes.__ge__(self, other)


def test_a_scan_among_many_writes_looks_at_those_of_its_range_only() -> None:
    changes = Changes(Rows())
    for number in range(4_096):
        changes.writes[Compared(number.to_bytes(2, "big"))] = b"v"
    Compared.comparisons = 0

    for number in range(1_000):
        start = (2 * number).to_bytes(2, "big")
        assert len(changes.scan(start, start + b"\0", 1)) == 1

    # The keys, which come in order, are sorted once; each scan finds three places among them.
    assert Compared.comparisons < 4_096 + 1_000 * 3 * 14


def test_a_range_without_writes_is_read_once() -> None:
    rows = Rows({bytes([key]): b"v" for key in range(20)})
    changes = Changes(rows)
    changes.writes[b"z"] = b"v"

    changes.scan(b"\0", b"\x10", 5)

    assert (rows.scans, rows.rows_read) == (1, 5)
