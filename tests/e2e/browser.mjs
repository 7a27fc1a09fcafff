// Opens pages in headless Chromium and says what is seen: node browser.mjs '[{"url", "width", "scheme", "until", "shot"}]'
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "package.json"))("playwright-core");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--no-zygote"],
});
const found = [];
for (const wanted of JSON.parse(process.argv[2])) {
  const page = await browser.newPage({
    viewport: { width: wanted.width ?? 1000, height: 800 }, colorScheme: wanted.scheme ?? "light",
  });
  const seen = { errors: [], requests: [] };
  page.on("console", message => message.type() === "error" && seen.errors.push(message.text()));
  page.on("pageerror", error => seen.errors.push(error.message));
  page.on("dialog", dialog => { seen.errors.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", request => seen.requests.push(request.url()));
  seen.status = (await page.goto(wanted.url))?.status();
  const before = await page.locator("body").innerText();
  if (wanted.open) await page.locator("summary").first().click();
  // The page has to change by itself: nothing is loaded anew.
  if (wanted.until === "changes")
    await page.waitForFunction(text => document.body.innerText !== text, before, { timeout: 30000 });
  seen.text = await page.locator("body").innerText();
  Object.assign(seen, await page.evaluate(() => ({
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
    curve: [...document.querySelectorAll("polyline.train")].map(line => getComputedStyle(line).stroke)[0],
    charts: [...document.querySelectorAll("figure svg")].filter(one => one.getBoundingClientRect().width > 0).length,
    opened: document.querySelectorAll("details[open]").length,
    smallest: Math.min(...[...document.querySelectorAll("figure svg text")].map(one => one.getBoundingClientRect().height)
      .filter(height => height > 0)),
  })));
  if (wanted.shot) await page.screenshot({ path: wanted.shot, fullPage: wanted.whole ?? false });
  found.push(seen);
  await page.close();
}
await browser.close();
console.log(JSON.stringify(found));
