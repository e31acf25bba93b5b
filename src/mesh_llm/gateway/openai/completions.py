"""`/v1/completions`: the request checked and prepared, its chunks mended, its answer folded."""

from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.exchange import Exchange, Mender, Usage, Writer
from mesh_llm.gateway.json_values import (
    Json,
    as_list,
    as_object,
    flag,
    object_at,
    objects_at,
    refuse,
    whole_number,
)
from mesh_llm.gateway.openai.chat_answer import ChatStream
from mesh_llm.gateway.openai.fields import (
    check_numbers,
    check_stop,
    choices_wanted,
    refuse_meaningful,
    without_engine_controls,
)
from mesh_llm.gateway.openai.folded import Folded
from mesh_llm.gateway.openai.usage import UsageMender

PATH = "/v1/completions"


def exchange(body: Json, model: ServedModel) -> Exchange:
    stream = flag(body, "stream")
    prompts = read_prompts(body)
    choices = choices_wanted(body)
    prepared = _prepared(body, model)
    menders = _menders(body, prompts, choices)
    if stream and not menders and len(prompts) * choices == 1:
        return Exchange(PATH, prepared, ChatStream(model.name), (), stream=True)
    usage = Usage()
    tell = not stream or flag(object_at(body, "stream_options"), "include_usage")
    counter = UsageMender(usage, choices_per_prompt=choices, tell=tell)
    writer: Writer = ChatStream(model.name) if stream else CompletionAnswer(model.name)
    generations = len(prompts) * choices
    return Exchange(PATH, prepared, writer, (counter, *menders), stream, generations, usage)


def _prepared(body: Json, model: ServedModel) -> Json:
    check_numbers(body)
    check_stop(body)
    refuse_meaningful(
        body, "suffix", "Write the text after the gap into the prompt, as the model was taught it."
    )
    best_of = whole_number(body, "best_of", least=1)
    if best_of is not None and best_of > choices_wanted(body):
        raise RequestRefused(
            "`best_of` is not supported. Ask for `n` choices and pick one.",
            code="unsupported_parameter",
            parameter="best_of",
        )
    unseen = ("echo", "suffix", "best_of")
    prepared = {name: value for name, value in without_engine_controls(body).items() if name not in unseen}
    if body.get("logprobs") is not None:
        prepared["logprobs"] = max(
            1, whole_number(body, "logprobs", least=0) or 0
        )  # 0 means none to the engine
    return prepared | {"model": model.name, "stream": True}


def _menders(body: Json, prompts: list[Any], choices: int) -> list[Mender]:
    menders: list[Mender] = []
    if flag(body, "echo"):
        if body.get("logprobs") is not None or not all(isinstance(prompt, str) for prompt in prompts):
            raise RequestRefused(
                "`echo` is served for prompts of text and without `logprobs` only.",
                code="unsupported_parameter",
                parameter="echo",
            )
        menders.append(Echo(prompts, choices))
    if body.get("logprobs") is not None:
        menders.append(PlainLogprobs(whole_number(body, "logprobs", least=0) or 0))
    return menders


def read_prompts(body: Json) -> list[Any]:
    """Each a string or a list of token numbers."""
    prompt: Any = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    prompts = as_list(prompt)
    if not prompts:
        refuse("prompt", "a string, a list of token numbers, or a list of either")
    if all(_is_token(token) for token in prompts):
        return [prompts]
    for position, one in enumerate(prompts):
        tokens = as_list(one)
        if not isinstance(one, str) and not (tokens and all(_is_token(token) for token in tokens)):
            refuse(f"prompt[{position}]", "a string or a list of token numbers")
    return prompts


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Echo:
    """Puts the prompt before the first words of each choice."""

    def __init__(self, prompts: list[str], choices_per_prompt: int) -> None:
        self._prompts = prompts
        self._choices_per_prompt = choices_per_prompt
        self._begun: set[int] = set()

    def feed(self, chunk: Json) -> list[Json]:
        return [chunk | {"choices": [self._echoed(choice) for choice in objects_at(chunk, "choices")]}]

    def _echoed(self, choice: Json) -> Json:
        index = int(choice.get("index") or 0)
        if index in self._begun:
            return choice
        self._begun.add(index)
        return choice | {
            "text": self._prompts[index // self._choices_per_prompt] + str(choice.get("text") or "")
        }

    def finish(self) -> list[Json]:
        return []


class PlainLogprobs:
    """The engine gives log probabilities in the form of chat; completion clients read four parallel lists."""

    def __init__(self, rivals: int) -> None:
        self._rivals = rivals
        self._offsets: dict[int, int] = {}

    def feed(self, chunk: Json) -> list[Json]:
        return [chunk | {"choices": [self._plain(choice) for choice in objects_at(chunk, "choices")]}]

    def _plain(self, choice: Json) -> Json:
        index = int(choice.get("index") or 0)
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + len(str(choice.get("text") or ""))
        scores = as_list((as_object(choice.get("logprobs")) or {}).get("content"))
        if not scores:
            return choice | {"logprobs": None}
        tokens = [as_object(score) or {} for score in scores]
        offsets: list[int] = []
        for token in tokens:
            offsets.append(offset)
            offset += len(str(token.get("token")))
        rivals = [
            {str(rival.get("token")): rival.get("logprob") for rival in objects_at(token, "top_logprobs")}
            for token in tokens
        ]
        plain: Json = {
            "tokens": [token.get("token") for token in tokens],
            "token_logprobs": [token.get("logprob") for token in tokens],
            "top_logprobs": rivals if self._rivals else None,
            "text_offset": offsets,
        }
        return choice | {"logprobs": plain}

    def finish(self) -> list[Json]:
        return []


class TextChoice:
    """`folded.Choice`."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._logprobs: Json | None = None
        self._finish_reason: str | None = None

    def feed(self, choice: Json) -> None:
        self._pieces.append(choice.get("text") or "")
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._logprobs = _joined(self._logprobs, as_object(choice.get("logprobs")))

    def as_json(self, index: int) -> Json:
        return {
            "text": "".join(self._pieces),
            "index": index,
            "logprobs": self._logprobs,
            "finish_reason": self._finish_reason,
        }


class CompletionAnswer(Folded):
    """Folds a stream into one `text_completion`."""

    def __init__(self, model: str) -> None:
        super().__init__(model, "text_completion", TextChoice)


def _joined(before: Json | None, new: Json | None) -> Json | None:
    if before is None or new is None:
        return new if before is None else before
    return {name: _both(before.get(name), new.get(name)) for name in before}


def _both(before: Any, new: Any) -> Any:
    return None if before is None or new is None else [*before, *new]
