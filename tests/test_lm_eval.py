"""The lab's models in lm-eval: at scale 1 they equal lm-eval's own class, at other scales the formula."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from cfg_lab import load_model
from cfg_lab.decoding.sampling import Greedy, Sampling
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Linear, UnionGuidance
from cfg_lab.integrations import lm_eval as integration
from cfg_lab.integrations.generation_arguments import GenerationArguments
from cfg_lab.integrations.lm_eval import CfgLabModel
from cfg_lab.integrations.model_arguments import model_arguments
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.models.packaged import packaged_model
from cfg_lab.negatives import (
    ModelNegative,
    NamedNegative,
    Negative,
    NoNegative,
    OppositeNegative,
    PhraseNegative,
    SuffixNegative,
)
from cfg_lab.study.pairs import Pair, raw_log_likelihood, requests_of_pairs
from tests import reference
from tests.conftest import VOCABULARY, make_model, make_tokenizer

OFF = ClassifierFreeGuidance(scale=1)
LAST_TOKEN, EMPTY = NamedNegative(variant="last_token"), NamedNegative(variant="empty")
SUITE = Path(lm_eval.__file__).parent / "tasks"

QUESTIONS = ["is ice cold", "is fire cold", "is snow white", "is coal white"]
TASKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        [
            {
                "activity_label": "Cooking",
                "ctx_a": f"A {cook} stands at a stove [title] and waits.",
                "ctx_b": "then he",
                "endings": ["eats [step] it.", "sings.", "drops the  pan.", "swims in a lake."],
                "label": str(number % 4),
            }
            for number, cook in enumerate(["man", "boy", "cook", "king", "monk"])
        ],
    ),
    "boolq": (
        "super_glue/boolq/default.yaml",
        [
            {"passage": "Ice is cold and snow is white.", "question": question, "label": number % 2}
            for number, question in enumerate(QUESTIONS)
        ],
    ),
    "piqa": (
        "piqa/piqa.yaml",
        [
            {"goal": f"Open a {thing}.", "sol1": "Pull it.", "sol2": "Paint it blue.", "label": number % 2}
            for number, thing in enumerate(["door", "box", "can", "book"])
        ],
    ),
    "truthfulqa_mc1": (
        "truthfulqa/truthfulqa_mc1.yaml",
        [
            {"question": f"{question}?", "mc1_targets": {"choices": ["Yes.", "No, never.", "It depends"]}}
            for question in QUESTIONS
        ],
    ),
}
"""Invented items in the formats of lm-eval's data: task -> (its YAML file in lm-eval, items)."""


def requests(kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=("task", number, 1))
        for number, args in enumerate(arguments)
    ]


def log_likelihoods(model: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    return model.loglikelihood(requests("loglikelihood", pairs))


def both(kind: str = "rotary", **arguments: Any) -> tuple[HFLM, CfgLabModel]:
    """lm-eval's own model and the lab's unguided one, with the same weights."""
    module, tokenizer = make_model(kind), make_tokenizer()
    harness = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=3, **arguments)
    return harness, CfgLabModel(from_transformers(module, tokenizer), OFF, **arguments)


def assert_close(answers: Sequence[tuple[float, bool]], expected: Sequence[tuple[float, bool]]) -> None:
    assert [answer[0] for answer in answers] == pytest.approx([answer[0] for answer in expected], abs=1e-3)
    assert [answer[1] for answer in answers] == [answer[1] for answer in expected]


