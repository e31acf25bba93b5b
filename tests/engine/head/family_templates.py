"""Chat templates in the style of the families, each as short as shows what the family does."""

HERMES = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}"
    "{{- messages[0].content + '\\n\\n' }}{%- endif %}{{- '# Tools\\n<tools>' }}{%- for tool in tools %}"
    "{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools> Call: <tool_call>\\n{\"name\": ' "
    "~ '<name>}\\n</tool_call><|im_end|>\\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content "
    "+ '<|im_end|>\\n' }}{%- endif %}{%- for m in messages %}"
    "{%- if m.content is string %}{%- set content = m.content %}{%- else %}{%- set content = '' %}"
    "{%- endif %}{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- elif m.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\\n' }}{%- if m.reasoning_content is defined and m.reasoning_content %}"
    "{{- '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}{{- content }}"
    "{%- for call in m.tool_calls or [] %}{%- if call.function %}{%- set call = call.function %}{%- endif %}"
    '{{- \'\\n<tool_call>\\n{"name": "\' + call.name + \'", "arguments": \' }}'
    "{%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}"
    "{%- endif %}{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}"
    "{%- elif m.role == 'tool' %}{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}"
    "{{- '<|im_start|>user' }}{%- endif %}{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)

QWEN_CODER = (
    "{% macro shown(name, value) %}<{{ name }}>{{ value if value is string else value | tojson }}"
    "</{{ name }}>{% endmacro %}"
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{% set f = tool.function %}"
    "{{ shown('name', f.name) }}{% for key, value in f.parameters.properties | items %}"
    "{{ shown(key, value) }}{% endfor %}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{% for key, value in call.function.arguments | items %}{{ '<parameter=' + key + '>\n' }}"
    "{{ value if value is string else value | tojson }}{{ '\n</parameter>\n' }}{% endfor %}"
    "{{ '</function>\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n' + system "
    "+ '<|eot_id|>' }}{%- if tools is not none %}{{- 'Say {\"name\": function, \"parameters\": ...}.\\n' }}"
    "{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}{%- endif %}"
    "{%- for message in messages %}{%- if 'tool_calls' in message %}"
    "{%- if not message.tool_calls | length == 1 %}"
    "{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
    "{%- set call = message.tool_calls[0].function %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{\"name\": \"' + call.name + '\", ' }}"
    "{{- '\"parameters\": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

MISTRAL = (
    "{%- set ns = namespace(n=0) %}{%- for m in messages %}{%- if m['role'] == 'user' %}"
    "{%- if tools is not none and tools is defined and loop.last %}{{- '[AVAILABLE_TOOLS][' }}"
    "{%- for tool in tools %}{{- tool.function | tojson }}{{- ', ' if not loop.last else '' }}{%- endfor %}"
    "{{- '][/AVAILABLE_TOOLS]' }}{%- endif %}{{- '[INST]' + m['content'] + '[/INST]' }}"
    "{%- elif m.tool_calls is defined and m.tool_calls is not none %}{{- '[TOOL_CALLS][' }}"
    "{%- for call in m.tool_calls %}{%- set out = call.function | tojson %}{{- out[:-1] }}"
    "{%- if not call.id is defined %}{{- raise_exception('Tool call IDs are needed') }}{%- endif %}"
    "{{- ', \"id\": \"' + call.id + '\"}' }}{{- ', ' if not loop.last else ']' + eos_token }}{%- endfor %}"
    "{%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] | trim + eos_token }}"
    "{%- elif m['role'] == 'tool' %}{%- set ns.n = ns.n + 1 %}"
    "{{- '[TOOL_RESULTS]{\"content\": ' + m.content | string + '}[/TOOL_RESULTS]' + ns.n | string }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported') }}{%- endif %}"
    "{%- endfor %}"
)

MINISTRAL = (
    "{%- for m in messages %}{%- if m.role == 'system' %}{{- '[SYSTEM_PROMPT]' }}"
    "{%- if m.content is string %}{{- m.content }}{%- else %}{%- for b in m.content %}"
    "{%- if b.type == 'text' %}{{- b.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '[/SYSTEM_PROMPT]' }}"
    "{%- elif m.role == 'assistant' %}{%- if m.content is string %}{{- m.content }}{%- else %}"
    "{%- for b in m.content %}{%- if b.type == 'text' %}{{- b.text }}{%- elif b.type == 'thinking' %}"
    "{{- '[THINK]' + b.thinking + '[/THINK]' }}{%- endif %}{%- endfor %}{%- endif %}"
    "{%- for call in m.tool_calls or [] %}{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}"
    "{%- set given = call.function.arguments %}{{- given if given is string else given | tojson }}"
    "{%- endfor %}{{- eos_token }}{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content }}"
    "{%- else %}{{- '[INST]' + (m.content if m.content is string else m.content[0].text) + '[/INST]' }}"
    "{%- endif %}{%- endfor %}{%- if tools %}{{- '[AVAILABLE_TOOLS]' + tools | tojson }}{%- endif %}"
)

GLM = (
    "[gMASK]<sop>{%- if tools -%}<|system|>\n# Tools{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "{%- endif -%}{%- for m in messages -%}{%- if m.role == 'assistant' -%}<|assistant|>"
    "{{ '\n<think>' + m.reasoning_content + '</think>' if m.reasoning_content else '\n<think></think>' }}"
    "{{ '\n' + m.content if m.content else '' }}{% for call in m.tool_calls or [] %}"
    "{{ '\n<tool_call>' + call.function.name }}{% for k, v in call.function.arguments.items() %}"
    "\n<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v if v is string else v | tojson(ensure_ascii=False) }}"
    "</arg_value>{% endfor %}\n</tool_call>{% endfor %}{%- elif m.role == 'tool' -%}<|observation|>"
    "\n<tool_response>\n{{ m.content }}\n</tool_response>{%- else -%}<|{{ m.role }}|>\n{{ m.content }}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>"
    "{{ '\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}{%- endif -%}"
)

DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' and m['tool_calls'] %}{{ '<\uff5cAssistant\uff5c>' }}"
    "{% for tool in m['tool_calls'] %}{{ '<\uff5ctool\u2581calls\u2581begin\uff5c>' if loop.first else '' }}"
    "{{ tool['type'] + '<\uff5ctool\u2581sep\uff5c>' + tool['function']['name'] + '\n```json\n' "
    "+ tool['function']['arguments'] + '\n```' }}{% endfor %}{% elif m['role'] == 'assistant' %}"
    "{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<\uff5cAssistant\uff5c>' + content + '<\uff5cend\u2581of\u2581sentence\uff5c>' }}"
    "{% else %}{{ '<\uff5ctool\u2581output\u2581begin\uff5c>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\n' }}{% endif %}"
)

