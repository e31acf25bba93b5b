"""Chat chunks into what a chat client reads: events for a stream, one object for the rest."""

from mesh_llm.core.errors import MeshError
from mesh_llm.gateway.errors import openai_shape
from mesh_llm.gateway.json_values import Json, as_list, as_object, dump, objects_at
from mesh_llm.gateway.openai.folded import Folded
from mesh_llm.gateway.sse import DONE, encode


class ChatStream:
    """Also serves `/v1/completions`, whose streams have the same frame."""

    def __init__(self, model: str) -> None:
        self._model = model

    def feed(self, chunk: Json) -> bytes:
        return encode(chunk | {"model": self._model})

    def finish(self) -> bytes:
        return encode(DONE)

    def failure(self, error: MeshError) -> bytes:
        return encode(dump(openai_shape(error)))

    def answer(self) -> Json:
        raise AssertionError("a stream has no whole answer")


class ChatChoice:
    """`folded.Choice`."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {"content": [], "reasoning_content": [], "refusal": []}
        self.calls: dict[int, Json] = {}
        self.logprobs: list[object] | None = None
        self.finish_reason: str | None = None

    def feed(self, choice: Json) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = as_object(choice.get("delta")) or {}
        for name, pieces in self.texts.items():
            if delta.get(name):
                pieces.append(delta[name])
        for piece in objects_at(delta, "tool_calls"):
            self._feed_call(piece)
        scores = as_list((as_object(choice.get("logprobs")) or {}).get("content"))
        if scores is not None:
            self.logprobs = [*(self.logprobs or []), *scores]

    def _feed_call(self, piece: Json) -> None:
        fresh: Json = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self.calls.setdefault(int(piece.get("index") or 0), fresh)
        call["id"] = piece.get("id") or call["id"]
        function = as_object(piece.get("function")) or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def as_json(self, index: int) -> Json:
        joined = {name: "".join(pieces) for name, pieces in self.texts.items()}
        message: Json = {"role": "assistant", "content": joined["content"]}
        if joined["reasoning_content"]:
            message["reasoning_content"] = joined["reasoning_content"]
        if joined["refusal"]:
            message["refusal"] = joined["refusal"]
        if self.calls:
            message["tool_calls"] = [self.calls[position] for position in sorted(self.calls)]
            message["content"] = joined["content"] or None
        logprobs = None if self.logprobs is None else {"content": self.logprobs}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self.finish_reason}


class ChatAnswer(Folded):
    """Folds a stream into one `chat.completion`."""

    def __init__(self, model: str) -> None:
        super().__init__(model, "chat.completion", ChatChoice)
