"""The lab's models in lm-eval, the evaluation harness of EleutherAI: its tasks under every guidance.

lm-eval knows a model after the class has been registered, which importing this module does. This command
registers it, and is otherwise the command of lm-eval:

    python -m cfg_lab.integrations.lm_eval --model cfg_lab \
        --model_args pretrained=smollm2,scale=1.5,negatives=last_token --tasks hellaswag --limit 100

In Python, `lm_eval.simple_evaluate(model=CfgLabModel("smollm2"), tasks=["hellaswag"])` does the same.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec

from cfg_lab.errors import InputError
from cfg_lab.study.console import errors_in_a_sentence

if find_spec("lm_eval") is None:
    with errors_in_a_sentence() if __name__ == "__main__" else nullcontext():
        raise InputError("the package lm-eval is missing; install it with: pip install 'cfg-lab[lm_eval]'")

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

from lm_eval import utils
from lm_eval.api import registry
from lm_eval.api.model import CacheHook
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from cfg_lab.decoding.continuation_scores import ContinuationScore
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.row_limit import MaxRows, check_max_rows
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance
from cfg_lab.integrations.checks import check_objects, check_whole, claim_cache
from cfg_lab.integrations.generation_arguments import GenerationArguments
from cfg_lab.integrations.model_arguments import model_arguments
from cfg_lab.integrations.text_to_tokens import TokenizingModel
from cfg_lab.models import LanguageModel, load_model
from cfg_lab.negatives import NamedNegative, Negative
from cfg_lab.study.pairs import Pair, check_raw, negative_branches, raw_log_likelihood, requests_of_pairs
from cfg_lab.study.stop_strings import stops_of

Score = Literal["normalised", "raw"]

Tokens = tuple[tuple[str, str] | None, list[int], list[int]]
"""The strings of a context and a continuation, then the token ids of each."""


class CfgLabModel(TokenizingModel):
    """A language model under guidance, as lm-eval's tasks use it.

    Contexts are tokenised, truncated and split from continuations as by lm-eval's own class for transformers
    models, `HFLM`. At scale 1 all results equal those of `HFLM`. Contexts are plain texts, also for chat
    models, unless lm-eval is told to apply the chat template.

    The negative contexts are described in `cfg_lab.study.pairs.requests_of_pairs`. A negative that needs more
    than the prompt, such as `own`, is refused.

    Args:
        model: a model from `load_model`, or a name for `load_model`.
        guidance: any guidance rule.
        negatives: what to steer away from. The default is that of Sanchez et al. 2023 (arXiv:2306.17806).
        score: "normalised" is the log-likelihood under the guided distribution. "raw" is the score of
            Sanchez et al., see `cfg_lab.study.pairs.raw_log_likelihood`. Generated texts are the same.
        max_rows: largest number of rows of the decoder's batch, or "auto".
        max_length: largest number of tokens that the model reads of a context and its continuation. Longer
            contexts are truncated from the left. None means the context length of the model. A smaller value
            leaves room for negative contexts that are longer than the positive one.
        max_gen_toks: number of new tokens of a generated text, if the task does not set it.
        add_bos_token: put the beginning-of-sequence token before every context. None does what the tokenizer
            does by default.
        prefix_token_id: the token that stands for an empty context. None means the beginning-of-sequence
            token, or the end-of-sequence token if there is none.
        seed: seed of the sampling noise, for tasks with `do_sample`. Repeats of a context are its samples.
        batch_size, max_batch_size: without effect. lm-eval's command passes them, but the decoder forms its
            batches from `max_rows`.

    Raises:
        InputError: an argument is wrong.
    """

    def __init__(
        self,
        model: LanguageModel | str,
        guidance: Guidance | None = None,
        negatives: Negative | None = None,
        *,
        score: Score = "normalised",
        max_rows: MaxRows = "auto",
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        seed: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        model = load_model(model) if isinstance(model, str) else model
        check_objects(model, guidance, negatives)
        super().__init__(model, max_length, add_bos_token, prefix_token_id)
        self.guidance: Guidance = ClassifierFreeGuidance() if guidance is None else guidance
        self.negatives = NamedNegative(variant="last_token") if negatives is None else negatives
        if score not in get_args(Score):
            raise InputError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
        if score == "raw":
            check_raw(self.guidance)
        check_whole("max_gen_toks", max_gen_toks, 1)
        check_max_rows(max_rows)
        check_whole("seed", seed, 0)
        self.score: Score = score
        self.max_gen_toks, self.seed = max_gen_toks, seed
        self._device = model.device
        self._decoder = Decoder(model, max_rows, self.negatives.other_models())

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> CfgLabModel:
        """Make a model from `--model_args`, see `create_from_arg_obj`."""
        return cls.create_from_arg_obj(
            cast("Any", utils).simple_parse_args_string(arg_string), additional_config
        )

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> CfgLabModel:
        """Make a model from `--model_args`, as lm-eval's command gives them.

        Args:
            arg_dict: arguments by name, see `cfg_lab.integrations.model_arguments`.
            additional_config: further options of lm-eval's command: batch_size, max_batch_size, device.

        Raises:
            InputError: an argument is wrong or unknown.
        """
        return cls(**model_arguments({**(additional_config or {}), **arg_dict}))

    # Log-likelihoods

    def scores(self, pairs: Sequence[Pair], guidances: Sequence[Guidance]) -> list[ContinuationScore]:
        """The scores of all pairs under all guidance rules, at about the cost of one rule.

        Returns:
            One score per pair, in the order of the pairs; `guided` and `greedy` have one value per rule.
        """
        return self._scores(requests_of_pairs(self.model, self.negatives, pairs), pairs, guidances)

    def _scores(
        self, requests: Sequence[Request], pairs: Sequence[Pair], guidances: Sequence[Guidance]
    ) -> list[ContinuationScore]:
        with tqdm(total=len(pairs), desc="Scoring continuations") as progress:

            def show(finished: int) -> None:
                progress.update(finished - progress.n)

            return self._decoder.score(requests, [pair.continuation for pair in pairs], guidances, show)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether every token is the likeliest under guidance) of each request."""
        strings = [cast("tuple[str, str]", request.args) for request in requests]
        return self._loglikelihood_tokens([(texts, *self.token_ids(*texts)) for texts in strings])

    def _loglikelihood_tokens(self, requests: Sequence[Tokens], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [
            self.pair_of_tokens(None if strings is None else strings[0], *tokens)
            for strings, *tokens in requests
        ]
        guided = requests_of_pairs(self.model, self.negatives, pairs)
        guided = [self._with_needed_branches(*both) for both in zip(guided, pairs, strict=True)]
        answers: list[tuple[float, bool]] = []
        for (strings, _, _), request, score in zip(
            requests, guided, self._scores(guided, pairs, [self.guidance]), strict=True
        ):
            log_likelihood = score.guided[0]
            if self.score == "raw":
                log_likelihood = raw_log_likelihood(check_raw(self.guidance), request, score)
            answers.append((log_likelihood, score.greedy[0]))
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answers[-1])
        return answers

    def _with_needed_branches(self, request: Request, pair: Pair) -> Request:
        """The request without negatives, if guidance is off at every token of the continuation."""
        planned = replace(request, guidance=self.guidance, max_new_tokens=len(pair.continuation))
        return replace(planned, negatives=planned.branches)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text in nats, without a context.

        A text that is longer than `max_length` is split into windows as by lm-eval. The negatives of a window
        are made of the tokens before it.
        """
        windows: list[Tokens] = []
        numbers: list[int] = []  # of each window's request
        for number, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                numbers.append(number)
        sums = [0.0] * len(requests)
        for number, (log_likelihood, _) in zip(numbers, self._loglikelihood_tokens(windows), strict=True):
            sums[number] += log_likelihood
        for request, log_likelihood in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, log_likelihood)
        return sums

    # Generation

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Decode a text for each request, up to its first stop string.

        `max_gen_toks` is the largest number of new tokens. In `HFLM` an encoder-decoder model can exceed it
        by the number of tokens of its source.

        Raises:
            InputError: an argument of the generation is unknown or wrong, see `GenerationArguments`.
        """
        arguments = [GenerationArguments.of(request.args[1], self.max_gen_toks) for request in requests]
        samples: Counter[tuple[str, GenerationArguments]] = Counter()
        planned: list[Request] = []
        for request, argument in zip(requests, arguments, strict=True):
            text: str = request.args[0]
            room = self.max_length - (0 if self.model.start else argument.max_gen_toks)
            if room < 1:
                raise InputError(
                    f"max_gen_toks must be below max_length={self.max_length}, got {argument.max_gen_toks}"
                )
            context = self.context(text, self.tok_encode(text), room)
            stop_ids, stop_when = stops_of(argument.until, self.model)
            planned.append(
                Request(
                    positive=context.ids,
                    negatives=negative_branches(self.model, self.negatives, context),
                    guidance=self.guidance,
                    sampling=argument.sampling,
                    max_new_tokens=argument.max_gen_toks,
                    stop_ids=stop_ids,
                    stop_when=stop_when,
                    seed=self.seed,
                    sample=samples[text, argument],
                )
            )
            samples[text, argument] += 1
        tokens: dict[int, tuple[int, ...]] = {}
        completions = self._decoder.decode(planned)
        for completion in tqdm(completions, total=len(planned), desc="Decoding texts", disable=disable_tqdm):
            tokens[id(completion.request)] = completion.text_tokens
        texts: list[str] = []
        for request, argument, plan in zip(requests, arguments, planned, strict=True):
            decoded: str = self.tokenizer.decode(tokens[id(plan)], skip_special_tokens=True)
            texts.append(postprocess_generated_text(decoded, list(argument.until), None))
            self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        return texts

    # What lm-eval stores

    def get_model_info(self) -> dict[str, Any]:
        """What determines the results: lm-eval stores it beside them."""
        return {
            "model_name": self.model.name,
            "model_fingerprint": self.model.fingerprint,
            "guidance": repr(self.guidance),
            "negatives": re.sub(r" at 0x[0-9a-f]+", "", repr(self.negatives)),  # addresses of functions
            "score": self.score,
            "max_length": self.max_length,
            "add_bos_token": self.add_bos_token,
            "prefix_token_id": self.prefix_token_id,
            "seed": self.seed,
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Use a cache of answers (`use_cache`), see `claim_cache`."""
        if cache_hook.dbdict is not None:
            claim_cache(cache_hook.dbdict, self.get_model_info())
        super().set_cache_hook(cache_hook)


cast("Any", registry).register_model("cfg_lab")(CfgLabModel)


def main() -> None:
    """Run lm-eval's command. The user's errors are printed as one sentence."""
    from lm_eval.__main__ import cli_evaluate

    with errors_in_a_sentence():
        cli_evaluate()


if __name__ == "__main__":
    main()
