// Board: polls board.json every second and updates only what changed.
// Text from the server is inserted with textContent. Nothing is parsed as markup.
"use strict";

const POLL_INTERVAL_MS = 1000;
const REQUEST_TIMEOUT_MS = 8000;
const ANIMATION_MS = 700;
const MAX_ANIMATIONS = 40;
const SVG = "http://www.w3.org/2000/svg";
const HIDDEN_WHILE_EMPTY = new Set(["labelset-input", "feedback"]);
const LABEL_COLORS = 8;
const PERSON_COLORS = 8;

const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const byId = (id) => document.getElementById(id);

/** Create an element with a tag, class and text. */
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Set a text only if it differs, so that screen readers announce only changes. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const numbers = (thing, ...names) =>
  thing && typeof thing === "object" && names.every((name) => isNumber(thing[name])) ? names.map((name) => thing[name]) : null;

// -- colors --------------------------------------------------------------------------------------

/** Return a function that maps names to stable numbers below `size`, distinct until all are in use. */
function palette(size) {
  const given = new Map();
  const taken = new Set();
  return (name) => {
    if (!given.has(name)) {
      let hash = 7;
      for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 100003;
      let place = hash % size;
      for (let step = 0; step < size && taken.has(place); step += 1) place = (place + 1) % size;
      taken.add(place);
      if (taken.size >= size) taken.clear();
      given.set(name, place);
    }
    return given.get(name);
  };
}

const labelColor = palette(LABEL_COLORS);
const personColor = palette(PERSON_COLORS);

// -- people --------------------------------------------------------------------------------------

function initialOf(name) {
  if (name === "API key") return "API";
  const first = [...name.trim()][0];
  return first ? first.toUpperCase() : "?";
}

function avatar(name) {
  const badge = make("span", name === "API key" ? "avatar machine" : "avatar", initialOf(name));
  if (name !== "API key") badge.dataset.person = String(personColor(name));
  badge.title = name;
  return badge;
}

// -- labels --------------------------------------------------------------------------------------

/** Return the name of a category, or the last name of its path from the root. */
function categoryOf(label) {
  let category = label.category;
  while (Array.isArray(category)) category = category[category.length - 1];
  return typeof category === "string" && category ? category : "label";
}

/** Return whether a label is on the first frame of the first series, which the thumbnail shows. */
const onFirstFrame = (label) => !label.frameindex && !label.volumeindex;

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

function pointsOf(list) {
  if (!Array.isArray(list)) return null;
  const points = list.map((each) => numbers(each, "xnorm", "ynorm"));
  return points.length > 1 && points.every(Boolean) ? points.map((each) => each.join(",")).join(" ") : null;
}

/** Return the SVG shape of a label in fractions of the image, or null if it has none. */
function drawn(label, width, height) {
  const box = numbers(label.bbox2d, "xnorm", "ynorm", "wnorm", "hnorm");
  if (box) {
    const [x, y, w, h] = box;
    return shape("rect", { x, y, width: Math.max(w, 0), height: Math.max(h, 0) });
  }
  const ellipse = numbers(label.ellipse, "xcenternorm", "ycenternorm", "xnorm", "ynorm");
  if (ellipse) {
    // Rotate in pixels: in fractions of an image that is not square, a rotation would skew.
    const [x, y, rx, ry] = ellipse;
    const turn = isNumber(label.ellipse.rot) ? (label.ellipse.rot * 180) / Math.PI : 0;
    return shape("ellipse", {
      rx: Math.abs(rx) * width,
      ry: Math.abs(ry) * height,
      transform: `translate(${x} ${y}) scale(${1 / width} ${1 / height}) rotate(${turn})`,
    });
  }
  for (const [key, tag] of [["polygon", "polygon"], ["polyline", "polyline"]]) {
    const points = pointsOf(label[key]);
    if (points) return shape(tag, { points });
  }
  const point = numbers(label.point, "xnorm", "ynorm");
  // A line of length zero with round caps is a dot of constant size.
  return point ? shape("path", { class: "point", d: `M${point[0]} ${point[1]}h1e-4` }) : null;
}