MINIMAX = (
    "{% for m in messages %}]~b]{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}"
    "\n</think>\n\n{% endif %}{{ m.content }}{% for call in m.tool_calls or [] %}\n<minimax:tool_call>\n"
    '<invoke name="{{ call.function.name }}">{% for k, v in call.function.arguments | items %}'
    '<parameter name="{{ k }}">{{ v | tojson if v is not string else v }}</parameter>{% endfor %}</invoke>\n'
    "</minimax:tool_call>{% endfor %}[e~[\n{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}]~b]ai\n<think>\n{% endif %}"
)

HARMONY = (
    "<|start|>system<|message|>{{ 'Reasoning: ' + (reasoning_effort or 'medium') }}<|end|>"
    "{% for t in tools or [] %}{{ t.function.name }}({{ t.function.description }}){% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "{% for call in m.tool_calls or [] %}<|start|>assistant to=functions.{{ call.function.name }}"
    "<|channel|>commentary json<|message|>{{ call.function.arguments | tojson }}<|call|>{% endfor %}"
    "{% if m.content %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% for t in tools or [] %}<|tool>{{ t.function.name }}<tool|>{% endfor %}"
    "{% for m in messages %}{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{% for call in m.tool_calls or [] %}{{ '<|tool_call>call:' + call.function.name }}"
    "{{ call.function.arguments | tojson }}<tool_call|>{% endfor %}"
    "{% for r in m.tool_responses or [] %}{{ '<|tool_response>' + r.name }}{{ r.response | tojson }}"
    "{% endfor %}{{ m.content or '' }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)

PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for part in m['content'] %}{{ part['text'] }}|{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

EITHER = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}|{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

TEMPLATES = {name: source for name, source in dict(globals()).items() if name.isupper()}
