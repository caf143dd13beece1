"""Tokenizers of several kinds, trained on a few words."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on the mat and the dog ran after the cat, again and again. It's fine!\n\nYes: 12 + 30 = 42",
    "été café 我们在这里 naïve  two  spaces\tTab",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<|eot|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level(*, prefix_space: bool = False) -> PreTrainedTokenizerFast:
    """As in GPT-2: a token is a sequence of bytes, and a leading space is part of a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _fast(tokenizer)


def sentence_piece(scheme: str) -> PreTrainedTokenizerFast:
    """As in Llama 2: byte fallback, a space before every text that is encoded, none before a decoded text.

    Args:
        scheme: where a space is put: a `prepend_scheme` of Metaspace, or "normalizer" as in Llama 2 itself,
            whose normalizer puts a space before a text even if the text begins with a space.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    by_normalizer = scheme == "normalizer"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if by_normalizer else scheme)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*SPECIAL, *BYTES], limit_alphabet=60)
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if by_normalizer:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _fast(tokenizer)


def unigram() -> PreTrainedTokenizerFast:
    """As in T5 and XGLM."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _fast(tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    """As in BERT: spaces are not part of tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL))
    return _fast(tokenizer)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": byte_level,
    "byte level, prefix space": lambda: byte_level(prefix_space=True),
    "Llama 2": lambda: sentence_piece("normalizer"),
    "Metaspace first": lambda: sentence_piece("first"),
    "Metaspace always": lambda: sentence_piece("always"),
    "Metaspace never": lambda: sentence_piece("never"),
    "unigram": unigram,
    "WordPiece": word_piece,
}