function overlay(labels, width, height) {
  const svg = shape("svg", { class: "overlay", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const label of labels.filter(onFirstFrame)) {
    const one = drawn(label, width, height);
    if (!one) continue;
    const group = shape("g", { "data-label": labelColor(categoryOf(label)) });
    // A dark halo below the line keeps it visible on bright and dark images.
    const halo = one.cloneNode();
    halo.classList.add("halo");
    group.append(halo, one);
    svg.append(group);
  }
  return svg;
}

function tally(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(categoryOf(label), (counts.get(categoryOf(label)) || 0) + 1);
  return [...counts];
}

// -- cards ---------------------------------------------------------------------------------------

const stateWord = (state) => (state ? String(state).toLowerCase().replaceAll("_", " ") : "");

/** Card of a task. `update` redraws only what changed. */
class Card {
  constructor(id) {
    this.id = id;
    this.element = make("li", "card");
    this.frame = make("div", "frame");
    this.picture = make("div", "picture");
    this.tags = make("div", "tags");
    this.title = make("h3", "name");
    this.state = make("span", "state");
    this.holder = make("span", "holder");
    const foot = make("div", "foot");
    foot.append(this.state, this.holder);
    this.frame.append(this.picture, this.tags);
    this.element.append(this.frame, this.title, foot);
    this.seen = {};
    this.labels = [];
  }

  /** Return whether a part of the card changed since the last call. */
  differs(part, value) {
    const text = JSON.stringify(value);
    const changed = this.seen[part] !== text;
    this.seen[part] = text;
    return changed;
  }

  update(task, word) {
    const name = typeof task.name === "string" ? task.name : String(task.task_id);
    if (this.differs("item", [task.item, task.data_type])) this.showPicture(task);
    if (this.differs("labels", task.labels)) this.showLabels(Array.isArray(task.labels) ? task.labels : []);
    if (this.differs("name", name)) {
      this.title.textContent = name;
      this.title.title = name;
    }
    if (this.differs("alt", [name, task.item, task.labels])) this.describe(name);
    if (this.differs("state", [task.state, word])) {
      this.state.textContent = word || stateWord(task.state);
      this.element.dataset.state = String(task.state || "none");
    }
    if (this.differs("assignee", task.assignee)) this.showHolder(task.assignee);
  }

  showPicture(task) {
    this.picture.replaceChildren();
    this.image = null;
    this.frame.classList.remove("without");
    if (!task.item) {
      this.withoutPicture(task);
      return;
    }
    const image = make("img");
    image.decoding = "async";
    image.addEventListener("load", () => {
      this.size = [image.naturalWidth || 1, image.naturalHeight || 1];
      const [width, height] = this.size;
      // The overlay covers exactly the image, which fills the width or the height of the frame.
      this.picture.style.setProperty("aspect-ratio", `${width} / ${height}`);
      this.picture.classList.toggle("tall", height > width);
      this.redraw();
    });
    image.addEventListener("error", () => this.withoutPicture(task));
    image.src = `thumbnail?item=${encodeURIComponent(task.item)}`;
    this.image = image;
    this.picture.append(image);
  }

  withoutPicture(task) {
    this.image = null;
    this.frame.classList.add("without");
    this.picture.replaceChildren(make("span", "type", typeof task.data_type === "string" ? task.data_type : "no picture"));
    this.redraw();
  }

  showLabels(labels) {
    this.labels = labels.filter((label) => label && typeof label === "object");
    this.redraw();
    this.tags.replaceChildren(
      ...tally(this.labels)
        .slice(0, 3)
        .map(([category, count]) => {
          const tag = make("span", "tag");
          tag.dataset.label = String(labelColor(category));
          tag.append(make("span", "tag-name", category));
          if (count > 1) tag.append(make("span", "tag-count", `×${count}`));
          tag.title = category;
          return tag;
        }),
    );
  }

  redraw() {
    const [width, height] = this.size || [1, 1];
    this.picture.querySelector(".overlay")?.remove();
    if (this.labels.length) this.picture.append(overlay(this.labels, width, height));
  }

  describe(name) {
    const parts = tally(this.labels).map(([category, count]) => (count > 1 ? `${count} × ${category}` : category));
    if (this.image) this.image.alt = `Thumbnail of ${name}, ${parts.length ? `labels: ${parts.join(", ")}` : "no labels"}`;
  }

  showHolder(name) {
    this.holder.replaceChildren();
    if (typeof name !== "string" || !name) return;
    const badge = avatar(name);
    badge.setAttribute("aria-hidden", "true");
    this.holder.append(make("span", "spoken", `assigned to ${name}`), badge);
  }
}

// -- columns -------------------------------------------------------------------------------------

class Column {
  constructor(stage) {
    this.element = make("section", "column");
    this.element.dataset.kind = stage.kind;
    const id = `stage-${Column.number++}`;
    this.title = make("h2", "title");
    this.title.id = id;
    this.element.setAttribute("aria-labelledby", id);
    this.count = make("p", "count");
    this.count.setAttribute("aria-live", "polite");
    this.number = make("span", "number");
    this.unit = make("span", "spoken");
    this.count.append(this.number, this.unit);
    this.people = make("ul", "people");
    this.people.setAttribute("aria-label", "Tasks by assignee");
    const head = make("div", "head");
    head.append(this.title, this.count);
    this.scroll = make("div", "scroll");
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "region");
    this.scroll.setAttribute("aria-labelledby", id);
    this.list = make("ul", "cards");
    this.empty = make("p", "empty quiet", "No tasks");
    this.more = make("p", "more quiet");
    this.scroll.append(this.list, this.empty, this.more);
    this.element.append(head, this.people, this.scroll);
  }

  update(stage, cards) {
    setText(this.title, String(stage.title));
    setText(this.number, String(stage.count));
    setText(this.unit, ` ${stage.count === 1 ? "task" : "tasks"} in ${stage.title}`);
    this.showPeople(stage.by_person || {});
    this.empty.hidden = cards.length > 0;
    const rest = stage.count - cards.length;
    this.more.hidden = rest <= 0;
    setText(this.more, rest > 0 ? `and ${rest.toLocaleString("en")} more` : "");
    place(this.list, cards.map((card) => card.element));
  }

  showPeople(counts) {
    const text = JSON.stringify(counts);
    if (text === this.held) return;
    this.held = text;
    const rows = Object.entries(counts).filter(([, count]) => count > 0);
    const rank = ([name]) => (name === "unassigned" ? 2 : name === "API key" ? 1 : 0);
    rows.sort((one, other) => rank(one) - rank(other) || (one[0] < other[0] ? -1 : 1));
    this.people.replaceChildren(
      ...rows.map(([name, count]) => {
        const row = make("li", "person");
        if (name === "unassigned") {
          row.append(make("span", "quiet", `${count} unassigned`));
        } else {
          const badge = avatar(name);
          badge.setAttribute("aria-hidden", "true");
          row.append(badge, make("span", "", String(count)), make("span", "spoken", ` with ${name}`));
        }
        return row;
      }),
    );
  }
}
Column.number = 0;

