"""`mesh-llm invite`: a token for another node, made by the running one; `invite revoke` takes one back."""

import json
from argparse import Namespace

from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.control import ask
from mesh_llm.core.errors import RequestRefused


async def run(arguments: Namespace) -> int:
    home = home_of(arguments)
    if arguments.action == "revoke":
        if arguments.once or arguments.ttl is not None or arguments.json:
            raise RequestRefused("`mesh-llm invite revoke` takes no --once, --ttl or --json: leave them out.")
        await ask(home, "/api/invite/revoke", {"invite": arguments.invite})
        print("revoked: it lets nobody in any more")
        return 0
    answer = await ask(home, "/api/invite", {"once": arguments.once, "ttl_s": arguments.ttl})
    print(json.dumps({"token": answer["token"]}) if arguments.json else answer["token"])
    return 0
