// What happened between two summaries of one process: rates and quantiles for the plots.
//
// A point compares a summary with one of SPAN_SECONDS before, so that a quantile has something to stand on. Another start
// of the server begins anew: its counters are not comparable with those before.

const SPAN_SECONDS = 5;
const QUANTILES = { p50: 0.5, p99: 0.99, p999: 0.999 };

// As Prometheus's histogram_quantile: linear within a bucket; null where nothing was observed.
export function quantile(q, bounds, counts) {
  const total = counts.at(-1);
  if (!(total > 0)) return null;
  const rank = q * total;
  const at = counts.findIndex((count) => count >= rank);
  if (at === bounds.length) return bounds.at(-1);
  const lower = at > 0 ? bounds[at - 1] : 0;
  const below = at > 0 ? counts[at - 1] : 0;
  return lower + (bounds[at] - lower) * ((rank - below) / (counts[at] - below));
}

const minus = (now, then) => now.counts.map((count, at) => count - then.counts[at]);

function point(then, now) {
  const elapsed = now.at - then.at;
  const rate = (read) => (elapsed > 0 ? (read(now.summary) - read(then.summary)) / elapsed : null);
  const latency = minus(now.summary.requests.latency, then.summary.requests.latency);
  const sync = minus(now.summary.log.sync_latency, then.summary.log.sync_latency);
  const made = {
    at: now.at,
    requests: rate((each) => each.requests.total),
    errors: rate((each) => each.requests.errors_total),
    valid: rate((each) => each.requests.validations_total.valid),
    invalid: rate((each) => each.requests.validations_total.invalid),
    unanswered: rate((each) => each.requests.validations_total.error),
    written: rate((each) => each.log.write_bytes_total),
    sessions: now.summary.sessions.active,
    cpu: now.summary.cpu.usage_ratio,
    memory: now.summary.memory.used_bytes / now.summary.memory.limit_bytes,
    sync: quantile(0.99, now.summary.log.sync_latency.bounds_seconds, sync),
    checks: Object.fromEntries(now.summary.readiness.checks.map((check) => [check.name, check.ok])),
  };
  for (const [name, q] of Object.entries(QUANTILES)) {
    made[name] = quantile(q, now.summary.requests.latency.bounds_seconds, latency);
  }
  return made;
}

// The points of the last minutes; `add` gives the newest.
export class History {
  constructor(seconds) {
    this.seconds = seconds;
    this.points = [];
    this.recent = [];
  }

  add(summary, at) {
    const now = { summary, at };
    if (this.recent.length && this.recent.at(-1).summary.node.started_at !== summary.node.started_at) this.recent = [];
    this.recent = this.recent.filter((each) => at - each.at <= SPAN_SECONDS + 0.5);
    const made = point(this.recent[0] ?? now, now);
    this.recent.push(now);
    this.points = [...this.points.filter((each) => at - each.at <= this.seconds), made];
    return made;
  }
}
