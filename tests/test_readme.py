"""The README's Python runs as it stands."""

import re
from pathlib import Path


def test_python_blocks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a checkpoint
    text = (Path(__file__).parents[1] / "README.md").read_text()
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    error, update, followed = capsys.readouterr().out.strip().split("\n")
    assert 6e-4 < float(error) < 8e-4  # "7e-4 of the distance travelled"
    largest, _, bound = update.partition(" <= ")
    assert float(largest) <= float(bound)
    measured, estimated, advice = followed.split(" ", 2)
    assert float(measured) < 0.02 > float(estimated)
    assert advice == "Nothing speaks against this flow."
    assert namespace["table"].sizes["lane"] == 3
    assert namespace["long"].loss[-1] < namespace["long"].loss[0]
    assert (tmp_path / "out" / "mine" / "state.npz").exists()
