"""A load generator that costs the measured machine little: raw sockets, no parsing but of what is counted."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

PROMPT_READ = re.compile(rb'"prompt_n":\s*(\d+)')
"""In llama-server's timings, which come with the last chunk."""

PROMPT = "Write a long story about a lighthouse keeper who learns to bake bread. Story number {number}:"


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who answers /v1/chat/completions."""

    name: str
    url: str
    api_key: str
    model: str


@dataclass(frozen=True, slots=True)
class Answer:
    first_token_s: float
    """From sending the request to its first token."""
    tokens: int
    seconds: float
    """From sending the request to its end."""
    prompt_tokens: int = 0
    """That were read; 0 where the target does not say."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Several answers at once."""

    tokens_per_second: float
    first_token_s: float
    """Median of the streams."""


class Refused(Exception):
    """Not answered with 200: not ready yet, perhaps."""


async def ask(target: Target, number: int, tokens: int, prompt: str = PROMPT) -> Answer:
    """One streamed answer of exactly `tokens` tokens. Raises OSError or Refused."""
    url = urlsplit(target.url)
    body = json.dumps(
        {
            "model": target.model,
            "messages": [{"role": "user", "content": prompt.format(number=number)}],
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": False,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
        f"Authorization: Bearer {target.api_key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        started = time.perf_counter()
        writer.write(head.encode() + body)
        return await _read(reader, started)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, started: float) -> Answer:
    status = await reader.readline()
    if status.split()[1:2] != [b"200"]:
        raise Refused(f"{status.decode().strip()}: {(await reader.read()).decode()}")
    first = 0.0
    count = prompt_tokens = 0
    while line := await reader.readline():
        if line.startswith(b"data: {") and b'"content":"' in line:
            first = first or time.perf_counter()
            count += 1
        elif line.startswith(b"data: [DONE]"):
            break
        if found := PROMPT_READ.search(line):
            prompt_tokens = int(found[1])
    return Answer(first - started, count, time.perf_counter() - started, prompt_tokens)


async def burst(target: Target, streams: int, tokens: int, number: int) -> Burst:
    """`streams` answers at once; tokens a second over the whole burst."""
    started = time.perf_counter()
    answers = await asyncio.gather(*(ask(target, number * 1000 + i, tokens) for i in range(streams)))
    seconds = time.perf_counter() - started
    firsts = sorted(answer.first_token_s for answer in answers)
    return Burst(sum(answer.tokens for answer in answers) / seconds, firsts[len(firsts) // 2])
