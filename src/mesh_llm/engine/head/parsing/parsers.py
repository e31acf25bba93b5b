"""The parser of each family, and the marks that it must be shown."""

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing import (
    deepseek,
    deepseek_dsml,
    gemma,
    gemma_values,
    glm,
    harmony,
    hermes,
    llama3,
    minimax,
    mistral,
    mistral_args,
    plain,
    qwen_coder,
)
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser, Form, FormatParser

PARSERS: dict[Family, type[FormatParser]] = {
    Family.PLAIN: plain.PlainParser,
    Family.HERMES: hermes.HermesParser,
    Family.QWEN_CODER: qwen_coder.QwenCoderParser,
    Family.LLAMA3: llama3.Llama3Parser,
    Family.MISTRAL: mistral.MistralParser,
    Family.MISTRAL_ARGS: mistral_args.MistralArgsParser,
    Family.GLM: glm.GlmParser,
    Family.DEEPSEEK_R1: deepseek.DeepseekParser,
    Family.DEEPSEEK_V31: deepseek.DeepseekParser,
    Family.DEEPSEEK_DSML: deepseek_dsml.DsmlParser,
    Family.MINIMAX: minimax.MinimaxParser,
    Family.HARMONY: harmony.HarmonyParser,
    Family.GEMMA: gemma.GemmaParser,
}

_DEEPSEEK = frozenset(
    {deepseek.SECTION, deepseek.SECTION_END, deepseek.BEGIN, deepseek.END, deepseek.SEPARATOR}
)

MARKS: dict[Family, frozenset[str]] = {
    Family.PLAIN: frozenset(),
    Family.HERMES: frozenset({hermes.BEGIN, hermes.END}),
    Family.QWEN_CODER: frozenset({qwen_coder.BEGIN, qwen_coder.END}),
    Family.LLAMA3: frozenset(),
    Family.MISTRAL: frozenset({mistral.BEGIN}),
    Family.MISTRAL_ARGS: frozenset({mistral_args.BEGIN, mistral_args.IDENTITY, mistral_args.ARGUMENTS}),
    Family.GLM: frozenset({glm.BEGIN, glm.END, glm.KEY_BEGIN, glm.KEY_END, glm.VALUE_BEGIN, glm.VALUE_END}),
    Family.DEEPSEEK_R1: _DEEPSEEK,
    Family.DEEPSEEK_V31: _DEEPSEEK,
    Family.DEEPSEEK_DSML: frozenset({deepseek_dsml.DSML}),
    Family.MINIMAX: frozenset({minimax.BEGIN, minimax.END}),
    Family.HARMONY: frozenset(
        {harmony.START, harmony.CHANNEL, harmony.MESSAGE, harmony.END, harmony.CONSTRAIN}
    ),
    Family.GEMMA: frozenset({gemma.CHANNEL, gemma.CHANNEL_END, gemma.BEGIN, gemma.END, gemma_values.QUOTE}),
}


def parser_of(family: Family, form: Form) -> AnswerParser:
    return PARSERS[family](form)


def preserved(family: Family, thinking: Thinking | None) -> frozenset[str]:
    """Texts of tokens that a parser must be shown although they are special (`preserved_tokens`)."""
    marks = {thinking.begin.strip(), thinking.end.strip()} if thinking else set[str]()
    return MARKS[family] | (marks - {""})