/** Reorder children, moving only those at a wrong position. */
function place(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let here = parent.firstElementChild;
  for (const element of wanted) {
    if (element === here) here = here.nextElementSibling;
    else parent.insertBefore(element, here);
  }
}

// -- moves ---------------------------------------------------------------------------------------

const EASE = "cubic-bezier(.3, .7, .2, 1)";

function seenIn(rect) {
  return rect.width > 0 && rect.bottom > 0 && rect.right > 0 && rect.top < window.innerHeight && rect.left < window.innerWidth;
}

/** Animate a copy above the columns, which clip their content. The card itself is hidden meanwhile. */
function fly(element, from, to) {
  const ghost = element.cloneNode(true);
  ghost.classList.add("ghost");
  ghost.setAttribute("aria-hidden", "true");
  for (const [name, value] of [["left", from.left], ["top", from.top], ["width", from.width], ["height", from.height]]) {
    ghost.style.setProperty(name, `${value}px`);
  }
  document.body.append(ghost);
  element.classList.add("waiting");
  const scale = to.width / from.width;
  const move = `translate(${to.left - from.left}px, ${to.top - from.top}px) scale(${scale})`;
  const land = () => {
    ghost.remove();
    element.classList.remove("waiting");
  };
  const flight = ghost.animate([{ transform: "none" }, { transform: move }], { duration: ANIMATION_MS, easing: EASE });
  flight.finished.then(land, land);
}

