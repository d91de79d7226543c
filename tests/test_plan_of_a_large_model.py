"""The plan of a model that is too large to load here: what it would cost, and nothing fetched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mechtests import shipped
from tests import folders, hub_server

LLAMA = "meta-llama/Meta-Llama-3-8B"
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SHARDS = {f"model-0000{n}-of-00004.safetensors": 4_015_000_000 for n in range(1, 5)}


@pytest.fixture
def hub(tmp_path: Path):
    """A hub that lists Llama 3 8B, and serves all of it but the weights."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SHAPE))
    index = {"metadata": {}, "weight_map": {f"part.{n}": name for n, name in enumerate(SHARDS)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    folders.tokenizer(bos=True).save_pretrained(folder)
    with hub_server.serving() as hub:
        hub.add(LLAMA, "main", folder)
        hub.repos[LLAMA].listed.update(SHARDS)
        yield hub


def test_a_plan_says_passes_operations_and_bytes_and_fetches_no_weights(hub, tmp_path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.endswith("OFFLINE")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "COLUMNS": "100"}
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(shipped.folder("assertions")), "--mech-plan"),
            *("-q", "-p", "no:cacheprovider", "--mech-claims", "nikankin2025.*"),
            *("--model", LLAMA, "--mech-profile", "standard"),
            *("--mech-cache", str(tmp_path / "store")),
        ],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 5), ran.stdout + ran.stderr
    [total] = re.findall(r"at most (\d+) measurements to make \(0 stored\)", ran.stdout)
    assert int(total) > 10
    totals = (
        r": ([\d,]+) forward and ([\d,]+) backward passes of one prompt, ([\d,.]+) TFLOP; "
        r"([\d,]+) MB to download"
    )
    found = re.search(totals, " ".join(ran.stdout.split()))
    assert found, ran.stdout
    forward, _, tera, megabytes = (float(each.replace(",", "")) for each in found.groups())
    assert megabytes == pytest.approx(16_060, abs=100)
    # a pass of one prompt of five tokens is 2 * 5 * 7e9 operations and more
    assert tera > forward * 5 * 2 * 6.5e9 / 1e12 / 10
    assert not any(name in line for name in SHARDS for line in hub.asked)
