// Fills a BullMQ queue as the service that Kalends replaces would have left it: a version 5 repeatable, job schedulers,
// jobs in every state. Prints what it made, as a line of JSON, and keeps its worker connected until its input ends.
//
// node make_queue.cjs HOST:PORT QUEUE; the folder with node_modules is in NODE_PATH.
"use strict";

const { Queue, Worker } = require("bullmq");

const HOUR_MS = 3_600_000;

async function main([address, name]) {
  const [host, port] = address.split(":");
  const connection = { host, port: Number(port) };
  const queue = new Queue(name, { connection });

  // A schedule for all users, in three spellings.
  await queue.add("sync-all", {}, { repeat: { pattern: "0 */15 * * * *" } });
  await queue.upsertJobScheduler(
    "nightly",
    { pattern: "0 30 2 * * *", tz: "Europe/Berlin" },
    { name: "sync-all", data: { source: "google-calendar" } },
  );
  await queue.upsertJobScheduler("half-hourly", { every: 1_800_000 }, { name: "sync-all", data: {} });
  // One of a single user, and what Kalends cannot say.
  await queue.upsertJobScheduler("of-ada", { pattern: "*/5 * * * *" }, { name: "sync", data: { userId: "ada" } });
  await queue.upsertJobScheduler("odd-seconds", { pattern: "30 * * * * *" }, { name: "sync-all", data: {} });
  await queue.upsertJobScheduler("odd-period", { every: 420_000 }, { name: "sync-all", data: {} });
  await queue.add("sync-mail", { source: "gmail" }, { repeat: { pattern: "0 * * * *", limit: 7 } });

  const calendar = (userId) => ({ userId, source: "google-calendar" });
  await queue.add("sync", calendar("ada"));
  await queue.add("sync", calendar("ada"));
  await queue.add("sync", { userId: 7, email: "bob@example.com" });
  const delayed = await queue.add("sync", calendar("cleo"), { delay: 6 * HOUR_MS });
  await queue.add("sync", calendar("dora"), { priority: 1 });
  await queue.add("sync", calendar("emil"), { priority: 10 });
  await queue.add("sync", calendar("finn"), { lifo: true });
  // What is no calendar sync of a known user.
  await queue.add("sync-mail", { userId: "ada", source: "gmail" });
  await queue.add("sync", calendar("nobody-knows-me"));
  await queue.add("tidy-up", { olderThanDays: 30 });

  // A failed job, and one that a worker has taken and not ended.
  const other = new Queue(name, { connection });
  const worker = new Worker(name, null, { connection, autorun: false });
  await other.add("sync", calendar("gina"), { lifo: true });
  const token = "by-hand";
  const failing = await worker.getNextJob(token);
  await failing.moveToFailed(new Error("Google said no"), token);
  await other.add("sync", calendar("hugo"), { lifo: true });
  await worker.getNextJob(token);

  console.log(JSON.stringify({ delayed_until: delayed.timestamp + delayed.delay }));
  await new Promise((resolve) => process.stdin.on("end", resolve).resume());
  await worker.close(true);
  await other.close();
  await queue.close();
  process.exit(0);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
