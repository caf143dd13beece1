"""Metrics are right in every language, or give no score and say so."""

from __future__ import annotations

import math
import re
import string
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.metrics import (
    Answer,
    Diversity,
    EvaluateModule,
    Leakage,
    Length,
    Repetition,
    Rouge,
    SelfBleu,
    Text,
    Translation,
    columns_of,
)
from cfg_lab.metrics.answer import normalised_answer
from cfg_lab.metrics.bleu import load_bleu, tokenizer_for
from cfg_lab.metrics.column_info import ANY_LANGUAGE, ENGLISH
from cfg_lab.metrics.known_columns import packaged_columns
from cfg_lab.metrics.latin import is_latin
from cfg_lab.metrics.rouge import _Tokenizer
from cfg_lab.metrics.words import space_out, words
from cfg_lab.negatives import parse_phrases
from cfg_lab.report.cards import meaning_html
from tests.options import OFFLINE
from tests.texts import FakeEmbedder, answer, choice, samples_of, text

SENTENCES = {
    "English": "The weather is lovely today, and we don't want to stay at home.",
    "Chinese": "今天天气很好，我们不想待在家里。",
    "Japanese": "今日は天気がとてもいいので、コーヒーを飲みに出かけました。",
    "Korean": "오늘은 날씨가 아주 좋아서, 우리는 집에 있고 싶지 않아요.",
    "Hindi": "आज मौसम बहुत अच्छा है, और हम घर पर नहीं रहना चाहते।",
    "Russian": "Сегодня прекрасная погода, и мы не хотим сидеть дома: пойдём в лес ещё раз.",
    "Arabic": "اَلطَّقْسُ جَمِيلٌ اَلْيَوْمَ، وَنَحْنُ لَا نُرِيدُ أَنْ نَبْقَى فِي اَلْبَيْتِ.",
    "Hebrew": "מֶזֶג הָאֲוִיר נָעִים הַיּוֹם, וְאֵינֶנּוּ רוֹצִים לְהִשָּׁאֵר בַּבַּיִת.",
    "Thai": "วันนี้อากาศดีมาก เราไม่อยากอยู่บ้าน และน้ำก็ใสมาก",
    "Greek": "Σήμερα ο καιρός είναι υπέροχος, και δεν θέλουμε να μείνουμε στο σπίτι μας.",
    "Vietnamese": "Hôm nay trời rất đẹp, và chúng tôi không muốn ở nhà một mình.",
    "Turkish": "İstanbul’da bugün hava çok güzel, ve biz evde kalmak istemiyoruz.",
}
UNSPACED = ("Chinese", "Japanese", "Thai")
NOT_LATIN = sorted(SENTENCES.keys() - {"English", "Vietnamese", "Turkish"})
EVERY_LANGUAGE = pytest.mark.parametrize("language", SENTENCES)


def prepared(
    words_of_text: str, prompt: str, *, reference: str, negative: str, question: str | None = None
) -> Text:
    """A text with all that any metric reads. The text of its prompt is `question`, else the reference."""
    return text(
        words_of_text,
        prompt=Prompt(id=prompt, text=question or reference, negative=negative, references=(reference,)),
        log_probs=(-1.0,) * 9,
        guided_log_probs=(-1.0,) * 9,
        entropies=(1.0,) * 9,
        tokens=tuple(range(9)),
        tokens_read=(9, 3),
        tokens_read_in_full=(9, 6),
        parameters=(100, 100),
        choices=(choice(True, -1.0), choice(False, -2.0)),
    )


def scores_of(texts: Sequence[Text]) -> dict[str, float]:
    """Every score of the first text, by all packaged metrics that compare or count words."""
    metrics = (Answer(), Diversity(), Length(), Repetition(), Rouge(), SelfBleu(), Translation())
    return {column: values[0] for metric in metrics for column, values in metric.score(texts).items()}


# Words


@EVERY_LANGUAGE
def test_no_letter_and_no_mark_is_torn_off_or_lost(language: str) -> None:
    sentence = SENTENCES[language]
    lower = unicodedata.normalize("NFC", sentence).lower()
    expected = "".join(c for c in lower if unicodedata.category(c)[0] in "LMN" or c in "'’")
    assert "".join(words(sentence)) == expected
    assert not any(unicodedata.category(word[0]).startswith("M") for word in words(sentence))
    assert "".join(space_out(sentence).split()) == "".join(sentence.split())


