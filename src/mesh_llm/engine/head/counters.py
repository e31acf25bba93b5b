"""What a head has done since it began, in the form that Prometheus reads. Pure.

Counterpart: `server_task_result_metrics::to_metrics` of llama-server's server-task.cpp, with its names.
Left out is what a head does not count: calls of llama_decode, and what speculation did.
"""

from collections.abc import Iterable

from mesh_llm.engine.head.generation import Timings

TYPE = "text/plain; version=0.0.4"


class Counters:
    def __init__(self) -> None:
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._answer_tokens = 0
        self._prompt_milliseconds = 0.0
        self._answer_milliseconds = 0.0
        self._longest = 0
        self._since = Throughput()

    def count(self, timings: Timings) -> None:
        """Of an answer that has ended."""
        computed = timings.prompt_tokens - timings.cached_tokens
        self._prompt_tokens += computed
        self._cached_tokens += timings.cached_tokens
        self._answer_tokens += timings.answer_tokens
        self._prompt_milliseconds += timings.prompt_milliseconds
        self._answer_milliseconds += timings.answer_milliseconds
        self._longest = max(self._longest, timings.prompt_tokens + timings.answer_tokens)
        self._since.count(timings)

    def exposition(self, under_way: int, at_once: int) -> str:
        """`under_way`: requests that are not answered yet; `at_once`: how many of them are worked on. What
        `..._seconds` gauges tell is of the time since the last call."""
        since, self._since = self._since, Throughput()
        processing = min(under_way, at_once)
        counters = (
            (
                "prompt_tokens_total",
                "Number of prompt tokens processed, excluding cached tokens",
                self._prompt_tokens,
            ),
            (
                "prompt_tokens_cached_total",
                "Number of prompt tokens reused from the cache",
                self._cached_tokens,
            ),
            (
                "prompt_seconds_total",
                "Total time spent processing prompts",
                self._prompt_milliseconds / 1e3,
            ),
            ("tokens_predicted_total", "Number of generation tokens processed", self._answer_tokens),
            (
                "tokens_predicted_seconds_total",
                "Total time spent generating tokens",
                self._answer_milliseconds / 1e3,
            ),
            ("n_tokens_max", "Largest observed sequence length (prompt + generation)", self._longest),
        )
        gauges = (
            ("prompt_tokens_seconds", "Average prompt throughput in tokens/s", since.prompt),
            ("predicted_tokens_seconds", "Average generation throughput in tokens/s", since.answer),
            ("requests_processing", "Number of requests processing", processing),
            ("requests_deferred", "Number of requests deferred", under_way - processing),
        )
        return _exposed("counter", counters) + _exposed("gauge", gauges)


class Throughput:
    """Tokens a second over a while."""

    def __init__(self) -> None:
        self._timings: tuple[float, float, float, float] = (0, 0, 0, 0)

    def count(self, timings: Timings) -> None:
        prompt, prompt_ms, answer, answer_ms = self._timings
        self._timings = (
            prompt + timings.prompt_tokens - timings.cached_tokens,
            prompt_ms + timings.prompt_milliseconds,
            answer + timings.answer_tokens,
            answer_ms + timings.answer_milliseconds,
        )

    @property
    def prompt(self) -> float:
        return _per_second(self._timings[0], self._timings[1])

    @property
    def answer(self) -> float:
        return _per_second(self._timings[2], self._timings[3])


def _per_second(tokens: float, milliseconds: float) -> float:
    return 1e3 * tokens / milliseconds if milliseconds else 0.0


def _exposed(kind: str, values: Iterable[tuple[str, str, float]]) -> str:
    return "".join(
        f"# HELP llamacpp:{name} {description}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value:g}\n"
        for name, description, value in values
    )
