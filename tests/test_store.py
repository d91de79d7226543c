import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mechtests.errors import MeasurementError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.store import Store, StoreWarning

KEY = "ab" + "0" * 62


def measurement(values=None):
    values = np.arange(6.0).reshape(3, 2) if values is None else values
    n = len(values)
    return Measurement(
        name="attention.head_scores",
        values={"induction": values},
        axes={"induction": ("prompt", "head")},
        units={"induction": "attention"},
        cluster=np.arange(n),
        template=np.zeros(n, dtype=np.int64),
        half=np.arange(n) % 2,
        facts={"weights": "f00d"},
    )


def entry(folder: Path, suffix: str) -> Path:
    return next(folder.rglob(f"{KEY}.{suffix}"))


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4))))
def test_what_is_put_is_what_another_store_gets(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("store")
    Store(folder).put(KEY, measurement(values), {"metric": "x"})
    found = Store(folder).require(KEY, "x")
    np.testing.assert_array_equal(found["induction"], values)
    assert found.axes == {"induction": ("prompt", "head")}
    assert found.units == {"induction": "attention"}
    assert found.facts == {"weights": "f00d"}
    np.testing.assert_array_equal(found.half, np.arange(len(values)) % 2)


def test_a_missing_entry_is_named_and_says_what_to_do(tmp_path):
    store = Store(tmp_path)
    assert not store.has(KEY)
    assert store.get(KEY) is None
    with pytest.raises(MeasurementError, match=r"induction on ioi.*without --mech-replay"):
        store.require(KEY, "induction on ioi")


def test_where_a_file_is_in_the_way_nothing_is_stored_and_the_second_store_is_read(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way")
    assert not Store(blocked).has(KEY)
    Store(tmp_path / "beside").put(KEY, measurement(), {})
    assert Store(blocked, tmp_path / "beside").has(KEY)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 200])
def test_a_damaged_entry_is_missing_with_a_warning(tmp_path, suffix, damage):
    Store(tmp_path).put(KEY, measurement(), {})
    entry(tmp_path, suffix).write_bytes(damage)
    with pytest.warns(StoreWarning, match="damaged .* measured again"):
        assert Store(tmp_path).get(KEY) is None


def test_one_flipped_bit_in_the_values_is_seen(tmp_path):
    Store(tmp_path).put(KEY, measurement(), {})
    path = entry(tmp_path, "safetensors")
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(bytes(payload))
    with pytest.warns(StoreWarning, match="recorded digest"):
        assert Store(tmp_path).get(KEY) is None


def test_an_entry_renamed_to_another_key_is_refused(tmp_path):
    Store(tmp_path).put(KEY, measurement(), {})
    other = "ab" + "1" * 62
    path = entry(tmp_path, "json")
    path.with_name(f"{other}.json").write_bytes(path.read_bytes())
    with pytest.warns(StoreWarning, match="another entry"):
        assert Store(tmp_path).get(other) is None


def test_values_without_facts_do_not_exist(tmp_path):
    """A writer killed between the two files leaves nothing behind that is believed."""
    Store(tmp_path).put(KEY, measurement(), {})
    entry(tmp_path, "json").unlink()
    assert not Store(tmp_path).has(KEY)
    assert Store(tmp_path).get(KEY) is None


def test_a_folder_that_cannot_be_written_keeps_the_measurement_in_memory(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    store = Store(blocked)
    with pytest.warns(StoreWarning, match="cannot be written"):
        store.put(KEY, measurement(), {})
    assert store.require(KEY, "x")["induction"].shape == (3, 2)
    assert store.has(KEY)


def test_not_applicable_is_stored_with_its_reason(tmp_path):
    Store(tmp_path).put_not_applicable(KEY, "the tokenizer splits 'Zoe'", {})
    with pytest.raises(NotApplicable, match="splits 'Zoe'"):
        Store(tmp_path).get(KEY)


def test_the_store_can_be_any_fsspec_url(tmp_path):
    Store("memory://mechtests").put(KEY, measurement(), {})
    assert Store("memory://mechtests").require(KEY, "x").facts == {"weights": "f00d"}


def test_nothing_is_left_beside_the_entry_and_facts_are_plain_json(tmp_path):
    Store(tmp_path).put(KEY, measurement(), {"metric": "attention.head_scores"})
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == [f"{KEY}.json", f"{KEY}.safetensors"]
    assert json.loads(entry(tmp_path, "json").read_text())["request"]["metric"]


def test_a_killed_writer_loses_only_what_it_was_writing(tmp_path):
    Store(tmp_path).put(KEY, measurement(), {})
    code = (
        "import os, pathlib, sys\n"
        "from mechtests.store import Store\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_store import measurement\n"
        "pathlib.Path.replace = lambda *a: os._exit(9)\n"
        "Store(sys.argv[1]).put('cd' + '0' * 62, measurement(), {})\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), here], check=False, env=os.environ
    )
    assert done.returncode == 9
    assert Store(tmp_path).has(KEY)
    assert not Store(tmp_path).has("cd" + "0" * 62)
