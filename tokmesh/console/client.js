// Asks the server for its status with the key it was given. The key is in this object only; it is sent in a header, never
// in an address, and no cookie or stored credential goes with it.

const TIMEOUT_MS = 5000;

// Why there is no summary. kind: "refused" (the key is no good), "role" (not an admin key), "gone" (no answer).
export class NoSummary extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export class Client {
  #key;

  constructor(key) {
    this.#key = key;
  }

  async summary() {
    let answer;
    try {
      answer = await fetch("admin/v1/status/summary", {
        headers: { Authorization: `Bearer ${this.#key}`, Accept: "application/json" },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (answer.ok) return (await answer.json()).data;
    } catch {
      throw new NoSummary("gone", "The server does not answer.");
    }
    if (answer.status === 401) throw new NoSummary("refused", "The server does not accept this key.");
    if (answer.status === 403) throw new NoSummary("role", "This key may not see the status: it needs the role admin.");
    throw new NoSummary("gone", `The server answers ${answer.status} instead of its status.`);
  }
}
