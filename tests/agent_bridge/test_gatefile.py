"""A gate's file is checked before anything runs; the shipped ones are in order."""

import re
from pathlib import Path

import pytest
import yaml

from agent_bridge.gate.gatefile import load_gate
from runtime import config
from runtime.errors import SurefootError

SHIPPED = config.find("gates", "half_cheetah")


@pytest.fixture
def write(tmp_path):
    """Writes the shipped gate with changes: dotted key -> value, None removes it."""

    def write(**changes):
        document = yaml.safe_load(SHIPPED.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            section = document
            for parent in parents:
                section = section[parent]
            if value is None:
                del section[last]
            else:
                section[last] = value
        path = tmp_path / "gate.yaml"
        path.write_text(yaml.safe_dump(document))
        return str(path)

    return write


@pytest.mark.parametrize("name", config.available("gates"))
def test_shipped_gates_load(name):
    gate = load_gate(name)
    assert gate.robot == name
    assert len(gate.seeds["gate"]) >= 64


def test_the_hash_follows_the_file(write):
    one = load_gate(write(stages__score__delta=0.03)).hash
    assert load_gate(write(stages__score__delta=0.04)).hash != one
    assert load_gate(write(stages__score__delta=0.03)).hash == one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__smke": {}}, "unknown stage 'smke'; did you mean 'smoke'"),
        ({"stages__latency": None}, "key 'latency' is missing"),
        ({"stages__latency__speed": 3}, "unknown key 'speed'"),
        ({"seeds__gate": {"first": 32, "count": 64}}, "seeds 32 to 63 are in dev and in gate"),
        ({"seeds__holdout": {"first": 70063, "count": 1}}, "seeds 70063 to 70063 are in gate and in holdout"),
        ({"seeds__gate": {"first": 70000, "count": 32}}, "looks at 64 pairs, seeds.gate has 32 seeds"),
        ({"stages__mismatch__looks": [4, 65]}, "mismatch looks at 65 pairs"),
        ({"stages__safety__episodes": 17}, "stages.safety looks at 68 pairs (4 times its 17 episodes, where in doubt)"),
        ({"seeds__dev": {"first": 0, "count": 1}}, "stages.golden looks at 2 pairs, seeds.dev has 1 seeds"),
        ({"seeds__gate": {"first": 940, "count": 64}}, "seeds.gate: seeds 1000 to 1009 are kept for reporting"),
        ({"seeds__dev": {"first": 1009, "count": 4}}, "seeds.dev: seeds 1000 to 1009 are kept for reporting"),
        ({"stages__score__looks": [4, 64, 16]}, "looks follow one another with more pairs each"),
        ({"stages__score__looks": [4, 8]}, "nothing is accepted below 10"),
        ({"stages__score__alpha": 0.7}, "outside"),
        ({"stages__latency__deadline": 0.0}, "never in time"),
        ({"stages__latency__ratio": 0.5}, "outside"),
        ({"stages__safety__faults": {}}, "is empty"),
        ({"stages__safety__faults__heavy": {"mas": 1.1}}, "unknown key 'mas'; did you mean 'mass'"),
        ({"robot": "half_cheeta"}, "unknown robot 'half_cheeta'"),
        ({"backend": "loki"}, "unknown 'loki'; did you mean 'loky'"),
        ({"backend": "threading"}, "unknown 'threading'"),
        ({"backend": "dask"}, "unknown 'dask'"),
    ],
)
def test_a_wrong_gate_is_refused_in_one_line(write, changes, message):
    with pytest.raises(SurefootError, match=re.escape(message)) as error:
        load_gate(write(**changes))
    assert "\n" not in str(error.value)
    assert Path(str(error.value).split(":")[0]).name == "gate.yaml"