def write_tasks(folder: Path) -> TaskManager:
    """lm-eval's own tasks on the invented items, and a task that generates text."""
    for name, (path, items) in TASKS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        own: dict[str, Any] = {
            "include": str(SUITE / path),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(folder / f"{name}.jsonl")}},
            "training_split": None,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(own))
    generating: dict[str, Any] = {
        "task": "cloze",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "piqa.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{goal}} ",
        "doc_to_target": "{{sol1}}",
        "generation_kwargs": {"until": ["e", "\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "cloze.yaml").write_text(yaml.safe_dump(generating))
    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(model: Any, manager: TaskManager, names: Sequence[str], **arguments: Any) -> dict[str, Any]:
    result: Any = lm_eval.simple_evaluate(
        model=model, tasks=list(names), task_manager=manager, bootstrap_iters=0, **arguments
    )
    return result


# At scale 1: lm-eval's own model


@pytest.mark.parametrize("arguments", [{}, {"num_fewshot": 2}])
def test_tasks_have_the_results_of_lm_evals_own_model(tmp_path: Path, arguments: dict[str, Any]) -> None:
    manager = write_tasks(tmp_path)
    harness, lab = both()
    expected, results = (evaluate(model, manager, [*TASKS, "cloze"], **arguments) for model in (harness, lab))
    assert results["results"].keys() == {*TASKS, "cloze"}
    assert results["results"] == expected["results"]
    for name in results["samples"]:
        for ours, theirs in zip(results["samples"][name], expected["samples"][name], strict=True):
            assert ours["arguments"] == theirs["arguments"]
            if name == "cloze":
                assert ours["resps"] == theirs["resps"]
            else:
                pairs = zip(ours["filtered_resps"], theirs["filtered_resps"], strict=True)
                for answer, expected_answer in pairs:
                    assert_close([answer], [expected_answer])


PAIRS = [
    ("The cat", " sat"),
    ("The cat  ", "sat"),  # whitespace moves to the continuation
    ("", "no context"),
    ("", "<s>the prefix token itself"),
    ("<s>The cat", " sat"),  # no second prefix token
    ("a" * 300, " is too long"),
    ("a" * 250, "b" * 7),  # exactly as long as the model can read: the last token is not read
    ("x", "y" * 256),
    ("The cat", " sat"),
]


@pytest.mark.parametrize("kind", ["rotary", "absolute", "sliding"])
def test_log_likelihoods(kind: str) -> None:
    harness, lab = both(kind)
    answers = log_likelihoods(lab, PAIRS)
    assert_close(answers, log_likelihoods(harness, PAIRS))
    assert answers[0] == pytest.approx(answers[-1])


@pytest.mark.parametrize(
    "arguments",
    [{"max_length": 12}, {"add_bos_token": True}, {"add_bos_token": False}, {"prefix_token_id": 7}],
)
def test_log_likelihoods_with_arguments_of_the_model(arguments: dict[str, Any]) -> None:
    harness, lab = both(**arguments)
    pairs = [(context, continuation[:12]) for context, continuation in PAIRS]
    assert_close(log_likelihoods(lab, pairs), log_likelihoods(harness, pairs))


def test_greedy_flags_are_those_of_decoding() -> None:
    harness, lab = both()
    (greedy,) = harness.generate_until(requests("generate_until", [("The cat", {"max_gen_toks": 1})]))
    model = lab.model
    likeliest = [int(reference.log_probs(model.module, model.encode("The cat")).argmax())]
    pairs = [Pair(lab.pair("The cat", "x").context, tuple(likeliest)), lab.pair("The cat", "x")]
    scores = lab.scores(pairs, [OFF])
    assert [score.greedy[0] for score in scores] == [True, model.encode("x")[0] == likeliest[0]]
    assert model.decode(likeliest) == greedy


@pytest.mark.parametrize("max_length", [None, 16])
def test_rolling_log_likelihoods(max_length: int | None) -> None:
    harness, lab = both(max_length=max_length)
    texts = ["", "short", "a text of exactly", "x" * 16, "x" * 17, "a longer text that needs windows " * 12]
    expected = harness.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,) for text in texts]))
    results = lab.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,) for text in texts]))
    assert results == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["rotary", "absolute"])
def test_greedy_texts(kind: str) -> None:
    harness, lab = both(kind, max_length=40)
    arguments = [
        (context, {"until": until, "max_gen_toks": 16, "do_sample": False, "temperature": 0.0})
        for context in ("The cat", "A dog ", "b" * 50)
        for until in (["a", "e", "\x19"], [], "1")
    ]
    asked = requests("generate_until", arguments)
    assert lab.generate_until(asked) == harness.generate_until(asked)


def test_an_encoder_decoder_model() -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "initializer_factor": 6.0,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 258,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }
    module, tokenizer = T5ForConditionalGeneration(T5Config(**shape)).eval(), make_tokenizer()
    harness = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=1, max_length=30)
    lab = CfgLabModel(from_transformers(module, tokenizer), OFF, max_length=30)
    pairs = [("The cat", " sat"), ("", "nothing"), ("a" * 50, " is too long"), ("a ", "b" * 29)]
    assert_close(log_likelihoods(lab, pairs), log_likelihoods(harness, pairs))
    asked = requests("generate_until", [(text, {"max_gen_toks": 8}) for text in ("The cat", "a" * 50)])
    # `HFLM` goes on: it counts the tokens of the source as if they were new ones.
    for text, longer in zip(lab.generate_until(asked), harness.generate_until(asked), strict=True):
        assert len(text) == 8
        assert longer.startswith(text)


