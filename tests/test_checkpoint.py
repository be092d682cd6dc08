import json
import os
import shutil
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mairl import artifact, checkpoint
from mairl.types import MairlError


class Part(eqx.Module):
    weight: jax.Array
    name: str = eqx.field(static=True)


def tree(scale: float = 1.0) -> dict:
    return {
        "part": Part(jnp.arange(6.0).reshape(2, 3) * scale, "static"),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4, impl="rbg"), 2),
        "count": jnp.int32(7),
        "half": jnp.array([1.5, -2.0], jnp.bfloat16),
        "mask": jnp.array([True, False]),
        "host": np.arange(12.0).reshape(3, 4).T,  # float64, not contiguous
        "scalar": np.float32(0.25),
        "nothing": None,
        "empty": np.zeros((0, 2), np.float32),
        "flag": True,
        "steps": 2**40,
        "rate": 0.1,
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, jax.Array) == isinstance(y, jax.Array)
        assert isinstance(x, (np.ndarray, np.generic)) == isinstance(y, (np.ndarray, np.generic))
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
        else:
            assert type(x) is type(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_every_kind_of_leaf_comes_back_the_same(tmp_path):
    saved = tree()
    folder = checkpoint.save(tmp_path, "step-10", saved, {"env_steps": np.int64(10), "at": (1, 2)})
    loaded, meta = checkpoint.load_latest(tmp_path, tree(scale=0.0))
    assert_same(saved, loaded)
    assert (meta["env_steps"], meta["at"], meta["warnings"]) == (10, [1, 2], [])
    assert meta["versions"]["jax"] == jax.__version__
    assert folder.name == "checkpoint-00000001-step-10"
    # What comes back can be changed in place where the original could.
    loaded["host"][0, 0] = 1.0
    # A random key goes on as the one that was saved.
    assert float(jax.random.normal(loaded["key"])) == float(jax.random.normal(saved["key"]))


def test_abstract_structure_is_enough(tmp_path):
    def build():
        return {"key": jax.random.key(0), "x": jnp.zeros(3)}

    saved = {"key": jax.random.key(9), "x": jnp.ones(3)}
    checkpoint.save(tmp_path, "a", saved, {})
    assert_same(saved, checkpoint.load_latest(tmp_path, jax.eval_shape(build))[0])


def test_newest_two_are_kept_and_order_is_not_by_name(tmp_path):
    for i, name in enumerate(["z", "b", "b", "a"]):
        checkpoint.save(tmp_path, name, {"x": i}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000003-b",
        "checkpoint-00000004-a",
    ]
    assert checkpoint.load_latest(tmp_path, {"x": 0})[0] == {"x": 3}


def test_meta_read_from_a_checkpoint_can_be_saved_again(tmp_path):
    checkpoint.save(tmp_path, "a", {"x": 1}, {"n": 1})
    _, meta = checkpoint.load_latest(tmp_path, {"x": 0})
    checkpoint.save(tmp_path, "b", {"x": 2}, {**meta, "n": 2, "warnings": ["old"]})
    _, meta = checkpoint.load_latest(tmp_path, {"x": 0})
    assert (meta["n"], meta["warnings"]) == (2, [])


class Killed(BaseException):
    """Stands in for the end of the process: nothing may catch it."""


def kill_at(monkeypatch, call: int) -> list:
    """End the process at the ``call``-th of the system calls that a save is made of."""
    seen = []
    for name in ("replace", "fsync"):
        real = getattr(os, name)

        def wrapped(*args, real=real, name=name):
            seen.append(name)
            if len(seen) - 1 == call:
                raise Killed
            return real(*args)

        monkeypatch.setattr(os, name, wrapped)
    return seen


def test_a_kill_at_any_moment_leaves_a_sound_checkpoint(tmp_path, monkeypatch):
    for call in range(100):
        directory = tmp_path / str(call)
        for i in (0, 1):
            checkpoint.save(directory, "old", {"x": np.full(50, i)}, {"i": i})
        with monkeypatch.context() as patch:
            kill_at(patch, call)
            try:
                checkpoint.save(directory, "new", {"x": np.full(50, 2)}, {"i": 2})
                finished = True
            except Killed:
                finished = False
        loaded, meta = checkpoint.load_latest(directory, {"x": np.zeros(50, int)})
        assert meta["i"] in (1, 2)
        assert meta["warnings"] == []
        assert (loaded["x"] == meta["i"]).all()
        # The next save cleans up and goes on.
        checkpoint.save(directory, "next", {"x": np.full(50, 3)}, {"i": 3})
        assert checkpoint.load_latest(directory, {"x": np.zeros(50, int)})[1]["i"] == 3
        assert len(list(directory.iterdir())) == 2
        if finished:
            break
    # Arrays, JSON, folder, rename, parent, removal of the oldest.
    assert call == 6


def corrupt(folder, how):
    arrays, text = folder / "arrays.safetensors", folder / "checkpoint.json"
    if how == "truncated":
        arrays.write_bytes(arrays.read_bytes()[:-3])
    elif how == "flipped":
        data = bytearray(arrays.read_bytes())
        data[-1] ^= 1
        arrays.write_bytes(bytes(data))
    elif how == "missing":
        arrays.unlink()
    elif how == "json cut":
        text.write_text(text.read_text()[:40])
    elif how == "json empty":
        text.write_text("[]")
    elif how == "meta edited":
        text.write_text(text.read_text().replace('"i": 1', '"i": 9'))
    elif how == "folder empty":
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize(
    "how",
    ["truncated", "flipped", "missing", "json cut", "json empty", "meta edited", "folder empty"],
)
def test_corrupt_newest_falls_back_and_says_so_then_both_corrupt(tmp_path, how):
    first = checkpoint.save(tmp_path, "a", {"x": jnp.zeros(4)}, {"i": 0})
    second = checkpoint.save(tmp_path, "b", {"x": jnp.ones(4)}, {"i": 1})
    corrupt(second, how)
    loaded, meta = checkpoint.load_latest(tmp_path, {"x": jnp.zeros(4)})
    assert meta["i"] == 0
    np.testing.assert_array_equal(loaded["x"], 0.0)
    assert len(meta["warnings"]) == 1
    assert "00000002-b is corrupt" in meta["warnings"][0]
    assert "using checkpoint-00000001-a instead" in meta["warnings"][0]
    corrupt(first, "truncated")
    with pytest.raises(MairlError, match=r"(?s)00000002-b is corrupt.*00000001-a is corrupt"):
        checkpoint.load_latest(tmp_path, {"x": jnp.zeros(4)})


def test_nothing_to_resume(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MairlError, match=r"nothing to resume.*without resuming"):
            checkpoint.load_latest(place, {"x": 0})


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"net": {"w": jnp.zeros((2, 4))}, "n": 1}, r"'net.w' is float32\[2,3\] in it and .*2,4\]"),
        (
            {"net": {"w": jnp.zeros((2, 3), jnp.int32)}, "n": 1},
            r"is float32\[2,3\] .* int32\[2,3\]",
        ),
        ({"net": {}, "n": 1}, r"'net.w' is float32\[2,3\] in it and absent in this run"),
        (
            {"net": {"w": jnp.zeros((2, 3)), "b": 1.0}, "n": 1},
            r"'net.b' is absent in it and Python",
        ),
        ({"net": {"w": jnp.zeros((2, 3))}, "n": jnp.int32(1)}, r"'n' is Python int .* int32\[\]"),
    ],
)
def test_another_configuration_is_named_entry_by_entry(tmp_path, like, message):
    checkpoint.save(tmp_path, "a", {"net": {"w": jnp.zeros((2, 3))}, "n": 5}, {})
    with pytest.raises(MairlError, match=message) as caught:
        checkpoint.load_latest(tmp_path, like)
    assert "another configuration or version" in str(caught.value)
    assert "start a new run directory" in str(caught.value)


