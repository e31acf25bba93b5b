"""What each backend's chat template can express, asked once per engine."""

import json

from mesh_llm.core.serving import Endpoint
from mesh_llm.gateway.errors import read_engine_error
from mesh_llm.gateway.exchange import TemplateAbilities
from mesh_llm.gateway.json_values import as_object
from mesh_llm.gateway.upstream import Upstream

UNKNOWN = TemplateAbilities(tools=True, system_role=True)
"""For an engine that does not say: it handles tools or refuses them."""

WITHOUT_TEMPLATE = TemplateAbilities(tools=True, system_role=True, enforced_calls=True)
"""For servers that speak OpenAI's API themselves."""

ENGINES_MAX = 64
"""Remembered; a restarted one has another address."""


class Templates:
    def __init__(self) -> None:
        self._known: dict[Endpoint, TemplateAbilities] = {}

    async def abilities(self, endpoint: Endpoint, upstream: Upstream) -> TemplateAbilities:
        """Raises UpstreamLost when the engine is gone."""
        if endpoint.dialect == "openai":
            return WITHOUT_TEMPLATE
        known = self._known.get(endpoint)
        if known is not None:
            return known
        async with upstream.send(endpoint, "/props", None) as answer:
            body = await answer.whole()
            if answer.status == 503:
                raise read_engine_error(answer.status, body)
            abilities = read_abilities(body) if answer.status == 200 else UNKNOWN
        self._known[endpoint] = abilities
        if len(self._known) > ENGINES_MAX:
            del self._known[next(iter(self._known))]
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
