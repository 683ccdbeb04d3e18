// The page: shows the status as it comes, live, and asks for changes with the token. Whatever comes from the API is put
// into the page as text, never as markup.
"use strict";

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const RECONNECT_MS = 2_000;
// Good news goes by itself; what went wrong stays until the next news.
const GOOD_NEWS_MS = 15_000;
const TOKEN_KEY = "kalends-token";
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(TOKEN_KEY);
let status = null;
let stream = null;
// How far the store's clock is ahead of this one, in milliseconds.
let clockAhead = 0;

// Elements, from properties and children; texts become text nodes.
function h(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key === "data") Object.assign(made.dataset, value);
    else if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return made;
}

const number = (value) => value.toLocaleString("en");
function span(ms) {
  if (ms < 2 * MINUTE) return `${Math.round(ms / 1_000)} s`;
  if (ms < 2 * HOUR) return `${Math.round(ms / MINUTE)} min`;
  if (ms < 2 * DAY) return `${Math.round(ms / HOUR)} h`;
  return `${Math.round(ms / DAY)} days`;
}
function relative(at) {
  const ms = Date.parse(at) - (Date.now() + clockAhead);
  return ms >= 0 ? `in ${span(ms)}` : `${span(-ms)} ago`;
}
const time = (at) => at ? h("time", { dateTime: at, title: at, data: { relative: "" } }, relative(at)) : "never";

async function call(method, path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.detail ?? `status ${answer.status}`), { status: answer.status });
  return told;
}

let goodNews = 0;
function say(text, kind = "") {
  clearTimeout(goodNews);
  $("message").textContent = text;
  $("message").className = kind;
  if (kind === "good") goodNews = setTimeout(say, GOOD_NEWS_MS, "");
}
// Asks for a change and tells how it went.
async function change(method, path, body, done) {
  try {
    say(done(await call(method, path, body)), "good");
  } catch (error) {
    if (error.status === 401) $("login").showModal();
    say(error.message, "bad");
  }
}

// A part of the page is made anew only if what it shows has changed, and the focus goes back to where it was.
const shown = new Map();
function show(id, data, make) {
  const key = JSON.stringify([data, Boolean(token)]);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  const place = $(id), focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.replaceChildren(...[make(data)].flat());
  if (focused) [...place.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

function button(text, key, act, properties = {}) {
  return h("button", { type: "button", hidden: !token, data: { key }, onclick: act, ...properties }, text);
}
function table(caption, names, rows, none) {
  if (rows.length === 0) return h("p", { className: "quiet" }, none);
  const cell = (value, place) => h("td", { className: names[place] ? "" : "act", data: { name: names[place] ?? "" } }, value);
  return h("table", { className: "stack" }, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell)))));
}
const jobName = (job) => job.user ?? `all users of ${job.schedule}`;
const userLink = (job) => job.user === null ? jobName(job)
  : h("a", { href: "#user-title", data: { key: `show ${job.user}` }, onclick: () => { $("query").value = job.user; search(); } }, job.user);

// ---- What the status looks like ----

