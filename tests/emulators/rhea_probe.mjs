// Sends, reads and asks through an Event Hubs emulator with rhea, an AMQP 1.0 library that is not Azure's.
// node rhea_probe.mjs <path of rhea> '{"port": 5672, "user": "...", "key": "...", "token": "...", "large": 200000}'
// Prints one line of JSON with what it saw.

import { createRequire } from "node:module";

const rhea = createRequire(import.meta.url)(process.argv[2]);
const options = JSON.parse(process.argv[3]);
const seen = {};

function once(emitter, good, bad) {
  return new Promise((resolve, reject) => {
    emitter.once(good, resolve);
    if (bad) emitter.once(bad, (context) => reject(context));
  });
}

async function connect(more) {
  const container = rhea.create_container();
  const connection = container.connect({
    host: "127.0.0.1", port: options.port, reconnect: false, max_frame_size: 4096, ...more,
  });
  await once(connection, "connection_open");
  return connection;
}

async function condition(link, event) {
  await once(link, event);
  return link.error.condition;
}

async function send(sender, message) {
  const outcome = Promise.race([
    once(sender, "accepted").then(() => "accepted"),
    once(sender, "rejected").then((context) => context.delivery.remote_state.error.condition),
    once(sender, "sender_error").then(() => sender.error.condition),
  ]);
  sender.send(message);
  return outcome;
}

async function ask(connection, node, request) {
  const receiver = connection.open_receiver({ source: node, target: "reply-here" });
  await once(receiver, "receiver_open");
  const sender = connection.open_sender(node);
  await once(sender, "sendable");
  const answer = once(receiver, "message");
  sender.send({ message_id: "question", reply_to: "reply-here", ...request });
  const { message } = await answer;
  return { id: message.correlation_id, status: message.application_properties["status-code"], value: message.body };
}

async function plain() {
  const connection = await connect({ username: options.user, password: options.key, idle_time_out: 400 });
  const sender = connection.open_sender("events/Partitions/0");
  await once(sender, "sendable");
  seen.outcomes = [
    await send(sender, { body: rhea.message.data_section(Buffer.from("zero")) }),
    await send(sender, {
      body: rhea.message.data_sections([Buffer.from("one"), Buffer.from("more")]),
      application_properties: { count: 7 },
      message_annotations: { "x-opt-partition-key": "member-1" },
    }),
    await send(sender, { body: rhea.message.data_section(Buffer.alloc(options.large, "z")) }),
  ];

  const receiver = connection.open_receiver({
    source: {
      address: "events/ConsumerGroups/$Default/Partitions/0",
      filter: rhea.filter.selector("amqp.annotation.x-opt-sequence-number >= '1'"),
    },
    credit_window: 0,
  });
  seen.messages = [];
  receiver.on("message", ({ message }) => {
    const content = [].concat(message.body.content);
    seen.messages.push({
      sections: content.map((part) => (part.length > 100 ? part.length : part.toString())),
      properties: message.application_properties,
      sequence: message.message_annotations["x-opt-sequence-number"],
      key: message.message_annotations["x-opt-partition-key"],
    });
  });
  await once(receiver, "receiver_open");
  receiver.add_credit(1);
  await once(receiver, "message");
  await new Promise((done) => setTimeout(done, 100));
  seen.within_credit = seen.messages.length;
  const drained = once(receiver, "receiver_drained");
  receiver.drain = true;
  receiver.add_credit(50);
  await drained;
  seen.credit_after_drain = receiver.credit;

  seen.management = await ask(connection, "$management", {
    application_properties: { operation: "READ", type: "com.microsoft:partition", name: "events", partition: "0" },
  });
  seen.refused = [];
  for (const address of ["nowhere", "events/ConsumerGroups/nobody/Partitions/0", "events/ConsumerGroups/$Default/Partitions/9"]) {
    seen.refused.push(await condition(connection.open_receiver(address), "receiver_error"));
  }
  seen.too_large = await send(sender, { body: rhea.message.data_section(Buffer.alloc(1_100_000)) });
  await new Promise((done) => setTimeout(done, 1000)); // Longer than the idle time-out: only heartbeats keep it open.
  seen.alive = connection.is_open();
  connection.close();
  await once(connection, "connection_close");
}

async function token() {
  const connection = await connect({ username: "anonymous" });
  seen.without_token = await condition(connection.open_sender("events"), "sender_error");
  const put = (body) => ask(connection, "$cbs", {
    application_properties: { operation: "put-token", type: "servicebus.windows.net:sastoken", name: "sb://here/events" },
    body,
  });
  seen.bad_token = (await put(options.token.replace("sig=", "sig=A"))).status;
  seen.good_token = (await put(options.token)).status;
  const sender = connection.open_sender("events");
  await once(sender, "sendable");
  seen.with_token = await send(sender, { body: "text" });
  connection.close();
  await once(connection, "connection_close");
}

await plain();
await token();
console.log(JSON.stringify(seen));
