// The RedBrick page: requests a project's view every few seconds and draws it.
// All text from the server is set through textContent and never parsed as markup.
"use strict";

const REFRESH_MS = 10000;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

const PROBLEMS = {
  no_connection: ["There is no connection", "Create a connection of type RedBrick AI under Admin, Connections."],
  bad_settings: ["The connection cannot be used", "Correct its fields under Admin, Connections."],
  wrong_key: ["RedBrick refuses the key", "Put a valid API key into the connection's password field."],
  no_project: ["There is no such project", "Check the connection's organization and project."],
  no_answer: ["RedBrick does not answer", "The page retries every few seconds."],
  busy: ["Busy", "The page retries in a few seconds."],
  forbidden: ["You may not see this connection", "Ask your Airflow administrator for permission to read connections."],
  signed_out: ["You are not signed in to Airflow", "Sign in and open this page again."],
  no_airflow: ["Airflow does not answer", "The page retries every few seconds."],
  nothing: ["No connection to show", "Create a connection of type RedBrick AI, or ask your Airflow administrator for permission to read one."],
};

/** Create an element with a tag, class and text. */
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// -- embedding in Airflow's page -------------------------------------------------------------

/** Return the document of Airflow's page that embeds this one; null without one. */
function embeddingDocument() {
  try {
    return window.parent !== window && window.parent.document ? window.parent.document : null;
  } catch {
    return null;
  }
}

/** Follow the theme of the embedding page, or the browser's preference without one. */
function followTheme() {
  const embedding = embeddingDocument();
  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const root = embedding && embedding.documentElement;
    const themeName = root && (root.classList.contains("dark") ? "dark" : root.classList.contains("light") ? "light" : root.dataset.theme);
    document.documentElement.dataset.theme = themeName || (preference.matches ? "dark" : "light");
  };
  apply();
  preference.addEventListener("change", apply);
  if (embedding) new MutationObserver(apply).observe(embedding.documentElement, { attributeFilter: ["class", "data-theme"] });
}

/** Open a link in the whole window. The frame itself is not allowed to navigate it, so Airflow's document does. */
function openInTopWindow(event) {
  const link = event.target.closest("a[href]");
  const embedding = embeddingDocument();
  if (!link || !embedding) return;
  event.preventDefault();
  const copy = embedding.createElement("a");
  copy.href = link.href;
  if (link.target || event.ctrlKey || event.metaKey) {
    copy.target = "_blank";
    copy.rel = "noopener noreferrer";
  }
  copy.click();
}

// -- drawing -----------------------------------------------------------------------------------------

const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const moment = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** Format the beginning of a period: the day, or the time within a day. */
function since(begin, end) {
  const from = new Date(begin * 1000);
  return end - begin > 86400 ? day.format(from) : minute.format(from);
}