function ages(source) {
  const within = source.freshness.within;
  const bars = within.map(({ age_ms, users }, place) => ({
    label: place === 0 ? `up to ${span(age_ms)}` : `to ${span(age_ms)}`, users: users - (within[place - 1]?.users ?? 0), age_ms,
  }));
  bars.push({ label: "older", users: source.freshness.users - (within.at(-1)?.users ?? 0), age_ms: Infinity });
  bars.push({ label: "never", users: source.never_synced, age_ms: Infinity });
  return bars;
}
// Fresh is who was synced within two periods.
function freshWithin(status, source) {
  const schedule = status.schedules.find((one) => one.definition.source === source.name && one.next_tick_at);
  const period = schedule ? Math.min(Math.max(Date.parse(schedule.next_tick_at) - Date.parse(schedule.last_tick_at), 15 * MINUTE), 7 * DAY) : 15 * MINUTE;
  const bounds = source.freshness.within.map((one) => one.age_ms);
  return bounds.find((bound) => bound >= 2 * period) ?? bounds.at(-1);
}
function verdict(status) {
  const sources = status.sources;
  const users = sources.reduce((sum, one) => sum + one.users - one.parked, 0);
  if (users === 0) return ["Nobody is enrolled yet.", "soon"];
  const limits = sources.map((one) => freshWithin(status, one));
  const fresh = sources.reduce((sum, one, place) => sum + (one.freshness.within.find((w) => w.age_ms === limits[place])?.users ?? 0), 0);
  const limit = span(Math.max(...limits));
  if (fresh >= users) return [`Yes: all ${number(users)} users were synced within ${limit}.`, "good"];
  const late = users - fresh;
  return [`${number(late)} of ${number(users)} users were not synced within ${limit}.`, late * 20 > users ? "bad" : "soon"];
}
function tiles(status) {
  const worst = Math.max(...status.sources.map((one) => one.freshness.p99_age_ms ?? 0), 0);
  const median = Math.max(...status.sources.map((one) => one.freshness.p50_age_ms ?? 0), 0);
  const tile = (name, value, kind = "") => h("li", {}, h("strong", { className: kind }, value), name);
  return [
    tile("running", number(status.active)), tile("waiting", number(status.waiting)), tile("delayed", number(status.delayed)),
    tile("failed", number(status.failed), status.failed ? "bad" : ""), tile("parked", number(status.parked), status.parked ? "soon" : ""),
    tile("half are within", median ? span(median) : "–"), tile("99 % are within", worst ? span(worst) : "–"),
  ];
}
function ageBars(status) {
  const most = Math.max(1, ...status.sources.flatMap((source) => ages(source).map((one) => one.users)));
  return status.sources.flatMap((source) => {
    const limit = freshWithin(status, source);
    return ages(source).map(({ label, users, age_ms }) => {
      const fill = h("span", {});
      fill.style.width = `${users ? Math.max(1, 100 * users / most) : 0}%`;
      const kind = age_ms <= limit ? "good" : age_ms <= DAY ? "soon" : "bad";
      return h("li", {}, h("span", {}, label), h("span", { className: `bar ${kind}`, "aria-hidden": "true" }, fill), h("span", {}, number(users)));
    });
  });
}
function chart({ counts, slot_seconds }) {
  const svgs = "http://www.w3.org/2000/svg", slots = 3_600 / slot_seconds;
  const svg = (name, attributes) => {
    const made = document.createElementNS(svgs, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const most = Math.max(1, ...counts), first = slots - counts.length;
  const drawing = svg("svg", { viewBox: `0 0 ${slots} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(svg("line", { x1: 0, x2: slots, y1: 99.5, y2: 99.5, class: "axis", "vector-effect": "non-scaling-stroke" }));
  const path = counts.map((count, place) => count ? `M${first + place} 99h1v${-95 * count / most}h-1z` : "").join("");
  drawing.append(svg("path", { d: path, class: "fill" }));
  return [drawing, h("div", { className: "ends quiet", "aria-hidden": "true" }, h("span", {}, "an hour ago"), h("span", {}, "now"))];
}
function googleWords({ counts, slot_seconds }) {
  const rate = (count, seconds) => (count / seconds).toLocaleString("en", { maximumFractionDigits: 2 });
  const last = counts.slice(-6), sum = (some) => some.reduce((left, right) => left + right, 0);
  if (counts.length === 0) return "Nothing is counted yet.";
  return `${rate(sum(last), last.length * slot_seconds)} a second over the last ${span(last.length * slot_seconds * 1_000)}, at most ${rate(Math.max(...counts), slot_seconds)}; ${number(sum(counts))} in the last hour, by this process.`;
}
function sources(all) {
  return all.map((source) => {
    const limit = source.settings.jobs;
    const facts = [["Job starts", limit ? `${number(source.starts_in_window)} of ${number(limit.count)} in ${span(limit.window_ms)}` : "unlimited"]];
    if (source.overload) facts.push(["Overload", h("span", { className: "bad" }, source.overload)]);
    facts.push(["Paused", source.paused === null ? "no" : h("span", { className: "bad" }, `by an operator: ${source.paused}`)]);
    facts.push(["Limited", source.gate ? h("span", { className: "soon" }, "until ", time(source.gate.until), `: ${source.gate.reason ?? "Google asked to slow down"}`) : "no"]);
    const act = source.paused === null && !source.gate
      ? button("Pause …", `pause ${source.name}`, () => openPause(source.name), { className: "plain" })
      : button("Resume", `resume ${source.name}`, () => change("POST", "/api/v1/resume", { source: source.name }, () => `${source.name} goes on.`));
    const all = button("Sync all users", `all ${source.name}`, () => change("POST", "/api/v1/sync", { all: true, source: source.name },
      (told) => `${number(told.users)} users will be synced over ${span(told.over_ms)}.`), { className: "plain" });
    const set = button("Change the limit …", `limit ${source.name}`, () => openLimit(source.name, limit), { className: "plain", "aria-label": `Change the limit of ${source.name}` });
    return h("div", {}, h("h3", {}, source.name), h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), h("div", { className: "actions" }, act, set, all));
  });
}
function failed(jobs) {
  const rows = jobs.map((job) => [userLink(job), job.error ?? "no reason given", `${job.attempt}`, time(job.at),
    button("Try again", `retry ${job.number}`, () => change("POST", "/api/v1/jobs/retry", { number: job.number }, () => `${jobName(job)} is tried again.`), { "aria-label": `Try again: ${jobName(job)}` }),
    button("Forget", `discard ${job.number}`, () => change("POST", "/api/v1/jobs/discard", { number: job.number }, () => `The failure of ${jobName(job)} is forgotten.`), { className: "plain", "aria-label": `Forget: ${jobName(job)}` })]);
  const all = button("Try all again", "retry all", () => change("POST", "/api/v1/jobs/retry", { all: true }, (told) => `${number(told.retried)} are tried again.`), { className: "plain" });
  return [table("The newest ones. A user is due again by time alone, whatever failed.", ["User", "Reason", "Attempts", "When", "", ""], rows, "None."), rows.length > 1 ? h("div", { className: "actions" }, all) : null].filter(Boolean);
}
const running = (jobs) => table("Jobs under a lease", ["User", "Attempt", "Process", "Lease ends"],
  jobs.map((job) => [userLink(job), `${job.attempt}`, job.worker ?? "", time(job.at)]), "Nothing runs at this moment.");
const schedules = (all) => [table("When everybody is due", ["Name", "Pattern", "Last tick", "Next tick", "Missed", ""],
  all.map((one) => [one.name, `${one.definition.cron} (${one.definition.time_zone})`, time(one.last_tick_at), time(one.next_tick_at), number(one.missed),
    h("span", { className: "actions" }, button("Change …", `schedule ${one.name}`, () => openSchedule(one), { className: "plain", "aria-label": `Change the schedule ${one.name}` }),
      button("Remove …", `unschedule ${one.name}`, () => openUnschedule(one.name), { className: "plain", "aria-label": `Remove the schedule ${one.name}` }))]), "There is none: nothing is synced by itself."),
  h("div", { className: "actions" }, button("Add a schedule …", "add schedule", () => openSchedule(null), { className: "plain" }))];
const workers = ([own, all]) => [
  h("p", {}, `This one: ${own.worker}, ${number(own.slots)} slots, version ${own.version}, started `, time(own.started_at), "."),
  table("Processes that hold jobs", ["Process", "Running"], all.map((one) => [one.worker, number(one.running)]), "No process holds a job at this moment."),
];

function render() {
  const process = status.process, readiness = process.readiness;
  const state = status.store_away ? "store away" : readiness.state.replace("_", " ");
  const badge = $("readiness");
  if (badge.textContent !== state) badge.textContent = state;
  badge.className = `badge ${readiness.ready && !status.store_away ? "good" : "bad"}`;
  $("process").textContent = readiness.reason ?? (process.can_change ? "" : "Read-only: no token is configured.");
  $("log-in").hidden = Boolean(token) || !process.can_change;
  $("log-out").hidden = !token;
  show("google-words", process.google_requests, googleWords);
  show("google-chart", process.google_requests, chart);
  if (status.store_away) return say(`The store does not answer: ${status.store_away}`, "bad");
  clockAhead = Date.parse(status.now) - Date.now();
  const [words, kind] = verdict(status);
  if ($("verdict").textContent !== words) $("verdict").textContent = words;
  $("verdict").className = `verdict ${kind}`;
  $("tiles").replaceChildren(...tiles(status));
  if (status.parked !== parkedShown) {
    parkedShown = status.parked;
    if ($("query").value.trim() === "") search();
  }
  $("ages").replaceChildren(...ageBars(status));
  show("sources", status.sources.map((one) => ({ ...one, freshness: null, oldest_success_at: null })), sources);
  show("failed", status.failed_jobs, failed);
  show("running", status.active_jobs, running);
  show("schedules", status.schedules, schedules);
  show("workers", [{ ...process, google_requests: null }, status.workers], workers);
}
setInterval(() => {
  for (const one of document.querySelectorAll("time[data-relative]")) one.textContent = relative(one.dateTime);
}, 1_000);

// ---- The stream: by fetch, because an EventSource sends no token ----

async function follow() {
  stream?.abort();
  const own = stream = new AbortController();
  while (stream === own) {
    try {
      const answer = await fetch("/api/v1/events", { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal: own.signal, cache: "no-store" });
      if (answer.status === 401) {
        disconnected("log in to look");
        $("log-in").hidden = false;
        return $("login").open || $("login").showModal();
      }
      if (!answer.ok) throw new Error((await answer.json()).detail);
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      throw new Error("the stream ended");
    } catch (error) {
      if (stream !== own) return;
      disconnected("not connected");
      await new Promise((done) => setTimeout(done, RECONNECT_MS));
    }
  }
}
async function read(reader) {
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    const data = events.flatMap((event) => event.split("\n")).filter((line) => line.startsWith("data: ")).at(-1);
    if (data) {
      status = JSON.parse(data.slice(6));
      render();
    }
  }
}
function disconnected(words) {
  $("readiness").textContent = words;
  $("readiness").className = "badge bad";
}

// ---- One user ----

/** How many were parked when the list of who must connect again was made. */
let parkedShown = null;

async function search() {
  const query = $("query").value.trim(), place = $("user");
  const rowOf = (user) => [userLink(user), time(user.last_success_at), user.needs_reauth ? "must connect again" : user.parked ?? "no"];
  const titles = ["User", "Last synced", "Parked"];
  try {
    if (query === "") {
      const waiting = await call("GET", "/api/v1/users?limit=20&needs_reauth=true");
      return place.replaceChildren(h("p", { className: "quiet" }, "Write a user's id."),
        table("Users who must connect again", titles, waiting.users.map(rowOf), "Nobody must connect again."));
    }
    const found = await call("GET", `/api/v1/users?limit=20&prefix=${encodeURIComponent(query)}`);
    const one = found.users.length === 1 ? found.users[0].user : found.users.find((user) => user.user === query)?.user;
    if (one !== undefined) return place.replaceChildren(...userParts(await call("GET", `/api/v1/users/${encodeURIComponent(one)}`)));
    place.replaceChildren(table(`Names that begin with ${query}`, titles, found.users.map(rowOf), "Nobody has such a name."));
  } catch (error) {
    place.replaceChildren(h("p", { className: "bad" }, error.message));
  }
}
function userParts(user) {
  const facts = [
    ["Last synced", time(user.last_success_at)], ["Due", time(user.due_at)],
    ["Parked", user.parked === null ? "no" : h("span", { className: "bad" }, user.needs_reauth ? "the grant is gone: must connect again" : "by an operator")],
    ["Limited", user.limited_until ? time(user.limited_until) : "no"],
    ["Last error", user.last_error ?? "none"], ["Enrolled", time(user.enrolled_at)],
  ];
  const words = (job) => job.error ?? (job.outcome?.outcome === "synced"
    ? `${number(job.outcome.upserted)} written, ${number(job.outcome.deleted)} removed, ${number(job.outcome.quarantined)} set aside, ${number(job.outcome.requests)} requests${job.outcome.full ? ", a full pass" : ""}`
    : job.outcome?.note ?? "");
  const rows = user.history.map((job) => [time(job.at), job.state, words(job), job.number !== null && job.state === "failed"
    ? button("Try again", `retry ${job.number}`, () => change("POST", "/api/v1/jobs/retry", { number: job.number }, () => `${user.user} is tried again.`)) : ""]);
  return [
    h("h3", {}, user.user),
    h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("div", { className: "actions" }, button("Sync now", "sync", () => change("POST", "/api/v1/sync", { user: user.user }, () => `${user.user} is synced next.`))),
    table("The newest finished jobs that are kept", ["When", "State", "What happened", ""], rows, "No finished job of this user is kept."),
  ];
}

// ---- Dialogs that change something ----

// The focus goes back to the button that opened it, or to the one that stands there meanwhile.
function openDialog(id, opener) {
  $(id).dataset.opener = opener;
  $(id).showModal();
}
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", () => {
  const { opener } = dialog.dataset;
  if (opener !== undefined) [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === opener)?.focus();
});
// A refusal stays in the dialog, where it can be put right.
async function changeIn(id, method, path, body, words) {
  const error = $(`${id}-error`);
  error.textContent = "";
  try {
    await call(method, path, body);
    $(id).close();
    say(words, "good");
    return true;
  } catch (refusal) {
    error.textContent = refusal.status === 401 ? "This is not the token any more: log out, and in again." : refusal.message;
    return false;
  }
}
let limiting = null;
function openLimit(source, limit) {
  limiting = source;
  $("limit-title").textContent = `Limit of ${source}`;
  $("limit-count").value = limit?.count ?? 10;
  $("limit-seconds").value = (limit?.window_ms ?? MINUTE) / 1_000;
  $("limit-unlimited").checked = limit === null;
  $("limit-error").textContent = "";
  limitFields();
  openDialog("limit", `limit ${source}`);
}
function limitFields() {
  for (const id of ["limit-count", "limit-seconds"]) $(id).disabled = $("limit-unlimited").checked;
}
$("limit-unlimited").addEventListener("change", limitFields);
$("limit-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const count = Number($("limit-count").value), window_ms = Math.round(1_000 * Number($("limit-seconds").value));
  const jobs = $("limit-unlimited").checked ? null : { count, window_ms };
  const words = jobs === null ? `${limiting} has no limit now.` : `${limiting}: ${number(count)} syncs in ${span(window_ms)} from now on.`;
  changeIn("limit", "PUT", "/api/v1/limits", { jobs, source: limiting }, words);
});
let scheduling = null;
function openSchedule(schedule) {
  scheduling = schedule?.definition ?? null;
  $("schedule-title").textContent = schedule ? `Schedule ${schedule.name}` : "A new schedule";
  $("schedule-name").value = schedule?.name ?? "";
  $("schedule-name").readOnly = schedule !== null;
  $("schedule-cron").value = scheduling?.cron ?? "";
  $("schedule-zone").value = scheduling?.time_zone ?? "UTC";
  $("schedule-catch-up").value = scheduling?.catch_up ?? "once";
  $("schedule-error").textContent = "";
  openDialog("schedule", schedule ? `schedule ${schedule.name}` : "add schedule");
  $(schedule ? "schedule-cron" : "schedule-name").focus();
}
$("schedule-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("schedule-name").value.trim();
  const body = { cron: $("schedule-cron").value, time_zone: $("schedule-zone").value.trim(), catch_up: $("schedule-catch-up").value.trim() };
  if (scheduling) body.source = scheduling.source;
  changeIn("schedule", "PUT", `/api/v1/schedules/${encodeURIComponent(name)}`, body, `The schedule ${name} is set.`);
});

let unscheduling = null;
function openUnschedule(name) {
  unscheduling = name;
  $("unschedule-title").textContent = `Remove the schedule ${name}?`;
  $("unschedule-error").textContent = "";
  openDialog("unschedule", `unschedule ${name}`);
}
$("unschedule-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const done = await changeIn("unschedule", "DELETE", `/api/v1/schedules/${encodeURIComponent(unscheduling)}`, undefined, `The schedule ${unscheduling} is removed.`);
  // Its own button goes with it. The dialog's end is told only later.
  if (done) $("unschedule").dataset.opener = "add schedule";
});

// ---- Log in, log out, pause ----

let pausing = null;
function openPause(source) {
  pausing = source;
  $("pause-title").textContent = `Pause ${source}`;
  openDialog("pause", `pause ${source}`);
}
$("pause-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const reason = $("reason").value;
  $("pause").close();
  await change("POST", "/api/v1/pause", { reason, source: pausing }, () => `${pausing} is paused.`);
});
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const before = token;
  token = $("token").value.trim();
  try {
    await call("GET", "/api/v1/status");
    sessionStorage.setItem(TOKEN_KEY, token);
    $("token").value = $("login-error").textContent = "";
    $("login").close();
    say("Logged in.", "good");
    follow();
  } catch (error) {
    token = before;
    $("login-error").textContent = error.status === 401 ? "This is not the token." : error.message;
  }
});
$("log-in").addEventListener("click", () => $("login").showModal());
$("log-out").addEventListener("click", () => {
  token = null;
  sessionStorage.removeItem(TOKEN_KEY);
  say("Logged out.");
  $("user").replaceChildren();
  follow();
});
for (const close of document.querySelectorAll("[data-close]")) close.addEventListener("click", () => close.closest("dialog").close());
$("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
follow();
