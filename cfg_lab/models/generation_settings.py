"""Settings of generation in the files of a model.

They are in the model's generation_config.json; old models have them in their config. The lab applies the stop
tokens. It has its own settings of sampling, beam search and the longest text, which are used instead of the
model's. Other settings that would change texts are not applied; `settings_not_applied` returns them.
"""

from __future__ import annotations

from typing import Any

_NO_EFFECT: dict[str, Any] = {
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "repetition_penalty": 1,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "exponential_decay_length_penalty": None,
    "stop_strings": None,
    "token_healing": False,
    "guidance_scale": 1,
    "watermarking_config": None,
}
"""Settings that `generate` of transformers applies and the lab does not: name -> value without effect.

None, an empty list and an empty mapping have no effect either.
"""


def stop_ids_of(generation_config: Any, config: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that end a text, according to any file of a model.

    Args:
        generation_config: the transformers GenerationConfig; None if the model has none.
        config: the transformers config.
        tokenizer: the transformers tokenizer; None if there is none.
    """
    # A text config often has an id that only is the default of its class, so it counts if nothing else does.
    of_config = _end_tokens(config) or _end_tokens(config.get_text_config())
    return frozenset((*_end_tokens(generation_config), *of_config, *_end_tokens(tokenizer)))


def _end_tokens(source: Any) -> list[int]:
    """The end-of-sequence tokens that a config or a tokenizer names: none, one or several."""
    ids: int | list[int] | None = getattr(source, "eos_token_id", None)
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def settings_not_applied(generation_config: Any, config: Any) -> dict[str, Any]:
    """The settings of a generation config that would change texts and that the lab does not apply.

    Args:
        generation_config: the transformers GenerationConfig; None if the model has none.
        config: the transformers config. An encoder-decoder model starts its texts with `forced_bos_token_id`,
            so for such a model this setting is applied.

    Returns:
        name -> value.
    """
    settings = {name: getattr(generation_config, name, None) for name in _NO_EFFECT}
    if config.is_encoder_decoder:
        del settings["forced_bos_token_id"]
    return {name: value for name, value in settings.items() if value not in (None, [], {}, _NO_EFFECT[name])}
