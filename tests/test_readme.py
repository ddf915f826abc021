"""The README's Python runs as it stands."""

import re
from pathlib import Path


def test_python_blocks(capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    error, update = capsys.readouterr().out.strip().split("\n")
    assert 6e-4 < float(error) < 8e-4  # "7e-4 of the distance travelled"
    largest, _, bound = update.partition(" <= ")
    assert float(largest) <= float(bound)
    assert namespace["table"].sizes["lane"] == 3
