"""What a made file's bytes were when it became whole, noted beside it, so that who alters one is found out.

As with models, a file is read again only where it looks other than when it was read last (`manifests.py`): a
disk that alters bytes and says nothing is not found out. Counterpart: `made_files.py`, which makes a file
anew whose seal is broken.
"""

import json
import os
from pathlib import Path
from typing import cast

from mesh_llm.models.records import RECORD_BYTES_MAX, Records, replace_text
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.writing import layout_digest, note_path
from mesh_llm.models.threads import run_to_end


class Seals:
    def __init__(self, records: Records) -> None:
        self._manifests = Manifests(records)

    async def why_broken(self, file: Path, layout: FileLayout, identity: str) -> str | None:
        """None where `file` is whole, and as this version would write it now from the model's files with this
        `identity`; empty where it is not here. One without a seal gets it: who made it was killed. Raises
        ModelDamaged where it is changed meanwhile."""
        try:
            why = await run_to_end(_why_other, file, layout)
            noted = await run_to_end(_noted, note_path(file))
            if why is not None:
                return why
            if not noted:
                await self.seal(file, layout, identity)
                return None
            if noted.get("layout") != layout_digest(layout, identity):
                return "it was made of another model, or by a version that made it otherwise"
            manifest, _ = await self._manifests.manifest_of(file)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        return (
            None if manifest.root.hex() == noted.get("root") else "its bytes were altered after it was made"
        )

    async def seal(self, file: Path, layout: FileLayout, identity: str) -> None:
        """Once it is whole. A store that cannot be written to keeps no seal. Raises ModelDamaged where it is
        changed meanwhile."""
        try:
            manifest, _ = await self._manifests.manifest_of(file)
            note = {"layout": layout_digest(layout, identity), "root": manifest.root.hex()}
            await run_to_end(replace_text, note_path(file), json.dumps(note))
        except OSError:
            return

    def forget(self, file: Path) -> None:
        """That is gone. Raises OSError."""
        note_path(file).unlink(missing_ok=True)
        self._manifests.forget(file)


def _why_other(file: Path, layout: FileLayout) -> str | None:
    """Raises OSError."""
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size != layout.bytes:
            return f"it has {size:,} bytes of {layout.bytes:,}"
        for literal in layout.literals:
            opened.seek(literal.target)
            if opened.read(len(literal.data)) != literal.data:
                return "by its header it is another one, of another model or choice of experts, or damaged"
    return None


def _noted(note: Path) -> dict[str, object]:
    """Empty where there is none that can be understood."""
    try:
        with note.open("rb") as file:
            fields = cast("object", json.loads(file.read(RECORD_BYTES_MAX)))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", fields) if isinstance(fields, dict) else {}
