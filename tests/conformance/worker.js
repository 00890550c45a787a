// Plays scenarios on the real Durable Objects. `subject.py` beside it does the same on z0: every operation here has its
// namesake there, and what either returns is plain JSON in the notation of `scenario.py`.

import { DurableObject } from "cloudflare:workers";

// What outlives the memory of a scenario's objects: the order of events, what is to be done at which event, and the
// texts of errors as they were.
class World {
  log = [];
  said = [];
  scripts = new Map();
  times = new Map();

  next(event, name) {
    const scripts = this.scripts.get(`${event} ${name}`) ?? [];
    return scripts.length > 1 ? scripts.shift() : scripts[0];
  }
}

const worlds = new Map();

function worldOf(scenario) {
  if (!worlds.has(scenario)) worlds.set(scenario, new World());
  return worlds.get(scenario);
}

class Custom extends Error {
  name = "Custom";
}

const ERRORS = { Error, TypeError, RangeError, Custom };

function described(error, world) {
  world.said.push(String(error));
  const because = /^because[\w ]*/.exec(error?.message ?? "")?.[0];
  if (error?.durableObjectReset) return { reset: because ?? null };
  return because ? { raised: error.name, says: error.message } : { refused: null };
}

// Values

const LONG = 100;

function decoded(value) {
  if (Array.isArray(value)) return value.map(decoded);
  if (value === null || typeof value !== "object") return value;
  const [[kind, of] = []] = Object.entries(value);
  switch (kind) {
    case "$undefined": return undefined;
    case "$number": return Number(of);
    case "$bigint": return BigInt(of);
    case "$date": return new Date(of);
    case "$bytes": return Uint8Array.from(of);
    case "$blob": return new Uint8Array(of);
    case "$text": return "x".repeat(of);
    case "$set": return new Set(of.map(decoded));
    case "$map": return new Map(of.map(([key, its]) => [decoded(key), decoded(its)]));
    case "$pattern": return new RegExp(of);
    case "$function": return () => null;
  }
  return Object.fromEntries(Object.entries(value).map(([key, its]) => [key, decoded(its)]));
}

function encoded(value) {
  if (value === undefined) return { $undefined: null };
  if (typeof value === "bigint") return { $bigint: String(value) };
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return { $bigint: String(BigInt(value)) };
  if (typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))) {
    return { $number: Object.is(value, -0) ? "-0" : String(value) };
  }
  if (typeof value === "string" && value.length > LONG) return { $text: value.length };
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(encoded);
  if (value instanceof Date) return { $date: value.getTime() };
  if (value instanceof RegExp) return { $pattern: value.source };
  if (value instanceof Set) return { $set: [...value].map(encoded) };
  if (value instanceof Map) return { $map: pairs(value) };
  if (value instanceof ArrayBuffer) return encoded(new Uint8Array(value));
  if (value instanceof Uint8Array) return value.length > LONG ? { $blob: value.length } : { $bytes: [...value] };
  return Object.fromEntries(Object.entries(value).map(([key, its]) => [key, encoded(its)]));
}

function pairs(map) {
  return [...map].map((pair) => pair.map(encoded));
}

function nothing() {
  return null;
}

// Operations that are done at once: all that may stand inside a transaction

const atOnce = {
  put: (self, key, value) => nothing(self.storage.kv.put(key, decoded(value))),
  get: (self, key) => encoded(self.storage.kv.get(key) ?? null),
  delete: (self, key) => self.storage.kv.delete(key),
  list: (self, options) => pairs(self.storage.kv.list(optionsOf(options))),
  sql: (self, query, ...params) => encoded([...self.exec(query, params).raw()]),
  one: (self, query, ...params) => encoded(Object.values(self.exec(query, params).one())),
  columns: (self, query, ...params) => {
    const cursor = self.exec(query, params);
    cursor.toArray();
    return cursor.columnNames;
  },
  counts: (self, query, ...params) => {
    const cursor = self.exec(query, params);
    cursor.toArray();
    return [cursor.rowsRead, cursor.rowsWritten];
  },
  cursor: (self, name, query, ...params) => nothing(self.cursors.set(name, self.exec(query, params).raw())),
  next: (self, name) => encoded(self.cursors.get(name).next().value ?? null),
  delete_all: (self) => nothing(self.storage.deleteAll()),
  set_alarm: (self, milliseconds) => nothing(self.storage.setAlarm(self.time(milliseconds))),
  transaction: (self, ...operations) => self.storage.transactionSync(() => self.doAtOnce(operations)),
  try: (self, ...operations) => {
    try {
      return self.doAtOnce(operations);
    } catch (error) {
      return described(error, self.world);
    }
  },
  raise: (self, kind, text) => {
    throw new ERRORS[kind](text);
  },
  log: (self, text) => nothing(self.world.log.push(text)),
  remember: (self, key, value) => nothing(self.memory.set(key, value)),
  recall: (self, key) => self.memory.get(key) ?? null,
  name: (self) => self.name,
  abort: (self, reason, options) => self.ctx.abort(reason, options && { retryAlarm: options.retry_alarm }),
  open: (self, gate) => nothing(self.gate(gate).open()),
  wait_until: (self, ...operations) => nothing(self.ctx.waitUntil(self.perform(operations))),
  task: (self, ...operations) => nothing(self.perform(operations)),
  size: (self) => self.storage.sql.databaseSize > 0,
};

// Operations that return a promise