def test_another_prng_implementation_is_refused(tmp_path):
    checkpoint.save(tmp_path, "a", {"key": jax.random.key(0)}, {})
    with pytest.raises(MairlError, match=r"'key' is key<fry>\[\] in it and key<rbg>\[\]"):
        checkpoint.load_latest(tmp_path, {"key": jax.random.key(0, impl="rbg")})


def test_another_format_version_is_not_called_corrupt(tmp_path):
    folder = checkpoint.save(tmp_path, "a", {"x": 1}, {})
    path = folder / "checkpoint.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format_version": 99}))
    with pytest.raises(MairlError, match="format version 99, this mairl reads 1; install mairl"):
        checkpoint.load_latest(tmp_path, {"x": 1})


def test_unwritable_place_and_unsavable_leaf(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MairlError, match="cannot be written"):
        checkpoint.save(tmp_path / "file", "a", {"x": 1}, {})
    with pytest.raises(TypeError, match="type str cannot be saved"):
        checkpoint.save(tmp_path, "a", {"x": "text"}, {})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        checkpoint.save(tmp_path, "a", {"x": 1}, {"f": print})
    with pytest.raises(ValueError, match="two entries"):
        checkpoint.save(tmp_path, "a", {"a.b": 1, "a": {"b": 2}}, {})
    with pytest.raises(ValueError, match="checkpoint name"):
        checkpoint.save(tmp_path, "../a", {"x": 1}, {})


