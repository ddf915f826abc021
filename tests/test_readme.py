"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

from ct_adam.cli import main
from ct_adam.sweep.configured import read_config, sweep_of


def test_python_blocks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a checkpoint
    text = (Path(__file__).parents[1] / "README.md").read_text()
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    edge = re.search(r"ct-adam (sweep --problem worst_case.*?)(?:  #|\n\n)", text, re.DOTALL)
    assert edge is not None
    assert main(edge[1].replace("\\\n", "").split()) == 0
    capsys.readouterr()
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    error, update, boundary, followed = capsys.readouterr().out.strip().split("\n")
    assert 6e-4 < float(error) < 8e-4  # "7e-4 of the distance travelled"
    largest, _, bound = update.partition(" <= ")
    assert float(largest) <= float(bound)
    assert abs(float(boundary.split(" ± ")[0]) - 0.81) < 3e-3  # 2/steps and half a cell
    measured, estimated, advice = followed.split(" ", 2)
    assert float(measured) < 0.02 > float(estimated)
    assert advice == "Nothing speaks against this flow."
    assert namespace["table"].sizes["lane"] == 3
    assert namespace["long"].loss[-1] < namespace["long"].loss[0]
    assert (tmp_path / "out" / "mine" / "state.npz").exists()


@pytest.mark.slow
def test_page_on_sweeps(tmp_path, monkeypatch, capsys):
    """Its Python runs; its file and its commands are understood (by a dry run)."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "sweeps.md", "exec"), namespace)
    assert namespace["edge"].boundary.dims == ("dynamics", "b1")
    assert namespace["dataset"].sizes == {"b1": 64, "b2": 64}
    assert (tmp_path / "mine.nc").exists()
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "map.toml").write_text(toml)
    file = read_config(tmp_path / "map.toml")
    assert sweep_of(file).levels[0].tiling.shape == (2, 16, 3, 8)
    (words,) = re.findall(r"ct-adam (sweep .*?--dry-run)", text, re.DOTALL)
    assert main(words.replace("\\\n", "").split()) == 0
    assert "262144 lanes" in capsys.readouterr().out
