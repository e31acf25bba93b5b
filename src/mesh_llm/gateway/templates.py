"""What each backend's chat template can express, asked once per engine."""

import json

from mesh_llm.core.serving import Endpoint
from mesh_llm.gateway.errors import read_engine_error
from mesh_llm.gateway.exchange import TemplateAbilities
from mesh_llm.gateway.json_values import as_object
from mesh_llm.gateway.upstream import Upstream

UNKNOWN = TemplateAbilities(tools=True, system_role=True)
"""For engines that are not llama-server: they handle tools or refuse them."""


class Templates:
    def __init__(self) -> None:
        self._known: dict[str, tuple[Endpoint, TemplateAbilities]] = {}

    async def abilities(self, model: str, endpoint: Endpoint, upstream: Upstream) -> TemplateAbilities:
        """Raises UpstreamLost when the engine is gone."""
        known = self._known.get(model)
        if known is not None and known[0] == endpoint:
            return known[1]
        async with upstream.send(endpoint, "/props", None) as answer:
            body = await answer.whole()
            if answer.status == 503:
                raise read_engine_error(answer.status, body)
            abilities = read_abilities(body) if answer.status == 200 else UNKNOWN
        self._known[model] = (endpoint, abilities)
        return abilities


def read_abilities(props: bytes) -> TemplateAbilities:
    try:
        found = as_object(json.loads(props)) or {}
    except ValueError:
        return UNKNOWN
    told = as_object(found.get("chat_template_caps"))
    if told is None:
        return UNKNOWN
    return TemplateAbilities(
        tools=bool(told.get("supports_tools")), system_role=told.get("supports_system_role") is not False
    )
