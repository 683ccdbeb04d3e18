// The page in a browser: node page.mjs URL TOKEN FAILED_USER HOSTILE_USER FOLDER_FOR_PICTURES
// Looks, sees a change come live, logs in, tries a failed job again, pauses and resumes, sets a limit and schedules, removes one, and
// finds one user's history.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { open } from "./chromium.mjs";

const [url, token, failedUser, hostileUser, folder] = process.argv.slice(2);
const DESKTOP = { width: 1_280, height: 900, mobile: false };
// A modifier of the browser's protocol.
const SHIFT = 8;
const PHONE = { width: 390, height: 844, mobile: true };

const page = await open();
const text = (id) => page.value(`document.getElementById(${JSON.stringify(id)}).innerText`);
const has = (id, words) => `document.getElementById(${JSON.stringify(id)}).innerText.includes(${JSON.stringify(words)})`;
const begun = Date.now();
const step = (words) => console.log(`- ${words} (${((Date.now() - begun) / 1_000).toFixed(1)} s)`);

async function api(method, path, body) {
  const answer = await fetch(`${url}${path}`, { method, headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
}
async function pictures(name) {
  for (const [width, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    await page.tell("Emulation.setDeviceMetricsOverride", { ...size, deviceScaleFactor: 1 });
    for (const scheme of ["light", "dark"]) {
      await page.tell("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
      const beyond = await page.value("document.documentElement.scrollWidth - innerWidth");
      assert.ok(beyond <= 0, `${name}: at the width of a ${width} the page is ${beyond} pixels too wide`);
      const { data } = await page.tell("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
      writeFileSync(join(folder, `${name}-${width}-${scheme}.png`), Buffer.from(data, "base64"));
    }
  }
  await page.tell("Emulation.setDeviceMetricsOverride", { ...DESKTOP, deviceScaleFactor: 1 });
}
// All of the page as it stands, with what is typed into it.
const whole = () => page.value("document.documentElement.outerHTML + [...document.querySelectorAll('input, textarea')].map((one) => one.value).join(' ')");
async function showsNothingSecret(control) {
  const shown = await whole();
  assert.ok(shown.includes(control), `the search finds what is there: ${control}`);
  for (const word of process.env.KALENDS_NEVER_SHOWN.split("\n")) {
    assert.ok(word.length > 4 && !shown.includes(word), `the page holds ${word}`);
  }
}
// What a screen reader hears: every control has a name, and the page has its landmarks.
async function accessible(landmarks = ["banner", "main", "contentinfo", "search"]) {
  const { nodes } = await page.tell("Accessibility.getFullAXTree");
  const heard = nodes.filter((node) => !node.ignored).map((node) => ({ role: node.role?.value, name: node.name?.value ?? "" }));
  for (const role of landmarks) assert.ok(heard.some((one) => one.role === role), `no landmark ${role}`);
  const nameless = heard.filter((one) => ["button", "textbox", "searchbox", "spinbutton", "checkbox", "link", "dialog", "alertdialog", "region"].includes(one.role) && one.name === "");
  assert.deepEqual(nameless, []);
}

try {
  await page.tell("Emulation.setDeviceMetricsOverride", { ...DESKTOP, deviceScaleFactor: 1 });
  await page.tell("Page.navigate", { url });
  step("open");
  await page.until("the status", has("readiness", "ready"));
  await page.until("the verdict", has("verdict", "users were"));
  await page.until("the failed job", has("failed", failedUser));
  await page.until("requests", has("google-words", "in the last hour"));

  step("read-only without a token");
  const buttons = "[...document.querySelectorAll('main button')].filter((one) => one.checkVisibility() && one.type !== 'submit').length";
  assert.equal(await page.value(buttons), 0);

  step("hostile text is text");
  await page.until("the hostile user", has("failed", hostileUser));
  await page.until("who must connect again", `${has("user", "Users who must connect again")} && ${has("user", hostileUser)}`);
  assert.equal(await page.value("document.querySelector('main img, main script')"), null);
  assert.equal(await page.value("typeof planted"), "undefined");
  await showsNothingSecret(failedUser);
  await accessible();
  await pictures("looking");

  step("a change comes live");
  await page.value("window.notReloaded = true");
  await api("POST", "/api/v1/pause", { reason: "planned works" });
  await page.until("the pause", has("sources", "by an operator: planned works"));
  await api("POST", "/api/v1/resume", {});
  await page.until("the end of the pause", `!${has("sources", "planned works")}`);
  assert.equal(await page.value("window.notReloaded"), true);

  step("log in by keyboard");
  await page.key("Tab");
  assert.equal(await page.value("document.activeElement.className"), "skip");
  await page.key("Tab");
  assert.equal(await page.value("document.activeElement.id"), "log-in");
  await page.key("Enter");
  await page.until("the dialog", "document.getElementById('login').open");
  assert.equal(await page.value("document.activeElement.id"), "token");
  await page.type("a-token-that-is-wrong");
  await page.key("Enter");
  await page.until("the refusal", has("login-error", "not the token"));
  await page.value("document.getElementById('token').value = ''");
  await page.type(token);
  await page.key("Enter");
  await page.until("the login", has("message", "Logged in"));
  assert.equal(await page.value("localStorage.length + document.cookie.length"), 0);
  await page.until("the buttons", `${buttons} > 0`);
  await showsNothingSecret(failedUser);
  await accessible();

  step("try a failed job again");
  const retry = `#failed button[aria-label=${JSON.stringify(`Try again: ${failedUser}`)}]`;
  await page.click(retry);
  await page.until("the answer", has("message", `${failedUser} is tried again`));
  await page.until("its end", `!${has("failed", failedUser)}`);

  step("pause and resume");
  await page.click("#sources button[data-key^=pause]");
  await page.until("the dialog", "document.getElementById('pause').open");
  await page.type("the graph moves");
  await page.key("Enter");
  await page.until("the pause", has("sources", "by an operator: the graph moves"));
  await pictures("paused");
  await page.click("#sources button[data-key^=pause], #sources button[data-key]");
  await page.until("the end of the pause", `!${has("sources", "the graph moves")}`);

  step("set a limit, by keyboard");
  const opener = "document.activeElement.dataset.key";
  const write = (id, words) => page.value(`document.getElementById(${JSON.stringify(id)}).value = ${JSON.stringify(words)}`);
  await page.value("document.querySelector('#sources button[data-key^=limit]').focus()");
  await page.key("Enter");
  await page.until("the dialog", "document.getElementById('limit').open");
  assert.equal(await page.value("document.getElementById('limit-count').disabled"), true, "there is no limit yet");
  await page.click("#limit-unlimited");
  assert.equal(await page.value("document.getElementById('limit-count').disabled"), false);
  await page.value("document.getElementById('limit-count').select()");
  await write("limit-count", "");
  await page.value("document.getElementById('limit-count').focus()");
  await page.type("1000000000");
  await page.key("Enter");
  await page.until("the refusal", "document.getElementById('limit-error').innerText.length > 10");
  assert.ok((await text("limit-error")).startsWith("jobs"), await text("limit-error"));
  // Behind a dialog nothing is heard.
  await accessible(["dialog", "spinbutton", "checkbox", "alert"]);
  await pictures("limit");
  await write("limit-count", "");
  await page.value("document.getElementById('limit-count').focus()");
  await page.type("17");
  await page.key("Enter");
  await page.until("the limit", has("sources", "of 17 in 60 s"));
  assert.equal(await page.value("document.getElementById('limit').open"), false);
  await page.until("the focus where it was", `${opener}?.startsWith("limit ")`);
  await page.until("what is said of it", has("message", "17 syncs in 60 s from now on"));

  step("change a schedule, by keyboard");
  const nextTick = () => page.value("document.querySelector('#schedules tbody td:nth-child(4) time').dateTime");
  const before = await nextTick();
  await page.value("document.querySelector('#schedules button[data-key^=schedule]').focus()");
  await page.key("Enter");
  await page.until("the dialog", "document.getElementById('schedule').open");
  assert.equal(await page.value("document.activeElement.id"), "schedule-cron");
  await write("schedule-cron", "");
  await page.type("0 25 * * *");
  await page.key("Enter");
  await page.until("the API's reason", has("schedule-error", "hour"));
  assert.equal(await page.value("document.getElementById('schedule').open"), true);
  assert.equal(await nextTick(), before);
  await accessible(["dialog", "textbox", "alert"]);
  await pictures("schedule");
  await write("schedule-cron", "");
  await page.value("document.getElementById('schedule-cron').focus()");
  await page.type("30 4 29 2 *");
  await page.key("Enter");
  await page.until("the pattern", has("schedules", "30 4 29 2 *"));
  await page.until("another tick", `document.querySelector('#schedules tbody td:nth-child(4) time').dateTime !== ${JSON.stringify(before)}`);
  assert.ok((await nextTick()).includes("-02-29T04:30"), await nextTick());
  await page.until("the focus where it was", `${opener}?.startsWith("schedule ")`);

  step("add a schedule");
  await page.click("#schedules button[data-key='add schedule']");
  await page.until("the dialog", "document.getElementById('schedule').open");
  assert.equal(await page.value("document.activeElement.id"), "schedule-name");
  await page.type("nightly");
  await write("schedule-cron", "0 3 1 1 *");
  await page.key("Enter");
  await page.until("the schedule", has("schedules", "nightly"));
  await page.key("Escape");

  step("remove a schedule, by keyboard, not before it is confirmed");
  const names = "[...document.querySelectorAll('#schedules tbody td:first-child')].map((one) => one.innerText).join()";
  const both = await page.value(names);
  const remover = "#schedules button[aria-label='Remove the schedule nightly']";
  await page.value(`document.querySelector(${JSON.stringify(remover)}).focus()`);
  await page.key("Enter");
  await page.until("the question", "document.getElementById('unschedule').open");
  assert.equal(await text("unschedule-title"), "Remove the schedule nightly?");
  assert.equal(await page.value("document.activeElement.innerText"), "Cancel", "whoever presses Enter at once removes nothing");
  await accessible(["alertdialog", "alert"]);
  await pictures("unschedule");
  await page.key("Enter");
  await page.until("the focus where it was", `${opener} === "unschedule nightly"`);
  assert.equal(await page.value(names), both);
  await page.key("Enter");
  await page.until("the question", "document.getElementById('unschedule').open");
  await page.key("Tab", SHIFT);
  assert.equal(await page.value("document.activeElement.innerText"), "Remove it");
  await page.key("Enter");
  await page.until("what is said of it", has("message", "The schedule nightly is removed."));
  await page.until("its end", `!${has("schedules", "nightly")}`);
  assert.equal(await page.value(names), both.replace(/,?nightly/, "").replace(/^,/, ""));
  assert.equal(await page.value(opener), "add schedule");
  const { schedules } = await (await fetch(`${url}/api/v1/status`)).json();
  assert.ok(schedules.length === 1 && schedules[0].name !== "nightly", JSON.stringify(schedules));

  step("one user's history");
  await page.value("document.getElementById('query').focus()");
  await page.type(failedUser);
  await page.key("Enter");
  await page.until("the history", `${has("user", "completed")} && ${has("user", "Sync now")}`);
  await page.value("document.getElementById('query').value = ''; document.getElementById('query').focus()");
  await page.type("user-");
  await page.key("Enter");
  await page.until("the list", has("user", "Names that begin with user-"));
  await showsNothingSecret(failedUser);
  await accessible();
  await pictures("found");

  step("log out");
  await page.click("#log-out");
  await page.until("no buttons", `${buttons} === 0`);
  assert.equal(await page.value("sessionStorage.length"), 0);

  // The refusals of the wrong token, limit and pattern are meant.
  const complaints = page.complaints().filter((one) => !/\b4(01|00|22)\b/.test(one));
  assert.deepEqual(complaints, []);
  console.log("all is well");
} catch (error) {
  await pictures("failed").catch(() => {});
  console.error(error);
  process.exitCode = 1;
} finally {
  await page.close();
}
