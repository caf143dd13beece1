// Compares a text with its baseline word by word, by their longest common subsequence.

import { html } from "./dom.js";

const MOST_COMPARED = 4e6; // products of lengths above this are not compared word by word

// A character, with its marks, of a script that is written without spaces between words.
const CHARACTER = String.raw`(?=[\p{L}〇])[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmr}\p{scx=Mymr}]\p{M}*`;
const PARTS = new RegExp(String.raw`\s+|${CHARACTER}|(?:(?!${CHARACTER})\S)+`, "gu");

/**
 * Splits a text into words and the spaces between them. In scripts without spaces, a character is a word.
 * @param {string} text
 * @returns {string[]}
 */
const parts = (text) => text.match(PARTS) ?? [];

/**
 * Splits a text into words.
 * @param {string} text
 */
const words = (text) => parts(text).filter((part) => part.trim());

/**
 * Says for each word of `text` whether it belongs to the longest common subsequence with `baseline`.
 *
 * 1. Words at the start and at the end that are equal in both are common.
 * 2. For the words between, `longest` holds the length of the longest common subsequence of every two
 *    endings of the texts. The time is the product of the lengths, so very long texts stop after step 1.
 * 3. A walk through that table from the start finds one longest common subsequence.
 *
 * @param {string[]} baseline
 * @param {string[]} text
 */
function commonWords(baseline, text) {
  let start = 0;
  while (start < baseline.length && start < text.length && baseline[start] === text[start]) start++;
  let end = 0;
  const most = Math.min(baseline.length, text.length) - start;
  while (end < most && baseline[baseline.length - 1 - end] === text[text.length - 1 - end]) end++;
  const common = text.map((_, index) => index < start || index >= text.length - end);
  const a = baseline.slice(start, baseline.length - end);
  const b = text.slice(start, text.length - end);
  if (!a.length || !b.length || a.length * b.length > MOST_COMPARED) return common;

  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i * width + j] =
        a[i] === b[j]
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
  for (let i = 0, j = 0; i < a.length && j < b.length; )
    if (a[i] === b[j]) {
      common[start + j] = true;
      i++;
      j++;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  return common;
}

/**
 * Marks the words of a text that differ from the baseline. Also returns a sentence that says how many differ.
 * @param {string} baseline
 * @param {string} text
 */
export function differences(baseline, text) {
  const common = commonWords(words(baseline), words(text));
  /** @type {(string | HTMLElement)[]} */
  const nodes = [];
  /** @type {HTMLElement | null} The marked run of words that the next different word joins. */
  let run = null;
  let space = "";
  let word = 0;
  for (const part of parts(text)) {
    if (!part.trim()) {
      space = part;
      continue;
    }
    if (common[word++]) {
      run = null;
      nodes.push(space, part);
    } else if (run) run.append(space, part);
    else {
      run = html("ins", {}, part);
      nodes.push(space, run);
    }
    space = "";
  }
  nodes.push(space);
  return { nodes, sentence: sentence(common, baseline === text) };
}

/**
 * @param {boolean[]} common
 * @param {boolean} same whether the texts are equal
 */
function sentence(common, same) {
  const different = common.filter((isCommon) => !isCommon).length;
  if (same) return "The same text as unguided.";
  if (!different) return "All its words are in the unguided text.";
  const first = common.indexOf(false) + 1;
  return `${different} of ${common.length} words differ from unguided. The first is word ${first}.`;
}
