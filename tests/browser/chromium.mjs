// A headless Chromium, driven by the DevTools protocol over a pipe: no port, no package.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE_MS = 60_000;
const LOOK_MS = 50;

export async function open() {
  const profile = mkdtempSync(join(tmpdir(), "kalends-chromium-"));
  const child = spawn(process.env.CHROMIUM ?? "chromium", [
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", `--user-data-dir=${profile}`, "about:blank",
  ], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [, , , input, output] = child.stdio;
  const waiting = new Map();
  const events = [];
  let text = "", next = 1;
  child.on("error", (error) => { throw new Error(`no Chromium can be started: ${error.message}`); });
  output.setEncoding("utf8");
  output.on("data", (data) => {
    const parts = (text + data).split("\0");
    text = parts.pop();
    for (const part of parts) {
      const message = JSON.parse(part);
      if (message.id === undefined) { events.push(message); continue; }
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
    }
  });
  const send = (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    const id = next++;
    waiting.set(id, { resolve, reject });
    input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const tell = (method, params) => send(method, params, sessionId);
  for (const domain of ["Page", "Runtime", "Log", "Accessibility"]) await tell(`${domain}.enable`);

  const page = {
    tell,
    // What the page complained about: exceptions, errors in the console, violations of the policy.
    complaints: () => events.filter(({ method, params }) => method === "Runtime.exceptionThrown"
      || (method === "Log.entryAdded" && params.entry.level === "error")
      || (method === "Runtime.consoleAPICalled" && params.type === "error"))
      .map(({ params }) => JSON.stringify(params.exceptionDetails?.exception?.description ?? params.entry ?? params.args)),
    async value(expression) {
      const { result, exceptionDetails } = await tell("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
      if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
      return result.value;
    },
    async until(what, expression) {
      const begun = Date.now();
      // Before a page is there, what is looked for is missing: that is no answer yet.
      while (!(await page.value(`(() => { try { return Boolean(${expression}); } catch { return false; } })()`))) {
        if (Date.now() - begun > PATIENCE_MS) throw new Error(`waited in vain for ${what}; the page says:\n${await page.value("document.body.innerText")}`);
        await new Promise((done) => setTimeout(done, LOOK_MS));
      }
    },
    async key(key, modifiers = 0) {
      const code = { Enter: 13, Tab: 9, Escape: 27 }[key];
      const common = { key, code: key, windowsVirtualKeyCode: code, modifiers };
      await tell("Input.dispatchKeyEvent", { type: "keyDown", ...common, ...(key === "Enter" ? { text: "\r" } : {}) });
      await tell("Input.dispatchKeyEvent", { type: "keyUp", ...common });
    },
    type: (text) => tell("Input.insertText", { text }),
    // Clicks where a person would: in the middle of what the selector finds.
    async click(selector) {
      const place = await page.value(`(() => { const one = document.querySelector(${JSON.stringify(selector)}); one.scrollIntoView({ block: "center" });
        const box = one.getBoundingClientRect(); return { x: box.x + box.width / 2, y: box.y + box.height / 2 }; })()`);
      for (const type of ["mousePressed", "mouseReleased"]) await tell("Input.dispatchMouseEvent", { type, ...place, button: "left", clickCount: 1 });
    },
    async close() {
      const ended = new Promise((done) => child.once("exit", done));
      await send("Browser.close").catch(() => {});
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  return page;
}
