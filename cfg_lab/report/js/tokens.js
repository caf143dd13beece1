// What guidance did to each token. Packs are opened when a text of theirs is first shown.

const opened = new Map();
const LEVELS = D.tokens.levels; // nats; between them the five steps of colour

async function openPack(index) {
  if (!opened.has(index))
    opened.set(
      index,
      (async () => {
        const bytes = Uint8Array.from(atob(at(`pack-${index}`).textContent), (character) =>
          character.charCodeAt(0),
        );
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return JSON.parse(await new Response(stream).text());
      })(),
    );
  return opened.get(index);
}

const nats = (value) => (value === null || value === undefined ? null : value / 100);
const level = (moved) => (moved === null ? 0 : LEVELS.filter((least) => Math.abs(moved) >= least).length);
const times = (moved) => `${short(Math.exp(Math.abs(moved)))} times ${moved < 0 ? "less" : "as"} likely`;

// One token of a text, in nats; guided, positive and negative are kept without their sign.
function tokenAt(pack, text, index) {
  const minus = (name) => {
    const value = nats((text[name] || [])[index]);
    return value === null ? null : -value;
  };
  const plus = (name) => nats((text[name] || [])[index]);
  const token = {
    piece: pack.pieces[text.pieces[index]],
    guided: minus("guided"),
    positive: minus("positive"),
    negative: minus("negative"),
    entropy: plus("entropy"),
    divergence: plus("divergence"),
    scale: plus("scale"),
  };
  token.moved = token.guided === null || token.positive === null ? null : token.guided - token.positive;
  token.tops = ["positive", "guided", "negative"].map((branch) => {
    const flat = (text[`top_${branch}`] || [])[index] || [],
      list = [];
    for (let k = 0; k < flat.length; k += 2)
      list.push({ piece: pack.pieces[flat[k]], logProb: -flat[k + 1] / 100 });
    return { branch, list };
  });
  return token;
}

const visiblePiece = (piece) =>
  piece
    .replace(/\n/g, "\u21b5")
    .replace(/\t/g, "\u21e5")
    .replace(/[\u0000-\u001f\u007f]/g, "\u00b7") || "\u2205";
const movedText = (moved) =>
  moved === null
    ? "not measured"
    : `${signed(moved)} nats, ${Math.abs(moved) < 0.005 ? "not moved" : times(moved)}`;

async function tokenView(completion) {
  const index = D.completions.pack[completion];
  if (index < 0) return null;
  const pack = await openPack(index),
    text = pack.texts[String(completion)];
  const tokens = text.pieces.map((_, place) => tokenAt(pack, text, place));
  const spans = tokens.map((token) => {
    const step = level(token.moved),
      way = !step ? "" : token.moved > 0 ? ` up l${step}` : ` down l${step}`;
    const broken = token.piece.includes("\n");
    const span = h(
      "span",
      {
        class: `t${way}`,
        role: "button",
        "aria-label": `${visiblePiece(token.piece)}: ${movedText(token.moved)}`,
      },
      broken ? token.piece.replace(/\n/g, "\u21b5\n") : token.piece || "\u2205",
    );
    const show = () => inspect(token, span);
    span.addEventListener("pointerenter", () => dismissed || show());
    span.addEventListener("focus", () => (dismissed && inspected === span) || show());
    activate(span, show);
    return span;
  });
  roving(spans);
  return [
    strip(tokens),
    h(
      "div",
      { class: "tokens", dir: "auto", role: "group", "aria-label": "Tokens; arrow keys move among them" },
      spans,
    ),
  ];
}

// The whole text's course: a bar a token, up where guidance raised it, down where it lowered it.
function strip(tokens) {
  const width = Math.max(1, tokens.length),
    reach = 3;
  const bars = tokens.map((token, place) => {
    if (token.moved === null) return null;
    const size = (Math.min(reach, Math.abs(token.moved)) / reach) * 15;
    return s("rect", {
      class: token.moved > 0 ? "up" : "down",
      x: place + 0.1,
      width: 0.8,
      y: number(token.moved > 0 ? 16 - size : 16),
      height: number(size),
    });
  });
  return s(
    "svg",
    { class: "strip", viewBox: `0 0 ${width} 32`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("line", { x1: 0, x2: width, y1: 16, y2: 16 }),
    bars,
  );
}

let inspected = null;
// Closed by the reader: neither the focus given back to the token nor a token that comes to lie under the
// pointer opens it again, only a press or an arrow key.
let dismissed = false;
function inspect(token, span) {
  if (inspected) inspected.classList.remove("hot");
  inspected = span;
  dismissed = false;
  span.classList.add("hot");
  const panel = at("inspector");
  const facts = [
    ["guided", token.guided],
    ["positive", token.positive],
    ["negative", token.negative],
  ].map(([name, value]) => [
    `${name} log-prob`,
    value === null ? "none" : `${short(value)} (${percent(Math.exp(value))})`,
  ]);
  facts.push(
    ["entropy of guided", `${short(token.entropy)} nats`],
    ["KL(positive\u2016negative)", token.divergence === null ? "none" : `${short(token.divergence)} nats`],
    ["scale", short(token.scale)],
  );
  const some = token.tops.some((top) => top.list.length);
  fill(
    panel,
    h(
      "div",
      { class: "inspected" },
      h("p", { class: "piece" }, h("bdi", {}, visiblePiece(token.piece))),
      h("p", {}, movedText(token.moved)),
      h(
        "dl",
        {},
        facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      ),
      h(
        "button",
        { type: "button", class: "close", "aria-label": "Close", onclick: closeInspector },
        "\u00d7",
      ),
    ),
    some
      ? h(
          "div",
          { class: "tops" },
          token.tops.map((top) =>
            h(
              "div",
              {},
              h("h4", {}, top.branch),
              top.list.length
                ? h(
                    "ol",
                    {},
                    top.list.map((one) => topRow(one, token)),
                  )
                : h("p", {}, "none kept"),
            ),
          ),
        )
      : h(
          "p",
          { class: "tops-none" },
          D.tokens.alternatives
            ? "The other tokens it could have been were left out to keep this page small."
            : "The other tokens it could have been were not kept: run the sweep with top=5.",
        ),
  );
  panel.hidden = false;
}

function topRow(one, token) {
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", `${number(100 * Math.exp(one.logProb))}%`);
  return h(
    "li",
    { class: one.piece === token.piece ? "chosen" : null },
    bar,
    h("bdi", { class: "piece" }, visiblePiece(one.piece)),
    h("span", { class: "n" }, percent(Math.exp(one.logProb))),
  );
}

function closeInspector() {
  at("inspector").hidden = true;
  inspected.classList.remove("hot");
  dismissed = true;
  inspected.focus();
}
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !at("inspector").hidden) closeInspector();
});

function legend() {
  const step = (way, size) => h("span", { class: `t ${way} l${size}`, "aria-hidden": "true" }, "ab");
  return h(
    "p",
    { class: "legend" },
    h("span", {}, "made less likely"),
    [5, 4, 3, 2, 1].map((size) => step("down", size)),
    h("span", { class: "t", "aria-hidden": "true" }, "\u2002"),
    [1, 2, 3, 4, 5].map((size) => step("up", size)),
    h("span", {}, "more likely by guidance"),
    h(
      "small",
      {},
      `guided minus positive log-prob; steps at ${LEVELS.join(", ")} nats. Solid underline: raised; dotted: lowered.`,
    ),
  );
}