@EVERY_LANGUAGE
def test_words_end_at_spaces_or_are_characters(language: str) -> None:
    sentence = unicodedata.normalize("NFC", SENTENCES[language])
    punctuation = re.escape(string.punctuation.replace("'", "") + "，。、،।")
    chunks = re.sub(f"[{punctuation}]", " ", sentence.lower()).split()
    if language in UNSPACED:
        assert len(words(sentence)) > 2 * len(chunks)
        # A word is one letter with its marks; the Thai vowel sara am is written in two parts.
        letters = [sum(unicodedata.category(c)[0] == "L" for c in word) for word in words(sentence)]
        assert all(count == 1 or "ำ" in word for count, word in zip(letters, words(sentence), strict=True))
    else:
        assert words(sentence) == chunks


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_have_the_words_that_they_always_had(ascii_text: str) -> None:
    """Law: scores of English texts stay. These are the definitions from before other scripts were known."""
    assert words(ascii_text) == re.findall(r"[^\W_]+(?:['’][^\W_]+)*", ascii_text.lower())
    assert _Tokenizer(stem=True).tokenize(ascii_text) == DefaultTokenizer(use_stemmer=True).tokenize(
        ascii_text
    )
    assert _Tokenizer(stem=False).tokenize(ascii_text) == DefaultTokenizer().tokenize(ascii_text)
    assert Length().score([text(ascii_text)])["words"] == [len(ascii_text.split())]
    unpunctuated = ascii_text.lower().translate(str.maketrans("", "", string.punctuation))
    assert normalised_answer(ascii_text) == " ".join(re.sub(r"\b(a|an|the)\b", " ", unpunctuated).split())
    assert is_latin(ascii_text)
    assert tokenizer_for(ascii_text) == "13a"


def test_scripts_side_by_side_and_signs_inside_words() -> None:
    assert words("我用iPhone手机") == ["我", "用", "iphone", "手", "机"]
    assert words("می‌خواهم") == ["می‌خواهم"]  # joined by a zero-width non-joiner
    assert words("צה״ל l’été col·lecció don't") == ["צה״ל", "l’été", "col·lecció", "don't"]
    for sentence in ("ភាសាខ្មែរស្អាត", "ພາສາລາວງາມ", "မြန်မာဘာသာစကား"):
        assert "".join(words(sentence)) == sentence
        assert len(words(sentence)) > 4
        assert {unicodedata.category(word[0]) for word in words(sentence)} == {"Lo"}
    assert words("🖧️ 👩‍👩 — …") == []


def test_the_number_of_words() -> None:
    texts = ["今天，天气很好。", "Hello, 世界 !", "- 好", "well-known don't"]
    assert Length().score(list(map(text, texts)))["words"] == [6, 4, 2, 2]


# Comparisons with a reference