function slide(element, from, to) {
  const start = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
  element.animate([{ transform: start }, { transform: "none" }], { duration: ANIMATION_MS, easing: EASE });
}

function appear(element) {
  element.animate([{ opacity: 0, transform: "translateY(6px)" }, { opacity: 1, transform: "none" }], { duration: 400, easing: "ease-out" });
}

// -- the board -----------------------------------------------------------------------------------

class Board {
  constructor() {
    this.main = byId("board");
    this.columns = new Map();
    this.cards = new Map();
    this.text = null;
  }

  /** Show a response. The first one is shown without animation. */
  show(text) {
    if (text === this.text) return;
    const state = JSON.parse(text);
    const first = this.text === null;
    const moving = !first && !calm.matches && !document.hidden;
    const before = moving ? this.places() : new Map();
    this.draw(state);
    if (moving) this.animate(before);
    this.text = text;
  }

  draw(state) {
    setText(byId("project"), String(state.project));
    document.title = `${state.project} · RedBrick sandbox`;
    const all = state.stages.reduce((sum, stage) => sum + stage.count, 0);
    setText(byId("total"), `RedBrick sandbox · ${plural(all, "task")}`);
    const shown = state.stages.filter((stage) => stage.count > 0 || !HIDDEN_WHILE_EMPTY.has(stage.kind));
    const alive = new Set();
    const columns = shown.map((stage) => {
      if (!this.columns.has(stage.name)) this.columns.set(stage.name, new Column(stage));
      const column = this.columns.get(stage.name);
      const word = stage.kind === "labelset-output" ? "done" : "";
      column.update(stage, stage.cards.map((task) => this.card(task, stage.name, word, alive)));
      return column.element;
    });
    place(this.main, columns);
    for (const id of [...this.cards.keys()]) if (!alive.has(id)) this.cards.delete(id);
  }

  card(task, stage, word, alive) {
    if (!this.cards.has(task.task_id)) this.cards.set(task.task_id, new Card(task.task_id));
    const card = this.cards.get(task.task_id);
    card.stage = stage;
    card.update(task, word);
    alive.add(task.task_id);
    return card;
  }

  /** Return the position of each card on the screen. */
  places() {
    return new Map([...this.cards].map(([id, card]) => [id, { stage: card.stage, rect: card.element.getBoundingClientRect() }]));
  }

  animate(before) {
    const after = this.places();
    let left = MAX_ANIMATIONS;
    for (const [id, now] of after) {
      const then = before.get(id);
      const card = this.cards.get(id).element;
      if (left <= 0) break;
      if (!then) {
        if (seenIn(now.rect)) appear(card);
      } else if (!seenIn(then.rect) || !seenIn(now.rect)) {
        continue;
      } else if (then.stage !== now.stage) {
        fly(card, then.rect, now.rect);
      } else if (Math.abs(then.rect.left - now.rect.left) + Math.abs(then.rect.top - now.rect.top) > 1) {
        slide(card, then.rect, now.rect);
      } else {
        continue;
      }
      left -= 1;
    }
  }
}

// -- polling -------------------------------------------------------------------------------------

const board = new Board();
let goneSince = null;

function reached() {
  goneSince = null;
  byId("gone").hidden = true;
  document.body.classList.remove("stale");
  byId("link").dataset.state = "live";
  setText(byId("link-word"), "live");
}

function lost() {
  goneSince = goneSince || new Date();
  const since = goneSince.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  document.body.classList.add("stale");
  byId("link").dataset.state = "gone";
  setText(byId("link-word"), "not connected");
  byId("gone").hidden = false;
  setText(byId("gone"), `The sandbox has not responded since ${since}. ${board.text ? "The board shows its last response. " : ""}This page keeps trying.`);
}

async function ask() {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), REQUEST_TIMEOUT_MS);
  try {
    const answer = await fetch("board.json", { signal: waiting.signal, headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    board.show(await answer.text());
    reached();
  } catch (error) {
    console.warn("board.json:", error);
    lost();
  } finally {
    clearTimeout(timer);
  }
}

async function live() {
  if (!document.hidden) await ask();
  setTimeout(live, POLL_INTERVAL_MS);
}

live();
