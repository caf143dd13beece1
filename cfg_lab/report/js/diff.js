// Words of a text that are not in the baseline's, by their longest common subsequence.

const wordsOf = (text) => text.match(/\s+|[^\s]+/g) || [];

// Which words of b are common with a: a boolean for each. Quadratic, so that very long middles are only
// compared at their ends.
function common(a, b) {
  let start = 0,
    end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end])
    end++;
  const kept = b.map((_, index) => index < start || index >= b.length - end);
  const rows = a.length - start - end,
    columns = b.length - start - end;
  if (!rows || !columns || rows * columns > 4e6) return kept;
  const width = columns + 1,
    longest = new Uint16Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      longest[i * width + j] =
        a[start + i] === b[start + j]
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (a[start + i] === b[start + j]) {
      kept[start + j] = true;
      i++;
      j++;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}

// The text with other words marked, and a sentence about how far it is from the baseline.
function differences(baseline, text) {
  const parts = wordsOf(text),
    spoken = (list) => list.filter((word) => word.trim());
  const words = spoken(parts),
    kept = common(spoken(wordsOf(baseline)), words);
  const nodes = [];
  let place = 0,
    run = null,
    space = "";
  for (const part of parts) {
    if (!part.trim()) {
      space = part;
      continue;
    }
    if (kept[place++]) {
      run = null;
      nodes.push(space, part);
    } else if (run) run.append(space, part);
    else {
      run = h("ins", {}, part);
      nodes.push(space, run);
    }
    space = "";
  }
  nodes.push(space);
  const other = kept.filter((same) => !same).length,
    first = kept.indexOf(false);
  const sentence = !other
    ? baseline === text
      ? "The same text as unguided."
      : "All its words are in the unguided text."
    : `${other} of ${words.length} words differ from unguided; the first is word ${first + 1}.`;
  return { nodes, sentence };
}
