// The status page: locked (asks for a key), live (a summary a second), stale (no answer: the last figures greyed, with
// their age, until the server answers again). A key that is refused locks the page and is forgotten.

import { Client, NoSummary } from "./client.js";
import { History } from "./derive.js";
import { duration } from "./format.js";
import { Plots } from "./plots.js";
import * as view from "./view.js";

const POLL_MS = 1000;
const RETRY_MS = 2000;
const HISTORY_SECONDS = 300;
const CALM_DRAW_SECONDS = 5; // between drawings when less motion is asked for
const KEY_FORM = /^tmak-[0-9a-z]{26}:tmas_[0-9A-Za-z]{43}$/i;

const find = (id) => document.getElementById(id);
const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");
const plots = new Plots(find("plots"));

let client = null;
let timer = 0;
let looking = false;
let history = new History(HISTORY_SECONDS);
let lastAt = 0;
let drawnAt = 0;

function lock(words) {
  clearTimeout(timer);
  client = null;
  history = new History(HISTORY_SECONDS);
  drawnAt = 0;
  view.forgetConditions();
  view.showState("", "");
  find("identity").hidden = true;
  find("lock").hidden = true;
  find("live").hidden = true;
  find("locked").hidden = false;
  find("submit").disabled = false;
  find("key").value = "";
  find("key-error").textContent = words;
  find("key").setAttribute("aria-invalid", String(words !== ""));
  document.title = "TokMesh";
  find("key").focus();
}

function show(summary) {
  const at = Date.now() / 1000;
  const point = history.add(summary, at);
  lastAt = at;
  find("locked").hidden = true;
  find("live").hidden = false;
  find("live").classList.remove("stale");
  find("lock").hidden = false;
  const ready = summary.readiness.ready;
  view.showState(ready ? "good" : "critical", ready ? "Ready" : "Not ready");
  view.showIdentity(summary.node);
  view.showConditions(summary.conditions);
  view.showTiles(summary, point);
  view.showFacts(summary, point, history.points);
  plots.tell(point);
  if (!lessMotion.matches || at - drawnAt >= CALM_DRAW_SECONDS) {
    plots.draw(history.points);
    drawnAt = at;
  }
  const count = summary.conditions.length;
  document.title = `${count ? `(${count}) ` : ""}${summary.node.id} · TokMesh`;
}

function showGone(words) {
  find("live").classList.add("stale");
  view.showState("critical", `${words} Figures are ${duration(Date.now() / 1000 - lastAt)} old.`);
}

// One look, then the next one after it: never two at once, and none while nobody sees the page.
async function look(asked) {
  if (looking || document.hidden) return;
  looking = true;
  clearTimeout(timer);
  let wait = POLL_MS;
  try {
    const summary = await asked.summary();
    if (client === asked) show(summary);
  } catch (error) {
    wait = RETRY_MS;
    if (!(error instanceof NoSummary)) throw error; // a bug of this page, for the browser's console
    if (client === asked) fail(error);
  } finally {
    looking = false;
    if (client) timer = setTimeout(look, client === asked ? wait : 0, client);
  }
}

function fail(error) {
  if (error.kind === "gone" && !find("live").hidden) showGone(error.message);
  else lock(error.message);
}

find("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = find("key").value.trim();
  if (!KEY_FORM.test(key)) return lock("An API key looks like tmak-…:tmas_…, with 31 and 48 characters.");
  find("submit").disabled = true;
  find("key-error").textContent = "";
  find("key").value = "";
  client = new Client(key);
  look(client);
});
find("lock").addEventListener("click", () => lock(""));
document.addEventListener("visibilitychange", () => client && look(client));
lock("");