/** Draw a queue's history as a line with its range. */
function drawHistory(course) {
  const figure = make("figure", "course");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 200 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Between ${course.low} and ${course.high} tasks since ${since(course.begin, course.end)}`);
  for (const [name, path] of [["under", `${course.path}V24H0Z`], ["line", course.path]]) {
    const shape = document.createElementNS(SVG, "path");
    shape.setAttribute("class", name);
    shape.setAttribute("d", path);
    svg.append(shape);
  }
  const ends = course.low === course.high ? [course.low] : [course.low, course.high];
  const range = ends.map((entry) => entry.toLocaleString("en")).join(" – ");
  const caption = make("figcaption");
  caption.append(make("span", "", `since ${since(course.begin, course.end)}`), make("span", "", range));
  figure.append(svg, caption);
  return figure;
}

function drawAssignee(holder) {
  const item = make("li", holder.name === "unassigned" ? "unassigned" : "");
  const name = make("span", "who", holder.name);
  name.title = holder.name;
  const bar = make("span", "bar");
  const filled = make("i");
  filled.style.setProperty("--share", holder.share);
  bar.append(filled);
  item.append(name, make("span", "many", holder.count.toLocaleString("en")), bar);
  return item;
}

function drawStage(stage) {
  const column = make("article", "stage");
  column.dataset.kind = stage.kind;
  column.append(make("h3", "", stage.title), make("p", "count", stage.count.toLocaleString("en")));
  if (stage.course) column.append(drawHistory(stage.course));
  if (stage.held.length) {
    const list = make("ul", "held");
    list.append(...stage.held.map(drawAssignee));
    column.append(list);
  }
  if (stage.looked_at !== null && stage.held.length) {
    column.append(make("p", "quiet note", `Assignees of the first ${stage.looked_at.toLocaleString("en")} tasks`));
  }
  return column;
}

/** Return the address of an Airflow task, relative to this page. */
function taskAddress(run) {
  const parts = ["dags", run.dag_id, "runs", run.run_id, "tasks", run.task_id].map(encodeURIComponent);
  return `../${parts.join("/")}${run.mapped ? "/mapped" : ""}`;
}

function drawRun(run) {
  const row = make("tr");
  const link = make("a", "", run.dag_id);
  link.href = taskAddress(run);
  const where = make("td");
  where.append(link, make("small", "", `${run.run_id} · ${run.task_id}`));
  const counts = run.counts.map((entry) => `${entry.number.toLocaleString("en")} ${entry.name}`).join(", ");
  const state = make("span", "state", run.state.replaceAll("_", " "));
  state.dataset.state = run.state;
  const ending = make("td");
  ending.append(state);
  row.append(
    make("td", "when", moment.format(new Date(run.at))), where,
    make("td", "", run.operation), make("td", "", run.stage || "–"), make("td", "", counts || "none"), ending,
  );
  return row;
}

function showProblem(state, message) {
  const [title, hint] = PROBLEMS[state] || ["The project cannot be shown", ""];
  byId("trouble").hidden = false;
  byId("trouble").dataset.state = state;
  byId("trouble-title").textContent = title;
  byId("trouble-message").textContent = message || "";
  byId("trouble-hint").textContent = hint;
  // Mark data of an earlier response as outdated.
  byId("stages").classList.add("old");
}

function showBoard(board) {
  byId("trouble").hidden = true;
  byId("project").textContent = board.project.name;
  byId("open").hidden = !board.project.address;
  if (board.project.address) byId("open").href = board.project.address;
  const all = board.stages.reduce((sum, stage) => sum + stage.count, 0);
  byId("total").textContent = `${plural(all, "task")} in ${plural(board.stages.length, "stage")}`;
  byId("read").textContent = `as of ${new Date(board.read_at).toLocaleTimeString()}`;
  byId("stages").classList.remove("old");
  byId("stages").replaceChildren(...board.stages.map(drawStage));
  byId("runs").hidden = false;
  byId("run-rows").replaceChildren(...board.runs.map(drawRun));
  byId("no-runs").hidden = board.runs.length > 0;
  byId("runs").querySelector("table").hidden = board.runs.length === 0;
}

function clear() {
  byId("project").textContent = "RedBrick";
  for (const id of ["total", "read"]) byId(id).textContent = "";
  for (const id of ["stages", "run-rows"]) byId(id).replaceChildren();
  for (const id of ["open", "runs", "trouble"]) byId(id).hidden = true;
}

// -- requests ----------------------------------------------------------------------------------------

/** Request JSON, or throw an object with the state to show. */
async function get(path) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw { state: "no_airflow" };
  }
  if (response.status === 401) throw { state: "signed_out" };
  if (response.status === 403) throw { state: "forbidden" };
  if (!response.ok) throw { state: "no_airflow", message: `HTTP ${response.status}` };
  return response.json();
}

const chosen = { connection: "", project: "" };
// Number of the latest request. Responses to earlier ones are dropped.
let lastRequest = 0;
let timer = 0;

async function refresh() {
  window.clearTimeout(timer);
  lastRequest += 1;
  const request = lastRequest;
  try {
    const query = chosen.project ? `?${new URLSearchParams({ project: chosen.project })}` : "";
    const board = await get(`boards/${encodeURIComponent(chosen.connection)}${query}`);
    if (request !== lastRequest) return;
    if (board.state === "ok") showBoard(board);
    else showProblem(board.state, board.message);
  } catch (problem) {
    if (request !== lastRequest) return;
    showProblem(problem.state, problem.message);
  }
  // A hidden page makes no requests.
  if (!document.hidden) timer = window.setTimeout(refresh, REFRESH_MS);
}

const nameOf = (board) => (board.project ? `${board.connection} / ${board.project}` : board.connection);

function offer(boards) {
  const list = byId("boards");
  list.replaceChildren(...boards.map((board) => {
    const option = make("option", "", nameOf(board));
    option.value = JSON.stringify([board.connection, board.project]);
    return option;
  }));
  list.value = JSON.stringify([chosen.connection, chosen.project]);
  byId("choose").hidden = boards.length < 2;
  list.addEventListener("change", () => {
    [chosen.connection, chosen.project] = JSON.parse(list.value);
    history.replaceState(null, "", `?${new URLSearchParams(chosen)}`);
    clear();
    refresh();
  });
}

async function begin() {
  followTheme();
  document.addEventListener("click", openInTopWindow);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && chosen.connection) refresh(); });
  const parameters = new URLSearchParams(window.location.search);
  let boards = [];
  try {
    boards = await get("boards");
  } catch (problem) {
    showProblem(problem.state, problem.message);
    return;
  }
  if (parameters.get("connection")) {
    Object.assign(chosen, { connection: parameters.get("connection"), project: parameters.get("project") || "" });
    if (!boards.some((board) => nameOf(board) === nameOf(chosen))) boards.push({ ...chosen });
  } else if (boards.length) {
    Object.assign(chosen, boards[0]);
  } else {
    showProblem("nothing", "");
    return;
  }
  offer(boards);
  await refresh();
}

begin();
