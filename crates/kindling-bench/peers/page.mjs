// The page of `kindling serve` in headless Chromium (written against playwright-core 1.64): `cargo xtask check page` runs it from a folder where that is
// installed, with ADDRESS KEY CHROMIUM PICTURES.
import { chromium } from "playwright-core";

const [address, key, executablePath, pictures] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });

function expect(holds, what) {
  if (!holds) throw new Error(`not as expected: ${what}`);
  console.log(`ok  ${what}`);
}

async function open(width, height, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", error => page.wrong.push(String(error)));
  page.on("request", request => { if (!request.url().startsWith(address)) page.wrong.push(`asked ${request.url()}`); });
  page.picture = name => page.screenshot({ path: `${pictures}/${name}.png` });
  await page.goto(address);
  return page;
}
const last = page => page.locator(".said.assistant").last().locator(".what");
const idle = page => page.waitForFunction(() => document.getElementById("stop").disabled);

async function desktop() {
  const page = await open(1280, 800, "light");
  await page.waitForFunction(() => document.getElementById("state").textContent.includes("key"));
  expect(await page.locator("#model option").count() === 0, "without its key no model is shown, and why is said");
  await page.fill("#key", key);
  await page.locator("#key").blur();
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  expect(await page.inputValue("#model") === "check", "the key opens it");

  await page.fill("#max_tokens", "3000");
  await page.fill("#seed", "7");
  await page.fill("#input", "What is a run?");
  await page.press("#input", "Enter");
  await page.waitForFunction(() => document.querySelectorAll(".assistant .t").length > 5);
  const early = (await last(page).textContent()).length;
  await page.waitForFunction(n => document.querySelector(".assistant .what").textContent.length > n + 20, early);
  expect(await page.isEnabled("#stop") && !(await page.isEnabled("#send")), "a text comes piece by piece");
  await page.picture("desktop-streaming");
  await page.click("#stop");
  await idle(page);
  const stopped = await last(page).textContent();
  await page.waitForTimeout(400);
  expect(await last(page).textContent() === stopped, "Stop stops it");

  await page.fill("#max_tokens", "40");
  await page.fill("#temperature", "0");
  await page.click("#again");
  await idle(page);
  const greedy = await last(page).textContent();
  expect(greedy !== stopped && await page.locator(".said").count() === 2, "Regenerate takes the place of it, with the parameters as they are now");
  await page.click("#again");
  await idle(page);
  expect(await last(page).textContent() === greedy, "at temperature 0 it says the same again");
  // Something with letters in it.
  await page.fill("#temperature", "1");
  await page.click("#again");
  await idle(page);
  await page.locator(".assistant .t", { hasText: /\S/ }).first().hover();
  const shares = await page.locator("#tip td:last-child").allTextContents();
  expect(shares.length >= 5 && shares.every(share => /^\d+\.\d %$/.test(share)), `probabilities beside a token: ${shares.slice(0, 3)}`);
  await page.check("#shade");
  await page.picture("desktop-probabilities");
  await page.focus("#log");
  await page.keyboard.press("ArrowRight");
  expect(await page.evaluate(() => document.activeElement.className) === "t", "tokens are reached by arrow keys");

  await page.fill("#temperature", "-3");
  await page.fill("#input", "And now?");
  await page.press("#input", "Enter");
  await page.waitForSelector(".said.error");
  expect((await page.locator(".said.error").textContent()).includes("temperature"), "what is refused says why");
  await page.fill("#temperature", "1");
  await page.click("#tab-text");
  await page.fill("#input", "# A title\n\nIt begins");
  await page.press("#input", "Enter");
  await idle(page);
  expect((await last(page).textContent()).length > 0 && await page.locator(".said.error").count() === 0, "a text goes on");
  expect(page.wrong.length === 0, `nothing went wrong, and nothing was asked for elsewhere ${page.wrong}`);
  await page.context().close();
}

async function phone() {
  const page = await open(390, 844, "dark");
  expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "on a phone nothing is cut off");
  await page.click("#more");
  await page.fill("#key", key);
  await page.locator("#key").blur();
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  await page.fill("#max_tokens", "60");
  await page.picture("phone-settings");
  await page.click("#more");
  await page.fill("#input", "What is a run?");
  await page.click("#send");
  await idle(page);
  await page.picture("phone");
  expect((await last(page).textContent()).length > 0 && page.wrong.length === 0, "it answers there too");
  await page.context().close();
}

let code = 0;
try {
  await desktop();
  await phone();
} catch (error) {
  console.error(error.message);
  code = 1;
}
await browser.close();
process.exit(code);
