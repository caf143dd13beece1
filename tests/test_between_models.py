"""Guidance between models: each branch on its own model, in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from cfg_lab import (
    Branch,
    ClassifierFreeGuidance,
    Decoder,
    Prompt,
    Request,
    Sampling,
    load_model,
    load_results,
)
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import (
    ByDivergence,
    ByEntropy,
    ByJSD,
    ContrastiveDecoding,
    Interval,
    KLBudget,
    NotAdaptive,
    Rule,
    UnionGuidance,
    experts,
)
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.negatives import ModelNegative
from tests import reference
from tests.cli import on, sweep
from tests.conftest import SHAPE, make_model, make_tokenizer
from tests.test_decoder import context
from tests.test_rules_in_the_decoder import rule_label


@pytest.fixture(scope="module")
def models() -> dict[str | None, LanguageModel]:
    """The generator under None, a smaller model with a padded vocabulary, and a model of another kind."""
    torch.manual_seed(5)
    padded = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "vocab_size": 264, "num_hidden_layers": 1})).eval()
    return {
        None: from_transformers(make_model("rotary"), make_tokenizer()),
        "padded": from_transformers(padded, make_tokenizer()),
        "absolute": from_transformers(make_model("absolute", seed=3), make_tokenizer()),
    }


RULES: list[Rule] = [
    ContrastiveDecoding(),
    experts(scale=3.0),
    UnionGuidance(scale=3, schedule=Interval(begin=2, end=6)),
    ClassifierFreeGuidance(scale=0.5),
]


def request_for(rule: Rule, seed: int, **changes: Any) -> Request:
    """A request with one attracting branch and one repelling branch, each on another model."""
    positive = context(seed, 7 + seed)
    values = {
        "positive": positive,
        "negatives": (Branch(positive, -1.0, "absolute"), Branch(context(seed + 9, 4), 1.0, "padded")),
        "guidance": rule,
        "max_new_tokens": 10,
    }
    return Request(**{**values, **changes})


def decode(
    models: dict[str | None, LanguageModel], requests: list[Request], max_rows: int = 64
) -> list[tuple[int, ...]]:
    others = {name: model for name, model in models.items() if name is not None}
    decoder = Decoder(models[None], max_rows, others)
    tokens = {id(completion.request): completion.tokens for completion in decoder.decode(requests)}
    return [tokens[id(request)] for request in requests]


@pytest.mark.parametrize("rule", RULES, ids=rule_label)
def test_equals_brute_force(models: dict[str | None, LanguageModel], rule: Rule) -> None:
    modules = {name: model.module for name, model in models.items()}
    for seed in range(2):
        request = request_for(rule, seed)
        assert list(decode(models, [request])[0]) == reference.decode_by(rule, request, modules)


def test_a_text_is_the_same_alone_and_in_every_batch(models: dict[str | None, LanguageModel]) -> None:
    grid = [
        request_for(rule, seed, sampling=sampling, max_new_tokens=4 + 3 * seed)
        for seed in range(2)
        for rule in RULES
        for sampling in (None, Sampling(), BeamSearch(width=2))
    ]
    grid += [Request(positive=context(40, 5), max_new_tokens=6)]
    alone = [decode(models, [request])[0] for request in grid]
    for max_rows in (2, 5):
        assert decode(models, grid, max_rows) == alone


def test_each_model_runs_its_own_rows(
    models: dict[str | None, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_per_step: dict[str | None, list[int]] = {name: [] for name in models}
    for name, model in models.items():
        forward = model.forward

        def counting_forward(
            ids: Any,
            positions: Any,
            mask: Any,
            columns: KVBuffer,
            keep: int = 1,
            name: Any = name,
            run: Any = forward,
        ) -> Any:
            if mask is not None:
                rows_per_step[name].append(len(ids))
            return run(ids, positions, mask, columns, keep)

        monkeypatch.setattr(model, "forward", counting_forward)
    decode(models, [request_for(UnionGuidance(schedule=Interval(end=4)), 0)])
    assert rows_per_step == {None: [1] * 10, "padded": [1] * 4, "absolute": [1] * 4}


def test_scoring_gives_the_trace_of_decoding(models: dict[str | None, LanguageModel]) -> None:
    decoder = Decoder(models[None], other_models={name: model for name, model in models.items() if name})
    request = request_for(experts(scale=2.5), 1)
    (completion,) = decoder.decode([request])
    (trace,) = decoder.trace_texts([request], [completion.tokens])
    assert min(trace.divergence) > 0  # although one weight is below 0
    for name, values in vars(trace).items():
        assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_a_branch_on_an_unknown_model_is_an_error(models: dict[str | None, LanguageModel]) -> None:
    with pytest.raises(InputError, match="a branch names model 'padded', which this decoder was not given"):
        list(
            Decoder(models[None]).decode([request_for(RULES[0], 0, negatives=(Branch((1,), 1.0, "padded"),))])
        )


# Amateurs that are the generator without some layers


def test_layers_are_left_out(tmp_path: Path) -> None:
    for kind, whole in {
        "rotary": make_model("rotary"),
        "absolute": GPT2LMHeadModel(
            GPT2Config(vocab_size=259, n_embd=32, n_layer=4, n_head=4, n_positions=64)
        ).eval(),
    }.items():
        whole.save_pretrained(tmp_path / kind)
        make_tokenizer().save_pretrained(tmp_path / kind)
        count = whole.config.num_hidden_layers
        amateur = load_model(str(tmp_path / kind), skip_layers=[count - 1, count])
        layers = whole.model.layers if kind == "rotary" else whole.transformer.h
        layers[-1].forward = lambda hidden_states, *args, **kwargs: hidden_states
        ids = torch.tensor([context(1, 9)])
        assert torch.allclose(amateur.module(ids).logits, whole(ids).logits, atol=1e-3)
        (completion,) = Decoder(amateur).decode([Request(positive=context(1, 9), max_new_tokens=6)])
        expected = list(ids[0])
        for _ in range(6):
            expected.append(whole(torch.tensor([expected]), use_cache=False).logits[0, -1].argmax())
        assert completion.tokens == tuple(map(int, expected[9:]))
        assert amateur.fingerprint != load_model(str(tmp_path / kind)).fingerprint


@pytest.mark.parametrize("skip", [[0, 2], [1, 1], [0, 3], [-1, 1], [0], [0, 1.0], [False, True]])
def test_a_wrong_range_of_layers_is_an_error(tiny_folder: Path, skip: Any) -> None:
    with pytest.raises(InputError, match=r"skip_layers must be .* of some but not all of the 2 layers"):
        load_model(str(tiny_folder), skip_layers=skip)


def test_other_tokenizers_are_refused_by_name(models: dict[str | None, LanguageModel]) -> None:
    stranger = from_transformers(make_model("rotary", seed=9), make_tokenizer())
    stranger.tokenizer.add_tokens(["new"])
    stranger.name = "stranger"
    negative = ModelNegative(models={"amateur": lambda: stranger}, weights={"amateur": 1.0})
    with pytest.raises(
        InputError, match="amateur: model 'stranger' has another tokenizer than 'LlamaForCausalLM'"
    ):
        negative.branches(Prompt(id="p", text="Hi"), models[None])
    with pytest.raises(InputError, match="one weight for each"):
        ModelNegative(models={"amateur": lambda: stranger}, weights={"expert": 1.0})


def test_a_sweep_between_models(tmp_path: Path, tiny_folder: Path) -> None:
    """Contrastive decoding and classifier-free guidance away from an amateur, then DExperts, by overrides."""
    other = tmp_path / "other"
    make_model("rotary", seed=4).save_pretrained(other)
    make_tokenizer(chat=True).save_pretrained(other)
    amateur = ["negatives=amateur", "negatives.models.amateur.skip_layers=[0,1]"]
    rows = sweep(*on(tmp_path, tiny_folder), "guidance=contrastive,cfg", *amateur)
    assert len({row["perplexity"] for row in rows}) == 2
    again = sweep(*on(tmp_path, tiny_folder), "guidance=contrastive,cfg", *amateur)
    assert [row["perplexity"] for row in again] == [row["perplexity"] for row in rows]
    rows = sweep(
        *on(tmp_path, tiny_folder),
        "guidance=experts",
        "guidance.scale=1.5,2",
        "negatives=experts",
        f"negatives.models.expert.name={other}",
        f"negatives.models.anti_expert.name={tiny_folder}",
    )
    assert len({row["perplexity"] for row in rows}) == 2
    results = load_results(tmp_path / "results" / "study")
    branches = results.groupby("negatives").agg({"negative_ids": list, "positive_ids": list})
    for option, number in {"amateur": 1, "experts": 2}.items():  # every branch reads the prompt itself
        for negatives, positive in zip(*branches.loc[option], strict=True):
            assert [list(ids) for ids in negatives] == [list(positive)] * number


def test_a_larger_vocabulary_is_cut_to_what_all_branches_know(
    models: dict[str | None, LanguageModel],
) -> None:
    """Also at steps that run no negative, for the negative reads those tokens at a later step."""
    torch.manual_seed(7)
    large = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "vocab_size": 300})).eval()
    generator, small = from_transformers(large), models[None]
    rule = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=4))
    for seed in range(8):
        positive = context(seed, 6)
        request = Request(
            positive=positive, negatives=(Branch(positive, 1.0, "small"),), guidance=rule, max_new_tokens=9
        )
        decoder = Decoder(generator, other_models={"small": small})
        (completion,) = decoder.decode([request])
        assert max(completion.tokens) < 259
        (trace,) = decoder.trace_texts([request], [completion.tokens])
        assert trace.guided == pytest.approx(completion.trace.guided, abs=2e-3)


@pytest.mark.parametrize("adaptive", [NotAdaptive(), KLBudget(), ByEntropy(), ByDivergence(), ByJSD()])
@pytest.mark.parametrize("sampling", [None, BeamSearch(width=2)])
def test_a_broken_negative_is_an_error_that_names_it(
    models: dict[str | None, LanguageModel], adaptive: Any, sampling: Any
) -> None:
    broken = make_model("rotary", seed=2)
    torch.nn.init.constant_(broken.lm_head.weight, torch.nan)
    amateur = from_transformers(broken)
    amateur.name = "the amateur"
    rule = ClassifierFreeGuidance(scale=3, adaptive=adaptive)
    request = Request(
        positive=(1, 2),
        negatives=(Branch((1, 2), 1.0, "a"),),
        guidance=rule,
        sampling=sampling,
        max_new_tokens=4,
    )
    with pytest.raises(
        NotANumberError, match="model 'the amateur' gave logits that are not numbers at step 0"
    ):
        list(Decoder(models[None], other_models={"a": amateur}).decode([request]))
