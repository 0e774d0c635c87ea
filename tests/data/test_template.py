"""A chat template writes what transformers would write, and no template runs for ever or fills the memory."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.data.sandbox import BUDGET, TooMuchError
from geonb.data.sandbox import render as rendered
from geonb.data.template import PLAIN_TEMPLATE, CannotRender, assistant_spans, render
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint

# the turns of speech of templates that people publish
TEMPLATES = {
    "plain": PLAIN_TEMPLATE,
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "instructions": """{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] | trim + '\n\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set rest = messages -%}{%- endif -%}
{%- for message in rest -%}
    {%- if loop.first and message.role != 'user' -%}{{ raise_exception('a user must begin') }}{%- endif -%}
    {%- set content = (system if loop.index0 == 0 else '') ~ message.content -%}
    {{- '[INST] ' ~ content ~ ' [/INST]' if message.role == 'user' else ' ' + content + eos_token -}}
{%- endfor -%}""",
    "thoughts": """{%- set ns = namespace(last=messages|length - 1, seen=false) -%}
{%- for message in messages[::-1] -%}
    {%- set index = (messages|length - 1) - loop.index0 -%}
    {%- if not ns.seen and message.role == 'user' and not message.content.startswith('<tool') -%}
        {%- set ns.seen = true -%}{%- set ns.last = index -%}
    {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- set content = message.content %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}
        {{- '<|' + message.role + '|>' }}{% generation %}{{ content }}<|end|>{% endgeneration %}
    {%- else -%}{{ '<|%s|>' % message.role }}{{ message.content }}{%- endif -%}
    {%- if loop.index0 > ns.last %}{{ '!' * 2 }}{% endif -%}
{%- endfor -%}""",
    "macros": """{%- macro turn(name, text) -%}{{ name|upper }}: {{ text|replace('\t', ' ')|indent(2) }}{%- endmacro -%}
{%- for message in messages if message.role != 'tool' -%}
{{ turn(message.role, message.content) }} {{ loop.index }}/{{ loop.length }} {{ loop.last }} {{ loop.cycle('a', 'b') }}
{% else %}nobody{%- endfor -%}
{{ messages|map(attribute='role')|unique|join(', ') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }}""",
    "tools": """{%- if tools is defined and tools is not none %}{{ tools|tojson }}{% endif -%}
{%- if documents %}d{% endif -%}{{ bos_token }}{{ messages|tojson(indent=2) }}{{ messages[0] | tojson }}
{{ {'a': [1, 2.5, none, true], 'b': ('x', 'ü<&>')}|tojson }}{{ '{:>4}|{}'.format(messages|length, 'x') }}
{{ 'in 2024 %s of %(a)s' |replace('(a)', '') % ('a', 'b') }}{{ '{{"year 2024": {}}}'.format('x') }}{{ '%5.1f%%' % 99.95 }}
{%- for message in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ message }}{% endfor -%}""",
}  # fmt: skip
CONVERSATIONS = (
    [{"role": "user", "content": "hello\tthere\nyou"}, {"role": "assistant", "content": "<think>so</think>\n\ngood day"}],
    [
        {"role": "system", "content": " be brief "}, {"role": "user", "content": "ünd <b> '1' \"2\""},
        {"role": "assistant", "content": ""}, {"role": "user", "content": "{{ 1 }} \u2028"},
        {"role": "assistant", "content": "a"},
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return Checkpoint.open("embedded").load_tokenizer()


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["short", "long"])
def test_the_text_is_that_of_transformers(tokenizer, monkeypatch, name, messages, prompt):
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[name])
    expected = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    assert render(tokenizer, messages, prompt=prompt) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=9)), min_size=1, max_size=5
    )
)
def test_whatever_people_say_the_text_is_that_of_transformers(tokenizer, turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    for template in (TEMPLATES["chatml"], TEMPLATES["macros"], TEMPLATES["thoughts"]):
        expected = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)
        more = {"tools": None, "documents": None, "add_generation_prompt": False, **tokenizer.special_tokens_map}
        assert rendered(template, messages=messages, **more) == expected


def test_a_template_with_a_name_is_used_as_transformers_does(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", {"default": "{{ messages[0].content }}", "rag": "no"})
    assert render(tokenizer, CONVERSATIONS[0]) == "hello\tthere\nyou"
    monkeypatch.setattr(tokenizer, "chat_template", {"rag": "no"})
    with pytest.raises(CannotRender, match="multiple chat templates with no default"):
        render(tokenizer, CONVERSATIONS[0])


def test_a_conversation_of_a_thousand_long_turns_stays_within_the_budget(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES["thoughts"])
    messages = [{"role": role, "content": "word " * 600} for role in ("user", "assistant")] * 500
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert render(tokenizer, messages) == expected and len(expected) > 3_000_000 - 10


GROWING = "{%% set ns = namespace(s=%s) %%}{%% for i in range(99) %%}%s{%% endfor %%}{{ ns.s }}"
# what would run for years or fill the memory, each in a few characters
BOMBS = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(100) }}",
    "a loop that calls itself": "{% for x in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "a list in every round": "{% for i in range(99999) %}{{ range(99999)|list|length }}{% endfor %}",
    "a map in every round": "{% for i in range(99999) %}{{ range(99999)|map('string')|list|length }}{% endfor %}",
    "a text, multiplied": "{{ 'x' * 10**12 }}",
    "a list, multiplied": "{{ [1] * 10**12 }}",
    "a power of a power": "{{ 7 ** (10 ** 10) }}",
    "a sum that doubles": GROWING % ("'xx'", "{% set ns.s = ns.s + ns.s %}"),
    "a text that doubles": GROWING % ("'xx'", "{% set ns.s = ns.s ~ ns.s %}"),
    "a block that doubles": GROWING % ("'xx'", "{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}"),
    "lists in lists": GROWING % ("[1]", "{% set ns.s = [ns.s, ns.s] %}"),
    "keys in keys": GROWING % ("(1,)", "{% set ns.s = (ns.s, ns.s) %}{% set x = ns.s in {} %}"),
    "objects in objects": GROWING % ("1", "{% set ns.s = dict(a=ns.s, b=ns.s) %}"),
    "namespaces in namespaces": GROWING % ("1", "{% set m = namespace(a=ns.s, b=ns.s) %}{% set ns.s = m %}"),
    "padding": "{{ 'x'.ljust(10**12) }}",
    "zeros": "{{ '1'.zfill(10**12) }}",
    "a wide format": "{{ '{:>99999999999}'.format('x') }}",
    "a wide format of old": "{{ '%99999999999d' % 1 }}{{ '%99999999999d'|format(1) }}",
    "a width out of an argument": "{{ '%*d' % (10**11, 1) }}",
    "a width out of an argument in braces": "{{ '{:{w}}'.format(1, w=10**11) }}",
    "a width behind a name": "{{ '%(a(b)c)99999999999d' % {'a(b)c': 1} }}",
    "a precision": "{{ '%.99999999999f' % 1.5 }}{{ '{:.99999999999f}'.format(1.5) }}",
    "one argument, many times": "{{ ('{0}' * 100000).format('x' * 1000000) }}",
    "a replacement": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "a replacement by a filter": "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
    "a joint": "{{ ('y' * 10000).join(range(99999)|map('string')) }}",
    "a joint of one text": "{{ ''.join([('y' * 10000)] * 99999) }}",
    "a joint by a filter": "{{ range(99999)|join('y' * 100000) }}",
    "JSON far to the right": "{{ {'a': 1}|tojson(indent=10**9) }}",
    "JSON of one text": "{{ ([('y' * 10000)] * 99999)|tojson }}",
    "lines far to the right": "{{ ('\\n' * 1000000)|indent(1000) }}",
    "tabs": "{{ ('\\t' * 1000000).expandtabs(900) }}",
    "digits": "{{ 1.5|round(10**9, 'ceil') }}",
    "much to say": "{% set s = 'x' * 1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
    "much that stands there": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "much in a macro": "{% macro f() %}" + "x" * 100_000 + "{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
    "a long search": "{% set s = 'x' * 1000000 %}{% for i in range(99999) %}{% if 'y' in s %}{% endif %}{% endfor %}",
    "long cuts": "{% set s = 'x' * 1000000 %}{% for i in range(99999) %}{% set t = s[1:] %}{% endfor %}",
    "bytes": "{{ (5).to_bytes(10**11, 'big') }}",
    "a table of characters": "{{ ('x' * 1000000).translate({120: 'y' * 10000}) }}",
    "blank text": "{{ lipsum(10**9) }}",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_no_template_runs_for_ever_or_fills_the_memory(name):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(Exception) as caught:
        rendered(BOMBS[name], messages=[])
    assert not isinstance(caught.value, MemoryError) and time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_the_budget_is_counted_and_depends_on_no_clock():
    loop = "{%% for i in range(%d) %%}{%% for j in range(%d) %%}{%% endfor %%}{%% endfor %%}."
    assert rendered(loop % (100, BUDGET // 200)) == "."
    with pytest.raises(TooMuchError):
        rendered(loop % (100, BUDGET // 90))


def test_every_thread_has_a_budget_of_its_own(tokenizer):
    found, messages = [], [{"role": "user", "content": "a"}] * 20_000
    threads = [threading.Thread(target=lambda: found.append(render(tokenizer, messages))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 / 0 }}", "division by zero"), ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ x.y.z }}", "'x' is undefined"), ("{% if %}", "Expected an expression"), (5, "it is a int and no text"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more work"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"), ("{{ namespace(__init__=1) }}", "has no attribute"),
        ("{{ raise_exception('a\x1b[2J') }}", r"a\\x1b\[2J"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_do_is_said_in_a_sentence(tokenizer, monkeypatch, template, reason):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(
        InputError, match=rf"^the chat template cannot render these messages \(.*{reason}.*\): mend it, or give"
    ):
        assistant_spans(tokenizer, CONVERSATIONS[0])
