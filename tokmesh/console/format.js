// Numbers as people read them. null, undefined and NaN are a dash: not known is not 0.

const NONE = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

// Three significant digits, thousands separated: 0.25, 12.3, 1,230.
export function number(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

export function integer(value) {
  return known(value) ? Math.round(value).toLocaleString("en-US") : NONE;
}

export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 0.001) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1000)} ms`;
  return `${number(value)} s`;
}

export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value)} ${units[unit]}`;
}

export function percent(ratio) {
  return known(ratio) ? `${number(ratio * 100)} %` : NONE;
}

// An age or an uptime, in its two largest units: "3 d 4 h", "12 s".
export function duration(total) {
  if (!known(total)) return NONE;
  let rest = Math.max(0, Math.floor(total));
  const parts = [];
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || (name === "s" && parts.length === 0)) parts.push(`${count} ${name}`);
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}