# Guided: the formula

CASES: list[tuple[Negative, str, str, list[tuple[str, float]]]] = [
    (LAST_TOKEN, "The cat ", "sat", [("t", 1)]),
    (EMPTY, "The cat", " sat", [("<s>", 1)]),
    (EMPTY, "", "sat", [("<s>", 1)]),
    (PhraseNegative(phrases="sad, dull"), "The cat", " sat", [("The cat It should be sad, dull.", 1)]),
    (
        PhraseNegative(phrases="sad:0.5, dull:-2", mode="separate", template="bare"),
        "The cat",
        " sat",
        [("sad", 0.5), ("dull", -2)],
    ),
    (SuffixNegative(suffix=" no"), "The cat", " sat", [("The cat no", 1)]),
    (OppositeNegative(template="Not: {prompt}"), "The cat ", "sat", [("Not: The cat", 1)]),
]
"""(negatives, context, continuation, the texts and weights of the negative contexts)."""


def expected_sums(
    model: LanguageModel, context: str, negatives: list[tuple[str, float]], continuation: str, scale: float
) -> tuple[float, float, bool]:
    """Brute force: the normalised log-likelihood, the paper's raw score, whether all tokens are likeliest."""
    ids: Any = make_tokenizer()
    contexts, weights = [ids.encode(text) for text, _ in negatives], [weight for _, weight in negatives]
    prefix, tokens = ids.encode(context or "<s>"), ids.encode(continuation)
    total, raw, greedy = 0.0, 0.0, True
    for step, token in enumerate(tokens):
        branches = [[*negative, *tokens[:step]] for negative in contexts]
        guided = reference.guided(model.module, [*prefix, *tokens[:step]], branches, weights, scale)
        total, greedy = total + float(guided[token]), greedy and int(guided.argmax()) == token
        positive = float(reference.log_probs(model.module, [*prefix, *tokens[:step]])[token])
        negative = [float(reference.log_probs(model.module, branch)[token]) for branch in branches]
        share = [weight / sum(map(abs, weights)) for weight in weights]
        raw += positive + (scale - 1) * sum(
            weight * (positive - value) for weight, value in zip(share, negative, strict=True)
        )
    return total, raw, greedy


@pytest.mark.parametrize("scale", [0, 1, 1.5, 3])
@pytest.mark.parametrize(("negatives", "context", "continuation", "texts"), CASES)
def test_guided_scores_equal_brute_force(
    rotary: LanguageModel,
    negatives: Negative,
    context: str,
    continuation: str,
    texts: list[tuple[str, float]],
    scale: float,
) -> None:
    guidance = ClassifierFreeGuidance(scale=scale)
    # Whitespace at the end of a context belongs to the continuation.
    stripped, moved = context.rstrip(), context[len(context.rstrip()) :] + continuation
    normalised, raw, greedy = expected_sums(rotary, stripped, texts, moved, scale)
    for score, expected in (("normalised", normalised), ("raw", raw)):
        lab: Any = CfgLabModel(rotary, guidance, negatives, score=score)  # pyright: ignore[reportArgumentType]
        ((answer, flag),) = log_likelihoods(lab, [(context, continuation)])
        assert answer == pytest.approx(expected, abs=1e-3)
        assert flag is greedy


def test_a_negative_of_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [from_transformers(make_model("rotary", seed), make_tokenizer()) for seed in (0, 1)]
    negatives = ModelNegative(models={"amateur": lambda: models[1]}, weights={"amateur": 1.0})
    compared: list[LanguageModel] = []

    def vocabulary(model: LanguageModel) -> dict[str, int]:
        compared.append(model)
        return model.tokenizer.get_vocab()

    monkeypatch.setattr(LanguageModel, "vocabulary", property(vocabulary))
    lab = CfgLabModel(models[0], ClassifierFreeGuidance(scale=2), negatives)
    answers = log_likelihoods(lab, [(context, " sat") for context in ("The cat", "A dog", "A boy")])
    assert len(compared) == 2  # the vocabularies are compared once
    ids: Any = make_tokenizer()
    for context, (answer, _) in zip(("The cat", "A dog", "A boy"), answers, strict=True):
        total = 0.0
        for step, token in enumerate(tokens := ids.encode(" sat")):
            positive, negative = (
                reference.log_probs(model.module, [*ids.encode(context), *tokens[:step]]) for model in models
            )
            total += float((negative + 2 * (positive - negative)).log_softmax(-1)[token])
        assert answer == pytest.approx(total, abs=1e-3)