const inTime = {
  put: async (self, key, value) => nothing(await self.storage.put(key, decoded(value))),
  get: async (self, key) => encoded((await self.storage.get(key)) ?? null),
  delete: (self, key) => self.storage.delete(key),
  list: async (self, options) => pairs(await self.storage.list(optionsOf(options))),
  put_many: async (self, values) => nothing(await self.storage.put(decoded(values))),
  put_numbered: async (self, count) =>
    nothing(await self.storage.put(Object.fromEntries(Array.from({ length: count }, (_, n) => [`k${n}`, n])))),
  get_many: async (self, ...keys) => pairs(await self.storage.get(keys)),
  delete_many: (self, ...keys) => self.storage.delete(keys),
  delete_all: async (self) => nothing(await self.storage.deleteAll()),
  sync: async (self) => nothing(await self.storage.sync()),
  try: async (self, ...operations) => {
    try {
      return await self.perform(operations);
    } catch (error) {
      return described(error, self.world);
    }
  },
  block: (self, ...operations) => self.ctx.blockConcurrencyWhile(() => self.perform(operations)),
  nest: (self, depth, ...operations) => self.nest(depth, operations),
  transaction_async: (self, ...operations) => self.storage.transaction(() => self.perform(operations)),
  transaction_waiting: async (self, ...operations) =>
    await self.storage.transactionSync(() => self.perform(operations)),
  transaction_rolled_back: (self, ...operations) =>
    self.storage.transaction(async (transaction) => {
      const results = await self.perform(operations);
      transaction.rollback();
      return results;
    }),
  together: (self, ...scripts) => Promise.all(scripts.map((operations) => self.perform(operations))),
  pause: async (self, milliseconds) => nothing(await scheduler.wait(milliseconds)),
  await: (self, gate) => self.gate(gate).opened,
  call: (self, to, ...operations) => stubOf(self.env, self.scenario, to).run(operations),
  ask: async (self, to, value) => encoded(await stubOf(self.env, self.scenario, to).echo(decoded(value))),
  set_alarm: async (self, milliseconds) => nothing(await self.storage.setAlarm(self.time(milliseconds))),
  set_alarm_at: async (self, milliseconds) => nothing(await self.storage.setAlarm(milliseconds)),
  get_alarm: async (self) => self.offset(await self.storage.getAlarm()),
  has_alarm: async (self) => (await self.storage.getAlarm()) !== null,
  delete_alarm: async (self) => nothing(await self.storage.deleteAlarm()),
};

function optionsOf({ start_after: startAfter, ...options } = {}) {
  return startAfter === undefined ? options : { ...options, startAfter };
}

class Plain extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    [this.scenario, this.name] = ctx.id.name.split("\n");
    this.world = worldOf(this.scenario);
    this.storage = ctx.storage;
    this.memory = new Map();
    this.cursors = new Map();
    this.gates = new Map();
    const script = this.world.next("start", this.name);
    if (script) ctx.blockConcurrencyWhile(() => this.perform(script));
  }

  async run(operations) {
    return await this.perform(operations);
  }

  async echo(value) {
    return value;
  }

  async perform(operations) {
    const results = [];
    for (const [operation, ...its] of operations) {
      const does = inTime[operation] ?? atOnce[operation];
      results.push(inTime[operation] ? await does(this, ...its) : does(this, ...its));
    }
    return results;
  }

  doAtOnce(operations) {
    return operations.map(([operation, ...its]) => atOnce[operation](this, ...its));
  }

  exec(query, params) {
    return this.storage.sql.exec(query, ...params.map(decoded));
  }

  gate(name) {
    if (!this.gates.has(name)) {
      const gate = {};
      gate.opened = new Promise((resolve) => (gate.open = () => nothing(resolve(null))));
      this.gates.set(name, gate);
    }
    return this.gates.get(name);
  }

  nest(depth, operations) {
    if (depth === 0) return this.perform(operations);
    return this.ctx.blockConcurrencyWhile(() => this.nest(depth - 1, operations));
  }

  time(milliseconds) {
    const when = Date.now() + milliseconds;
    this.world.times.set(`${when} ${this.name}`, milliseconds);
    return when;
  }

  offset(when) {
    return when === null ? null : (this.world.times.get(`${when} ${this.name}`) ?? "another time");
  }
}

class Subject extends Plain {
  async alarm(info) {
    const script = this.world.next("alarm", this.name) ?? [["put", "alarm ran", true]];
    const due = info.scheduledTime === undefined || info.scheduledTime <= Date.now();
    const { retryCount, isRetry } = info;
    await this.perform(script.map((one) => (one[0] === "info" ? ["log", [retryCount, isRetry, due]] : one)));
  }
}

class Other extends Subject {}

export { Plain, Subject, Other };

// What calls the objects: the driver of a scenario, and other objects. "Other:a" is an object of another class.

function stubOf(env, scenario, to) {
  const [name, kind = "Subject"] = to.split(":").reverse();
  return env[kind].getByName(`${scenario}\n${name}`);
}

async function play(step, env, scenario, stubs) {
  const world = worldOf(scenario);
  if ("together" in step) {
    const shared = new Map();
    return await Promise.all(step.together.map((one) => play(one, env, scenario, shared)));
  }
  if ("wait" in step) return nothing(await scheduler.wait(step.wait));
  if ("on" in step) return nothing(world.scripts.set(`${step.on} ${step.to}`, step.scripts));
  if (!stubs.has(step.to)) stubs.set(step.to, stubOf(env, scenario, step.to));
  try {
    return await stubs.get(step.to).run(step.do);
  } catch (error) {
    return described(error, world);
  }
}

export default {
  async fetch(request, env) {
    const { scenario, steps } = await request.json();
    const kept = new Map();
    const outcomes = [];
    for (const step of steps) outcomes.push(await play(step, env, scenario, step.kept ? kept : new Map()));
    const { log, said } = worldOf(scenario);
    return Response.json({ outcome: { steps: outcomes, log }, said });
  },
};
