"""Token counts of one request. llama-server reports each choice alone: with several, sums are made here."""

from mesh_llm.gateway.exchange import Usage
from mesh_llm.gateway.json_values import Json, as_list, as_object


class UsageMender:
    """Collects the counts of all choices, takes them out of the stream and adds one chunk with the sum.

    Choices of one prompt come in a row (`index // choices_per_prompt` is the prompt); a prompt is counted
    once.
    """

    def __init__(self, usage: Usage, *, choices_per_prompt: int, tell: bool) -> None:
        self._usage = usage
        self._choices_per_prompt = choices_per_prompt
        self._tell = tell
        self._prompts_counted: set[int] = set()
        self._last: Json = {}
        self._reports = 0

    def feed(self, chunk: Json) -> list[Json]:
        self._last = chunk
        report = as_object(chunk.get("usage"))
        if report is None:
            return [chunk]
        choices = as_list(chunk.get("choices"))
        self._count(report, choices or [])
        rest = {key: value for key, value in chunk.items() if key not in ("usage", "timings")}
        return [rest] if choices else []

    def _count(self, report: Json, choices: list[object]) -> None:
        self._reports += 1
        self._usage.completion_tokens += int(report.get("completion_tokens") or 0)
        first = as_object(choices[0]) if choices else None
        index = int((first or {}).get("index") or 0)
        prompt = index // self._choices_per_prompt
        if prompt in self._prompts_counted:
            return
        self._prompts_counted.add(prompt)
        self._usage.prompt_tokens += int(report.get("prompt_tokens") or 0)
        details = as_object(report.get("prompt_tokens_details")) or {}
        self._usage.cached_tokens += int(details.get("cached_tokens") or 0)

    def finish(self) -> list[Json]:
        if not self._tell or not self._reports:
            return []
        kept = ("id", "created", "model", "system_fingerprint", "object")
        chunk: Json = {key: self._last[key] for key in kept if key in self._last}
        chunk["choices"] = []
        chunk["usage"] = as_json(self._usage)
        if self._reports == 1 and "timings" in self._last:
            chunk["timings"] = self._last["timings"]
        return [chunk]


def as_json(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