def test_the_raw_score_of_one_negative_is_the_papers(rotary: LanguageModel) -> None:
    lab = CfgLabModel(rotary)
    pairs = [lab.pair("The cat", " sat"), lab.pair("A dog", " ran away")]
    asked = requests_of_pairs(rotary, LAST_TOKEN, pairs)
    scores = lab.scores(pairs, [ClassifierFreeGuidance(scale=scale) for scale in (1, 3)])
    for request, score in zip(asked, scores, strict=True):
        for scale in (1, 3):
            raw = raw_log_likelihood(ClassifierFreeGuidance(scale=scale), request, score)
            assert raw == pytest.approx(scale * score.positive + (1 - scale) * score.negatives[0])
        assert score.guided[0] == pytest.approx(score.positive, abs=1e-4)


def test_a_grid_equals_each_rule_alone(rotary: LanguageModel) -> None:
    rules = [
        OFF,
        ClassifierFreeGuidance(scale=2),
        UnionGuidance(scale=2),
        ClassifierFreeGuidance(schedule=Linear()),
    ]
    lab = CfgLabModel(rotary, negatives=EMPTY)
    grid = lab.scores([lab.pair(*pair) for pair in PAIRS], rules)
    for number, rule in enumerate(rules):
        alone = log_likelihoods(CfgLabModel(rotary, rule, EMPTY), PAIRS)
        assert_close([(score.guided[number], score.greedy[number]) for score in grid], alone)


def test_batch_and_order_change_nothing(rotary: LanguageModel) -> None:
    guidance = ClassifierFreeGuidance(scale=2)
    answers = log_likelihoods(CfgLabModel(rotary, guidance), PAIRS)
    assert_close(log_likelihoods(CfgLabModel(rotary, guidance, max_rows=2), PAIRS[::-1])[::-1], answers)
    assert_close([log_likelihoods(CfgLabModel(rotary, guidance), [pair])[0] for pair in PAIRS], answers)


def test_guided_rolling_log_likelihoods_are_sums_over_windows(rotary: LanguageModel) -> None:
    guidance = ClassifierFreeGuidance(scale=2)
    text = "a text of windows"
    lab = CfgLabModel(rotary, guidance, LAST_TOKEN, max_length=10)
    (result,) = lab.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,)]))
    # The windows: the prefix and 10 tokens; then the 4 tokens before the last 7 tokens.
    windows = [("", text[:10], [("<s>", 1.0)]), (text[6:10], text[10:], [(text[9], 1.0)])]
    sums = [expected_sums(rotary, context, negatives, tokens, 2)[0] for context, tokens, negatives in windows]
    assert result == pytest.approx(sum(sums), abs=1e-3)


def test_negatives_are_made_of_what_remains_of_a_truncated_context(rotary: LanguageModel) -> None:
    guidance = ClassifierFreeGuidance(scale=2)
    lab = CfgLabModel(rotary, guidance, PhraseNegative(phrases="sad"), max_length=12)
    ((answer, _),) = log_likelihoods(lab, [("0123456789abcdef", "end")])
    expected, _, _ = expected_sums(rotary, "6789abcdef", [("6789abcdef It should be sad.", 1)], "end", 2)
    assert answer == pytest.approx(expected, abs=1e-3)


def test_guided_texts_are_those_of_the_decoder(rotary: LanguageModel) -> None:
    guidance = ClassifierFreeGuidance(scale=2)
    lab = CfgLabModel(rotary, guidance, PhraseNegative(phrases="sad"))
    texts = lab.generate_until(
        requests("generate_until", [(text, {"max_gen_toks": 12}) for text in ("Hi", "Yo ")])
    )
    for text, context in zip(texts, ("Hi", "Yo "), strict=True):
        tokens = reference.decode(
            rotary.module,
            rotary.encode(context),
            [rotary.encode(f"{context} It should be sad.")],
            [1],
            2,
            12,
            stop=257,
        )
        assert text == rotary.decode(tokens)