@EVERY_LANGUAGE
def test_a_text_is_its_own_best_text(language: str) -> None:
    """Law: a text scores 1 against itself. With its end cut off it scores less, but not much less."""
    sentence = SENTENCES[language]
    itself, shorter = scores_of([answer(sentence, sentence)]), scores_of([answer(sentence[:-2], sentence)])
    other = scores_of([answer(" ".join(sorted(words(sentence), reverse=True)), sentence)])
    for column in ("rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "exact_match", "token_f1"):
        assert itself[column] == pytest.approx(1), column
        assert shorter[column] < 1, column
        assert column == "exact_match" or shorter[column] > 0.6, column
        if column not in ("rouge_1", "token_f1"):  # the same words in another order
            assert other[column] < 0.75, column


@EVERY_LANGUAGE
def test_both_unicode_forms_score_alike(language: str) -> None:
    """Law: accents may be written as characters of their own (NFD) or not (NFC)."""
    forms = [unicodedata.normalize(form, SENTENCES[language]) for form in ("NFC", "NFD")]
    negative = ", ".join(words(SENTENCES[language])[:2])
    by_form = [
        {
            column: values
            for metric in OFFLINE.values()
            for column, values in scored(
                metric,
                [
                    prepared(form, "1", reference=SENTENCES[language], negative=negative, question=form),
                    prepared(SENTENCES[language], "1", reference=form, negative=negative, question=form),
                ],
            ).items()
            if column != "bits_per_byte"  # counts the bytes that were decoded
        }
        for form in forms
    ]
    for column, values in by_form[0].items():
        assert by_form[1][column] == pytest.approx(values, nan_ok=True, abs=1e-6), column
    assert by_form[1]["exact_match"] == by_form[1]["chrf"] == pytest.approx([1, 1])


def scored(metric: Any, texts: Sequence[Text]) -> dict[str, list[float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric.score(texts)


def test_punctuation_of_every_script_is_none_of_the_answer() -> None:
    pairs = [
        ("“Paris”", "Paris"),
        ("«Paris»…", "paris"),
        ("Ｐａｒｉｓ！", "Paris"),
        ("「巴黎」。", "巴黎"),
        ("巴 黎", "巴黎"),
        ("٢٠٢٤؟", "٢٠٢٤"),
        ("दिल्ली।", "दिल्ली"),
    ]
    scores = Answer().score([answer(answered, reference) for answered, reference in pairs])
    assert scores["exact_match"] == scores["token_f1"] == [1] * len(pairs)
    scores = Answer().score([answer("法国巴黎", "巴黎"), answer("दिल", "दिल्ली"), answer("l'an", "l'été")])
    assert scores["exact_match"] == [0, 0, 0]
    assert scores["token_f1"] == pytest.approx([2 * 2 / 6, 0, 0])  # by character, as MLQA counts Chinese


def test_the_tokens_of_bleu() -> None:
    tokenizers = {"Chinese": "zh", "Japanese": "char", "Thai": "char"}
    for language, sentence in SENTENCES.items():
        assert tokenizer_for(sentence) == tokenizers.get(language, "13a"), language
    assert tokenizer_for("我用 iPhone 和 MacBook") == "zh"
    assert tokenizer_for("The word 你好 is a greeting in Chinese") == "13a"
    chinese, one_character_changed = "今天天气很好，我们去公园散步。", "今天天气很好，他们去公园散步。"
    assert (
        load_bleu("13a")(one_character_changed, chinese) < 0.5 < load_bleu()(one_character_changed, chinese)
    )
    scores = Translation(tokenize="char").score([answer("the cat", "the cats")])
    assert scores["bleu"][0] == pytest.approx(load_bleu("char")("the cat", "the cats"))
    near, far = ("今天天气很好。", "今天天气真好。"), ("今天天气很好。", "小猫睡着了。")
    assert SelfBleu().score(samples_of("p", *near))["self_bleu"][0] > 0.4
    assert SelfBleu().score(samples_of("p", *far))["self_bleu"][0] < 0.2


@pytest.mark.parametrize("metric", [Translation, SelfBleu])
def test_an_unknown_tokenizer_is_refused_before_anything_is_decoded(metric: type[Translation]) -> None:
    with pytest.raises(InputError, match=r"tokenize must be auto or one of none, zh, 13a, .*, got 'jieba'"):
        metric(tokenize="jieba").score([])


def test_a_tokenizer_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(InputError, match=r"tokenize is 'ja-mecab', which cannot be loaded: .*pip install"):
        Translation(tokenize="ja-mecab").score([])


def test_stems_are_those_of_english() -> None:
    french = [answer("les chats dormaient", "les chat dormait")]
    assert Rouge(stem=False).score(french)["rouge_1"] == pytest.approx([1 / 3])
    assert Rouge().score(french)["rouge_1"][0] > 1 / 3


# Counts


def test_repeated_chinese_characters_are_repetition() -> None:
    repeated, varied = text("好好学习，天天向上，好好学习，天天向上。"), text("春眠不觉晓，处处闻啼鸟。")
    distinct = Diversity().score([repeated, varied])
    assert distinct["distinct_1"] == pytest.approx([6 / 16, 9 / 10])
    assert distinct["repeated_4"] == pytest.approx([5 / 13, 0])
    repetition = Repetition().score([repeated, varied])
    assert repetition["longest_repeat"] == pytest.approx([8 / 16, 1 / 10])


# Leakage


def test_a_chinese_negative_is_found_in_a_chinese_text() -> None:
    metric = Leakage(embedder=lambda: FakeEmbedder({}), phrases=parse_phrases)

    def leakage(written: str, negative: str) -> float:
        prompt = Prompt(id="1", text="?", negative=negative)
        return scored(metric, [text(written, prompt=prompt)])["leakage_verbatim"][0]

    assert leakage("他今天很难过，也很孤单。", "难过、孤单") == 1
    assert leakage("他今天很难过。", "难过:3、孤单") == pytest.approx(3 / 4)
    assert leakage("他今天很高兴。", "难过、孤单") == 0
    assert leakage("He is SAD and bleak", "sad, bleak:-1") == 0
    assert leakage("The ambassador", "sad") == 0  # no part of a word
    assert leakage("वह उदास है।", "उदास") == 1
    assert leakage("so boring!!", "!!") == 1
    assert math.isnan(leakage(" ", "sad"))
    assert math.isnan(leakage("sad", ""))


# Metrics that are not for every language


def test_every_column_says_what_it_measures_and_in_which_languages() -> None:
    columns = [packaged_columns(), *map(columns_of, OFFLINE.values())]
    infos = {name: info for by_name in columns for name, info in by_name.items()}
    assert [name for name, info in infos.items() if not info.meaning or not info.languages] == []
    assert columns_of(EvaluateModule(module="m", column="c"))["c"].languages
    assert meaning_html("sentiment").endswith("; higher is better; languages: English")
    assert meaning_html("distinct_1").endswith("; higher is better")


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_a_metric_scores_the_languages_that_it_declares(name: str) -> None:
    """Law: what is for English gives other scripts no score, with one warning. The rest gives a score."""
    metric: Any = OFFLINE[name]
    foreign = [
        prepared(SENTENCES[language] * 3, prompt, reference=SENTENCES[language], negative="难过")
        for prompt in ("1", "2", "3")
        for language in NOT_LATIN
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        scores = {column: [] for column in columns_of(metric)}
        for texts in (foreign, foreign):  # as a sweep calls a metric, batch by batch
            for column, values in metric.score(texts).items():
                scores[column] += values
    languages = {column: info.languages for column, info in columns_of(metric).items()}
    sentences = [str(warning.message) for warning in caught if "is for English" in str(warning.message)]
    assert len(sentences) == (ENGLISH in languages.values())
    for column, values in scores.items():
        if languages[column] == ENGLISH:
            assert all(map(math.isnan, values)), column
        elif languages[column] == ANY_LANGUAGE and column != "mauve":
            assert not any(map(math.isnan, values)), column


def test_texts_in_other_scripts_change_no_score_of_an_english_text() -> None:
    english = [
        prepared(written, prompt, reference="A happy day with friends.", negative="sad")
        for prompt in ("1", "2", "3")
        for written in ("What a wonderful day!", "The train was late again, and it rained.")
    ]
    chinese = prepared(SENTENCES["Chinese"], "1", reference=SENTENCES["Chinese"], negative="难过")
    for name, metric in OFFLINE.items():
        alone, together = scored(metric, english), scored(metric, [english[0], chinese, *english[1:]])
        for column, info in columns_of(metric).items():
            if info.languages == ENGLISH:
                scores_in_english = [together[column][0], *together[column][2:]]
                assert scores_in_english == pytest.approx(alone[column], nan_ok=True, abs=1e-6), (
                    name,
                    column,
                )
                assert math.isnan(together[column][1])


def test_most_words_decide_the_script() -> None:
    assert not any(is_latin(SENTENCES[language]) for language in NOT_LATIN)
    assert is_latin("Naïve café İstanbul Đà Nẵng")
    assert is_latin("7 \n !")
    assert is_latin("")
    assert is_latin("The word 你好 means hello")
    assert not is_latin("我喜欢用 Python 编程")


# Modules of `evaluate` and several references

MODULE = """
import datasets
import evaluate
class Overlap(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": REFERENCES})
        return evaluate.MetricInfo(description="", citation="", features=FEATURES)
    def _compute(self, predictions, references):
        reference = references[0]
        return {"overlap": len(reference) if isinstance(reference, list) else reference == predictions[0]}
"""
STRING, STRINGS = 'datasets.Value("string")', 'datasets.Sequence(datasets.Value("string"))'


def overlap(folder: Path, references: str, features: str = "features", **changes: Any) -> EvaluateModule:
    path = folder / f"overlap_{len(list(folder.iterdir()))}.py"
    path.write_text(MODULE.replace("REFERENCES", references).replace("FEATURES", features))
    return EvaluateModule(module=str(path), column="overlap", **changes)


def test_a_module_of_evaluate_gets_all_references_or_the_best_counts(tmp_path: Path) -> None:
    two, one = answer("b", "a", "b"), answer("b", "b")
    assert overlap(tmp_path, STRINGS).score([two, one])["overlap"] == [2, 1]
    either = "[features, datasets.Features({**features, 'references': datasets.Value('string')})]"
    assert overlap(tmp_path, STRINGS, either).score([two, one])["overlap"] == [2, 1]
    assert overlap(tmp_path, STRING, better="higher").score([two, one])["overlap"] == [1, 1]
    assert overlap(tmp_path, STRING, better="lower").score([two, one])["overlap"] == [0, 1]
    with pytest.warns(UserWarning, match=r"Set metrics\.evaluate\.better to higher or lower"):
        first, second = overlap(tmp_path, STRING).score([two, one])["overlap"]
    assert math.isnan(first)
    assert second == 1
