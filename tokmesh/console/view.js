// The rest of the page: writes a summary into it. Everything is written as text, never as markup.

import * as format from "./format.js";

const CHECK_MARKS = 60;

const find = (id) => document.getElementById(id);

function element(name, className = "", ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function rows(...pairs) {
  const list = element("dl", "rows");
  for (const [name, value, layout] of pairs) {
    list.append(element("div", layout ?? "", element("dt", "", name), element("dd", "", value)));
  }
  return list;
}

// A bar with its words. limit: the share from which on it is a matter for alarm.
function gauge(name, words, ratio, limit) {
  const fill = element("i", ratio > limit ? "is-critical" : "");
  const track = element("div", "track", fill);
  fill.style.width = `${Math.min(100, Math.max(0, (ratio || 0) * 100))}%`;
  track.setAttribute("role", "meter");
  track.setAttribute("aria-label", name);
  track.setAttribute("aria-valuemin", "0");
  track.setAttribute("aria-valuemax", "100");
  track.setAttribute("aria-valuenow", String(Math.round((ratio || 0) * 100)));
  track.setAttribute("aria-valuetext", words);
  return element("div", "gauge", element("p", "", element("span", "", name), element("span", "", words)), track);
}

function pill(kind, words) {
  return element("span", `pill ${kind}`, words);
}

export function showState(kind, words) {
  const state = find("state");
  if (state.textContent !== words) state.replaceChildren(...(words ? [pill(kind, words)] : []));
}

export function showIdentity(node) {
  find("identity").hidden = false;
  find("identity").textContent = `${node.id} · ${node.version} · up ${format.duration(node.uptime_seconds)}`;
}

let conditionsShown = "";

// Only a change is written, so that a screen reader is not told the same again every second.
export function showConditions(conditions) {
  const text = JSON.stringify(conditions);
  if (text === conditionsShown) return;
  conditionsShown = text;
  const items = conditions.map((condition) => {
    const link = element("a", "", "Runbook");
    link.href = `console/runbooks/${encodeURIComponent(condition.runbook)}`;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    link.setAttribute("aria-label", `Runbook of ${condition.code}`);
    return element("li", `is-${condition.severity}`, pill(condition.severity, condition.severity),
      element("strong", "", condition.code), element("span", "words", condition.words), link);
  });
  find("conditions").replaceChildren(...(items.length ? items : [element("li", "is-good", "Nothing wants attention.")]));
}

export function forgetConditions() {
  conditionsShown = "";
}

export function showTiles(summary, point) {
  const tiles = [
    ["Requests", format.number(point.requests), "/s"],
    ["Latency P99", format.seconds(point.p99), ""],
    ["Active sessions", format.integer(summary.sessions.active), ""],
    ["Validations", format.number(point.valid + point.invalid + point.unanswered), "/s"],
    ["Answers 5xx", format.number(point.errors), "/s"],
    ["Connections", format.integer(summary.connections.open), ""],
  ];
  find("tiles").replaceChildren(...tiles.map(([name, value, unit]) =>
    element("div", "", element("dt", "", name), element("dd", "", value, unit ? element("small", "", ` ${unit}`) : ""))));
}

export function showFacts(summary, point, points) {
  const { log, snapshots, disk, memory, cpu, cluster, sessions, connections } = summary;
  const used = 1 - disk.free_bytes / disk.total_bytes;
  find("log").replaceChildren(
    gauge("Disk", `${format.bytes(disk.free_bytes)} free of ${format.bytes(disk.total_bytes)}`, used, 0.9),
    rows(
      ["State", pill(log.state === "open" ? "good" : "critical", log.state)],
      ["Sync", log.sync_mode === "always" ? "before every answer" : "at intervals"],
      ["Segments", `${format.integer(log.segments)}, newest ${format.bytes(log.segment_bytes)}`],
      ["Written", `${format.bytes(point.written)}/s`],
      ["Durable up to", format.integer(log.durable_sequence)],
      ["Waiting", format.integer(log.pending_records)],
      ["Failed syncs", format.integer(log.sync_failed_total)],
      ["Snapshots", `${format.integer(snapshots.kept)}, newest ${format.bytes(snapshots.last_bytes)}`],
      ["Log behind the newest", format.bytes(snapshots.log_bytes)],
    ),
  );
  find("resources").replaceChildren(
    gauge("CPU", `${format.percent(cpu.usage_ratio)} of ${format.number(cpu.available_cores)} cores`, cpu.usage_ratio, 0.85),
    gauge("Memory", `${format.bytes(memory.used_bytes)} of ${format.bytes(memory.limit_bytes)}`, memory.used_bytes / memory.limit_bytes, 0.85),
    gauge("Connections", `${format.integer(connections.open)} of ${format.integer(connections.max)}`, connections.open / connections.max, 0.85),
    rows(
      ["Table", format.bytes(memory.table_bytes)],
      ["Ended, remembered", format.integer(sessions.tombstones)],
      ["Waiting to expire", format.integer(sessions.expiry_backlog)],
    ),
  );
  find("cluster").replaceChildren(
    rows(
      ["Quorum", pill(cluster.quorum ? "good" : "critical", cluster.quorum ? "yes" : "lost")],
      ["Nodes active", format.integer(cluster.active)],
      ["Nodes down", format.integer(cluster.down)],
      ["Number of nodes", cluster.parity],
      ...(cluster.enabled ? standingRows(cluster) : []),
      ...cluster.nodes.map((node) => [node.is_self ? "This node" : "Node", memberFacts(node, cluster.enabled), "wide"]),
    ),
  );
  find("checks").replaceChildren(...summary.readiness.checks.map((check) => checkRow(check, points)));
}

function natsLevel(nats) {
  if (nats.state !== "connected") return "critical";
  return nats.is_old || nats.sync === "off" ? "warning" : "good";
}

// What this node may still say, and the way to its stream.
function standingRows({
  fenced, diverged, removed, stands_apart: apart, staleness_seconds: staleness, position, quarantined_records: quarantined, nats,
  compared_seconds_ago: compared, shards,
}) {
  const reads = diverged ? "the stream lost data" : removed ? "taken out of the cluster" : apart ? "its table is wrong" : fenced ? "refused" : "answered";
  const version = nats.version ? ` ${nats.version}` : "";
  const sync = nats.sync === "off" ? ", does not sync each record" : "";
  return [
    ["Reads", pill(fenced || diverged || removed || apart ? "critical" : "good", reads)],
    ["Proved current", `${format.seconds(staleness)} ago`],
    ["Stream applied to", format.integer(position)],
    ["Records unread", format.integer(quarantined)],
    ["Shards held", `${format.integer(shards.held)} of 64`],
    ["Shards being loaded", format.integer(shards.loading)],
    ["Shards held by nobody", pill(shards.unheld && !fenced ? "critical" : "good", format.integer(shards.unheld))],
    ["Compared with others", compared === null ? "not yet" : `${format.duration(compared)} ago`],
    ["NATS", pill(natsLevel(nats), `${nats.state}${version}${sync}`)],
  ];
}

// A member: whether it is heard, and, of another that is, how far behind and which version.
function memberFacts(node, enabled) {
  if (!enabled) return node.id;
  const known = node.version === null ? "" : `${node.version}, ${format.integer(node.shards)} shards, ${format.integer(node.sessions)} sessions`;
  const lag = node.is_self ? "" : node.status === "down" ? silence(node.silent_seconds)
    : `${format.seconds(node.lag_seconds)} behind`;
  const differs = node.differing_parts ? `differs in ${format.integer(node.differing_parts)} parts` : "";
  const words = [node.id, known, lag, differs].filter(Boolean).join(" · ");
  return element("span", "member", pill(node.status === "active" ? "good" : "critical", node.status), element("span", "", ` ${words}`));
}

const silence = (seconds) => (seconds === null ? "never heard" : `silent for ${format.duration(seconds)}`);

// A check, why it fails, and its last minute, a mark a second.
function checkRow(check, points) {
  const recent = points.slice(-CHECK_MARKS);
  const marks = Array.from({ length: CHECK_MARKS }, (_, index) => {
    const at = recent[index - CHECK_MARKS + recent.length]?.checks[check.name];
    return element("i", at === undefined ? "" : at ? "is-ok" : "is-failing");
  });
  const failing = recent.filter((each) => each.checks[check.name] === false).length;
  const history = element("div", "history", ...marks);
  history.setAttribute("role", "img");
  history.setAttribute("aria-label", `Of the last ${recent.length} looks ${failing} failed`);
  const made = element("div", "check", element("p", "", check.name, pill(check.ok ? "good" : "critical", check.ok ? "ok" : "failing")), history);
  if (check.reason) made.append(element("p", "note", check.reason));
  return made;
}