def test_repeats_are_samples_and_a_seed_repeats_them(rotary: LanguageModel) -> None:
    arguments = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "max_gen_toks": 16}
    asked = requests("generate_until", [("Hi", arguments)] * 3)
    texts = CfgLabModel(rotary).generate_until(asked)
    assert len(set(texts)) == 3
    assert CfgLabModel(rotary).generate_until(asked) == texts
    assert CfgLabModel(rotary, seed=1).generate_until(asked) != texts


def test_arguments_of_a_generation() -> None:
    def made(**arguments: Any) -> GenerationArguments:
        return GenerationArguments.of(arguments, 256)

    assert made() == GenerationArguments(until=(), max_gen_toks=256, sampling=Greedy())
    assert made(until="x", max_new_tokens=3, do_sample=False, temperature=0.7).sampling == Greedy()
    assert made(temperature=0.7, top_p=0.9).sampling == Sampling(temperature=0.7, top_p=0.9)
    assert made(do_sample=True, temperature=1.0, top_k=5, min_p=0.1).sampling == Sampling(top_k=5, min_p=0.1)


# Chats


def chat_model() -> CfgLabModel:
    return CfgLabModel(from_transformers(make_model("rotary"), make_tokenizer(chat=True)))


def rendered(*messages: tuple[str, str], end: str = "[assistant]") -> str:
    """What the template of the tests' tokenizer makes of messages."""
    return "".join(f"[{role}]{text}[end]" for role, text in messages) + end


EXAMPLES = [("system", "be brief"), ("user", "one"), ("assistant", "1"), ("user", "two")]


@pytest.mark.parametrize(
    ("negatives", "messages", "expected"),
    [
        (EMPTY, EXAMPLES, rendered(("system", "be brief"), ("user", ""))),
        (PhraseNegative(phrases="sad"), EXAMPLES, rendered(*EXAMPLES[:3], ("user", "two It should be sad."))),
        (OppositeNegative(template="Not: {prompt}"), EXAMPLES, rendered(*EXAMPLES[:3], ("user", "Not: two"))),
        (SuffixNegative(suffix="no"), EXAMPLES, rendered(*EXAMPLES, end="[assistant]no")),
        (LAST_TOKEN, EXAMPLES, "]"),
        (EMPTY, [("user", "two")], rendered(("system", "be kind"), ("user", ""))),
    ],
)
def test_negatives_of_a_chat_change_the_last_message_of_the_user(
    negatives: Negative, messages: list[tuple[str, str]], expected: str
) -> None:
    lab = chat_model()
    text = lab.apply_chat_template([{"role": role, "content": content} for role, content in messages])
    (request,) = requests_of_pairs(lab.model, negatives, [lab.pair(text, "2")])
    ids: Any = lab.tokenizer
    assert list(request.positive) == ids.encode(text)
    assert [list(branch.ids) for branch in request.negatives] == [ids.encode(expected)]


def test_chats_are_rendered_as_by_lm_evals_own_model() -> None:
    lab = chat_model()
    harness = HFLM(pretrained=lab.model.module, tokenizer=lab.tokenizer)
    history = [{"role": role, "content": text} for role, text in EXAMPLES]
    assert lab.apply_chat_template(history) == harness.apply_chat_template(history)
    begun = [*history, {"role": "assistant", "content": "It is"}]
    assert lab.apply_chat_template(begun, False) == harness.apply_chat_template(begun, False)


def test_a_task_with_a_chat_template_has_the_results_of_lm_evals_own_model(tmp_path: Path) -> None:
    manager = write_tasks(tmp_path)
    module, tokenizer = make_model("rotary"), make_tokenizer(chat=True)
    lab = CfgLabModel(from_transformers(module, tokenizer), OFF, EMPTY)
    harness = HFLM(pretrained=module, tokenizer=tokenizer)
    arguments: dict[str, Any] = {"apply_chat_template": True, "num_fewshot": 1}
    expected, results = (evaluate(model, manager, ["piqa", "cloze"], **arguments) for model in (harness, lab))
    assert results["results"] == expected["results"]
    ours, theirs = (
        [answer for sample in result["samples"]["piqa"] for answer in sample["filtered_resps"]]
        for result in (results, expected)
    )
    assert_close(ours, theirs)