def test_artifact_round_trip_and_names(tmp_path):
    part = Part(jnp.ones((2, 3)), "static")
    path = checkpoint.save_artifact(tmp_path / "out" / "policy-0.5", {"net": part}, {"env": "X-v0"})
    assert path == tmp_path / "out" / "policy-0.5.safetensors"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "policy-0.5.json",
        "policy-0.5.safetensors",
    ]
    for given in (path, path.with_suffix(".json"), tmp_path / "out" / "policy-0.5"):
        arrays, meta = artifact.load_artifact(given)
        assert list(arrays) == ["net.weight"]
        np.testing.assert_array_equal(arrays["net.weight"], part.weight)
        assert meta["env"] == "X-v0"


def test_artifact_of_one_array_and_of_bfloat16(tmp_path):
    checkpoint.save_artifact(tmp_path / "a", jnp.ones(2, jnp.bfloat16), {})
    arrays, _ = artifact.load_artifact(tmp_path / "a")
    assert arrays["value"].dtype == jnp.bfloat16


def test_artifact_missing_mixed_or_corrupt(tmp_path):
    a = checkpoint.save_artifact(tmp_path / "a", {"w": np.zeros(3)}, {})
    b = checkpoint.save_artifact(tmp_path / "b", {"w": np.ones(3)}, {})
    shutil.copy(b, a)  # The arrays of one beside the JSON of the other.
    with pytest.raises(MairlError, match=r"a.safetensors is corrupt.*copy or export both"):
        artifact.load_artifact(a)
    b.with_suffix(".json").unlink()
    with pytest.raises(MairlError, match=r"b.json does not exist.*copy both"):
        artifact.load_artifact(b)


@dataclass(frozen=True)
class Options:
    sizes: tuple[int, ...] = (8, 8)
    rate: float = 0.1


def test_check_config_lists_every_difference():
    saved = json.loads(json.dumps({"policy": {"sizes": [8, 8], "rate": 0.1}, "seed": 0, "old": 1}))
    same = {"policy": Options(), "seed": 0, "old": 1}
    checkpoint.check_config(saved, same)
    with pytest.raises(MairlError) as caught:
        checkpoint.check_config(saved, {"policy": Options(rate=0.2), "seed": 1, "new": None})
    assert str(caught.value).splitlines() == [
        "the checkpoint is of another configuration:",
        "  new: saved absent, now null",
        "  old: saved 1, now absent",
        "  policy.rate: saved 0.1, now 0.2",
        "  seed: saved 0, now 1",
        "resume with the saved values, or start a new run directory for the new ones",
    ]
