"""What llama-server makes of chats under given templates: a program, for llama.cpp stays out of the tests.

It reads one JSON object from standard input: `model`, and `cases`, a list of [template, [body, ...]]. For
each case it writes a line: what the template can say, and for each body the prompt, or null where it is
refused.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

import xllamacpp


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp writes there too
    for template, bodies in asked["cases"]:
        server = _serve(asked["model"], template)
        url = server.listening_address
        abilities = _ask(f"{url}/props")["chat_template_caps"]
        answers = [_ask(f"{url}/apply-template", body) for body in bodies]
        print(json.dumps([abilities, [answer.get("prompt") for answer in answers]]), file=told, flush=True)
        del server


def _serve(model: str, template: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.chat_template = template
    params.use_jinja = True
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 64
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 1
    params.endpoint_props = True
    params.cpuparams.n_threads = 1
    return xllamacpp.Server(params)


def _ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


if __name__ == "__main__":
    main()