# What is refused, and the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model must be a name, or a model from .*, got a value of type int"),
        ({"guidance": 2}, "guidance must be a rule, .*, got 2"),
        ({"negatives": "empty"}, "negatives must be an object, .*, got 'empty'"),
        ({"score": "log"}, "score must be one of normalised, raw, got 'log'"),
        (
            {"score": "raw", "guidance": UnionGuidance()},
            "score=raw is defined for plain classifier-free guidance",
        ),
        ({"score": "raw", "guidance": ClassifierFreeGuidance(schedule=Linear())}, "use score=normalised"),
        ({"max_length": 257}, "max_length must be a whole number from 1 to 256, got 257"),
        ({"max_length": 1.5}, "max_length must be a whole number"),
        ({"max_gen_toks": 0}, "max_gen_toks must be a whole number from 1"),
        ({"max_rows": 0}, "max_rows must be auto or a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"prefix_token_id": 259}, "prefix_token_id must be a whole number from 0 to 258, got 259"),
        ({"add_bos_token": "yes"}, "add_bos_token must be true, false or null, got 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(rotary: LanguageModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CfgLabModel(**{"model": rotary, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 4}, "generation_kwargs has 'num_beams' \\(got 4\\), which the lab does not apply"),
        ({"temprature": 1}, "did you mean temperature\\?"),
        ({"until": ["a", ""]}, "generation_kwargs.until must be texts, none of them empty"),
        ({"max_gen_toks": 0}, "max_gen_toks must be at least 1, got 0"),
        ({"max_gen_toks": "many"}, "generation_kwargs cannot be read"),
        ({"do_sample": True}, "do_sample=true: sampling.temperature must be a number above 0"),
        ({"temperature": 0.5, "top_p": 2}, "sampling.top_p must be a number in \\(0, 1\\], got 2"),
        ({"max_gen_toks": 256}, "max_gen_toks must be below max_length=256, got 256"),
        ({"until": ["</s>x"], "max_gen_toks": 4}, "contains the special token '</s>'"),
    ],
)
def test_wrong_arguments_of_a_generation_are_refused(
    rotary: LanguageModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CfgLabModel(rotary).generate_until(requests("generate_until", [("Hi", arguments)]))


@pytest.mark.parametrize(
    ("negatives", "pair", "message"),
    [
        (PhraseNegative(), ("Hi", "x"), "prompt '…Hi' has no negative of its own"),
        (OppositeNegative(template="No: {prompt}", system="Be rude"), ("Hi", "x"), "chat template"),
        (PhraseNegative(phrases="sad"), ("a" * 300, "x"), "exceed the 256 tokens"),
        (LAST_TOKEN, ("Hi", ""), "a continuation must have 1 to 256 tokens \\(max_length\\), got 0"),
        (LAST_TOKEN, ("Hi", "x" * 257), "got 257 after the context 'Hi'"),
        (EMPTY, ("[user]Hi</s>[assistant]", "x"), "its messages are not known"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    rotary: LanguageModel, negatives: Negative, pair: tuple[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        log_likelihoods(CfgLabModel(rotary, negatives=negatives), [pair])


def test_a_chat_that_is_truncated_has_no_other_prompt() -> None:
    lab = chat_model()
    text = lab.apply_chat_template([{"role": "user", "content": "a" * 300}])
    assert len(requests_of_pairs(lab.model, LAST_TOKEN, [lab.pair(text, "x")])[0].positive) == 256
    with pytest.raises(InputError, match="but it exceeds max_length"):
        requests_of_pairs(lab.model, EMPTY, [lab.pair(text, "x")])


def test_a_model_without_chat_template_renders_no_chat(rotary: LanguageModel) -> None:
    with pytest.raises(InputError, match="is used without a chat template"):
        CfgLabModel(rotary).apply_chat_template([{"role": "user", "content": "Hi"}])


def test_a_cache_of_answers_belongs_to_one_guidance(rotary: LanguageModel, tmp_path: Path) -> None:
    manager = write_tasks(tmp_path)
    cache = str(tmp_path / "cache")
    guided = CfgLabModel(rotary, ClassifierFreeGuidance(scale=2))
    first = evaluate(guided, manager, ["piqa"], use_cache=cache)
    assert evaluate(guided, manager, ["piqa"], use_cache=cache)["results"] == first["results"]
    with pytest.raises(InputError, match="another model or guidance \\(it differs in guidance\\)"):
        evaluate(CfgLabModel(rotary, ClassifierFreeGuidance(scale=3)), manager, ["piqa"], use_cache=cache)


def test_results_say_how_they_were_made(rotary: LanguageModel, tmp_path: Path) -> None:
    lab = CfgLabModel(rotary, ClassifierFreeGuidance(scale=2), EMPTY, score="raw")
    config = evaluate(lab, write_tasks(tmp_path), ["piqa"])["config"]
    assert config["guidance"] == repr(ClassifierFreeGuidance(scale=2))
    assert (config["negatives"], config["score"]) == ("NamedNegative(variant='empty')", "raw")
    assert config["model_fingerprint"] == rotary.fingerprint


def test_arguments_of_the_command_are_options_by_name(tiny_folder: Path) -> None:
    made = model_arguments(
        {
            "pretrained": str(tiny_folder),
            "scale": 3,
            "guidance": "decay",
            "negatives": "custom",
            "negatives.phrases": 'sad, "dull"',
            "score": "normalised",
            "batch_size": 1,
            "max_batch_size": None,
            "device": "cuda:0",
        }
    )
    assert made["model"].name == str(tiny_folder)
    assert made["guidance"].scale == 3
    assert made["guidance"].scale_at(40) < made["guidance"].scale_at(0)
    assert made["negatives"] == PhraseNegative(phrases='sad, "dull"')
    assert (made["score"], made["batch_size"]) == ("normalised", 1)
    plain = model_arguments({"pretrained": "smollm2", "negatives": None, "model.dtype": "float64"})
    assert plain["negatives"] == NoNegative()
    assert plain["guidance"] == ClassifierFreeGuidance(scale=1.5)
    assert str(plain["model"].source.dtype) == "torch.float64"
    assert model_arguments({"pretrained": "smollm2"})["negatives"] == LAST_TOKEN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "model_args must name a model: pretrained=.*smollm2"),
        ({"pretrained": "smollm2", "gamma": 2}, "model_args has 'gamma' \\(got 2\\), which is unknown"),
        ({"pretrained": "smollm2", "scal": 2}, "did you mean scale\\?"),
        (
            {"pretrained": "smollm2", "guidance": "cgf"},
            "guidance has no option 'cgf' \\(did you mean cfg\\?\\)",
        ),
        ({"pretrained": "smollm2", "scale": "big"}, "guidance.scale must be a finite number"),
        ({"pretrained": "smollm2", "negatives": "custom"}, "negatives.phrases has no value yet"),
        ({"pretrained": "smollm2", "negatives.variant": "first"}, "negatives.variant must be one of empty"),
        ({"pretrained": "smollm2", "device": "tpu7"}, "model.device"),
    ],
)
def test_wrong_arguments_of_the_command_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_arguments(arguments)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    # Reading the thousands of YAML files of lm-eval's own tasks would take ten seconds.
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))
    monkeypatch.setattr(sys, "argv", ["cfg_lab.integrations.lm_eval", "run", *arguments])
    integration.main()


