import subprocess
import venv
from pathlib import Path

import pytest

from scripts.make_venv import install_pip, version_of


def test_releases_are_ordered_by_number_and_betas_come_first():
    names = ["pip-9.0.3-py3-none-any.whl", "pip-26.3-py3-none-any.whl", "pip-27.0b1-py3-none-any.whl"]
    assert max(names, key=version_of) == "pip-26.3-py3-none-any.whl"


@pytest.mark.real
def test_a_python_without_ensurepip_gets_its_pip_from_the_index(tmp_path: Path):
    venv.create(tmp_path, symlinks=True, with_pip=False)
    python = tmp_path / "bin" / "python"
    install_pip(python)
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=True).stdout
