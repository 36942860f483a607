// node client.mjs CONNECTION_FILE SOURCE FOLDER [PARAMETERS]
//
// Asks the daemon for its status, submits a job (PARAMETERS: more of its fields, as JSON), and follows it to its end.
// Writes one JSON object a line: {"status": ...}, {"submitted": ...}, {"topic": ..., "event": ...} for each event of
// the job, and {"job": ...} at the end.

import { readFileSync } from "node:fs";
import { Dealer, Subscriber } from "zeromq";

const [connectionFile, source, folder, parameters = "{}"] = process.argv.slice(2);
const connection = JSON.parse(readFileSync(connectionFile, "utf8"));
const options = {
  curveServerKey: connection.server_key,
  curvePublicKey: connection.client_public,
  curveSecretKey: connection.client_secret,
  linger: 0,
  receiveTimeout: 60_000,
};
const FINAL = ["done", "failed", "cancelled"];

function say(data) {
  process.stdout.write(JSON.stringify(data) + "\n");
}

class Door {
  #socket = new Dealer(options);
  #last = 0;

  constructor(endpoint) {
    this.#socket.connect(endpoint);
  }

  async ask(request) {
    const id = `node-${++this.#last}`;
    await this.#socket.send(JSON.stringify({ v: 1, id, client: "node", request }));
    for (;;) {
      const [data] = await this.#socket.receive();
      const { v, re, reply, error } = JSON.parse(data.toString("utf8"));
      if (v !== 1) throw new Error(`version ${v}`);
      if (error) throw new Error(`${error.code}: ${error.message}`);
      if (re === id) return reply;
    }
  }

  close() {
    this.#socket.close();
  }
}

const control = new Door(connection.control);
const work = new Door(connection.work);
const events = new Subscriber(options);
events.connect(connection.events);
events.subscribe("");
try {
  say({ status: await control.ask({ type: "daemon.status" }) });
  // A heartbeat shows that the subscription is there; nothing of the job is missed then.
  let topic, data;
  do {
    [topic, data] = await events.receive();
  } while (topic.toString() !== "heartbeat");
  const { job } = await work.ask({
    type: "job.submit",
    job: { source, folder, ...JSON.parse(parameters) },
    idempotency_key: "node-1",
  });
  say({ submitted: job });
  for (let state = ""; !FINAL.includes(state); ) {
    [topic, data] = await events.receive();
    const message = JSON.parse(data.toString("utf8"));
    if (message.event.job_id !== job.id) continue;
    say({ topic: topic.toString(), event: message });
    if (message.event.type === "JobChanged") state = message.event.state;
  }
  say({ job: (await control.ask({ type: "job.status", job_id: job.id })).job });
} finally {
  for (const socket of [control, work, events]) socket.close();
}