def test_the_command(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tasks(tmp_path)
    common = ["--model", "cfg_lab", "--tasks", "piqa", "--include_path", str(tmp_path), "--limit", "3"]
    arguments = f"pretrained={tiny_folder},scale=2,negatives=empty,model.prompt_format=plain"
    run_command(
        monkeypatch,
        *common,
        "--model_args",
        arguments,
        "--output_path",
        str(tmp_path / "out"),
        "--log_samples",
    )
    (path,) = (tmp_path / "out").rglob("samples_piqa_*.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    lab = CfgLabModel(load_model(str(tiny_folder)), ClassifierFreeGuidance(scale=2), EMPTY)
    assert len(samples) == 3
    for sample in samples:
        stored = [(float(value), flag == "True") for value, flag in sample["filtered_resps"]]
        pairs = [(values["arg_0"], values["arg_1"]) for values in sample["arguments"].values()]
        assert_close(stored, log_likelihoods(lab, pairs))


def test_errors_of_the_command_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks(tmp_path)
    with pytest.raises(SystemExit) as exit_status:
        run_command(
            monkeypatch,
            *("--model", "cfg_lab", "--tasks", "piqa", "--include_path", str(tmp_path)),
            *("--model_args", "pretrained=smollm2,scale=much"),
        )
    assert exit_status.value.code == 2
    assert "error: guidance.scale must be a finite number" in capsys.readouterr().err


def test_without_lm_eval_one_sentence_says_how_to_install_it() -> None:
    code = (
        "import runpy, sys; sys.modules['lm_eval'] = None;"
        "runpy.run_module('cfg_lab.integrations.lm_eval', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "error: the package lm-eval is missing; install it with: pip install 'cfg-lab[lm_eval]'\n"
    )


# SmolLM2 on real items


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    return load_model("smollm2")


@pytest.fixture(scope="module")
def harness(smollm2: LanguageModel) -> HFLM:
    """lm-eval's own model with the same weights, loaded by transformers."""
    module = AutoModelForCausalLM.from_pretrained(packaged_model("smollm2"), dtype=torch.float32)
    return HFLM(pretrained=module, tokenizer=smollm2.tokenizer, batch_size=8)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "limit"), [("hellaswag", 12), ("boolq", 12), ("piqa", 12), ("truthfulqa_mc1", 4)]
)
def test_real_items_have_the_answers_of_lm_evals_own_model(
    smollm2: LanguageModel, harness: HFLM, name: str, limit: int
) -> None:
    load: Any = pytest.importorskip("cfg_lab.tasks.load")
    lab = CfgLabModel(smollm2, OFF)
    expected, results = (
        lm_eval.evaluate(model, {name: load._packaged_task(name)}, limit=limit, bootstrap_iters=0)
        for model in (harness, lab)
    )
    assert results["results"] == expected["results"]
    for ours, theirs in zip(results["samples"][name], expected["samples"][name], strict=True):
        assert_close(ours["filtered_resps"], theirs["filtered_resps"])


@pytest.mark.real
def test_real_texts_have_the_likelihoods_and_the_ends_of_lm_evals_own_model(
    smollm2: LanguageModel, harness: HFLM
) -> None:
    text = "The tower stands by the river. It was built of stone, and its bells can be heard far away. "
    lab = CfgLabModel(smollm2, OFF, max_length=32)
    rolling = requests("loglikelihood_rolling", [(text,), (text * 4,)])
    asked = requests(
        "generate_until",
        [
            ("Question: What is the capital of France?\nAnswer:", {"until": ["\n", "."], "max_gen_toks": 12}),
            (text * 3 + "In the morning", {"until": ["."], "max_gen_toks": 12}),
        ],
    )
    try:
        harness._max_length = 32
        expected = harness.loglikelihood_rolling(rolling)
        assert lab.loglikelihood_rolling(rolling) == pytest.approx(expected, abs=1e-3, rel=1e-5)
        assert lab.generate_until(asked) == harness.generate_until(asked)
    finally:
        harness._max_length = None


@pytest.mark.real
def test_real_guided_answers_equal_the_formula(smollm2: LanguageModel, harness: HFLM) -> None:
    context, scale = "Question: How do you open a jar?\nAnswer:", 1.5
    lab = CfgLabModel(smollm2, ClassifierFreeGuidance(scale=scale), LAST_TOKEN)
    raw = CfgLabModel(smollm2, ClassifierFreeGuidance(scale=scale), LAST_TOKEN, score="raw")
    for answer in (" Turn the lid.", " Paint it blue."):
        ids, tokens = harness._encode_pair(context, answer)
        log_probs = [
            harness._model_call(torch.tensor([[*branch, *tokens[:-1]]]))[0, -len(tokens) :].log_softmax(-1)
            for branch in (ids, ids[-1:])
        ]
        combined = log_probs[1] + scale * (log_probs[0] - log_probs[1])
        rows = torch.arange(len(tokens))
        for model, expected in ((lab, combined.log_softmax(-1)), (raw, combined)):
            ((result, flag),) = log_likelihoods(model, [(context, answer)])
            assert result == pytest.approx(float(expected[rows, tokens].sum()), abs=1e-3)
            assert flag is bool((combined.argmax(-1) == torch.tensor(tokens)).all())
