// The guides, the reference and the errors: every page that another one leads to.
import { base, check, fits, open, shoot } from './browser.mjs';

const START = ['/guide', '/reference', '/errors'];
const SHOWN = ['/guide', '/guide/requests', '/reference', '/reference/update_webhook', '/reference/events/humanization.completed', '/errors/validation_error'];

/** The addresses of this server that a page leads to. */
const links = (page) =>
  page.evaluate(() => [...document.querySelectorAll('a[href]')].map((link) => link.href.split('#')[0]));

/** The pages that are looked at, whole. */
export async function readShown({ width, scheme }) {
  const { context, page, where } = await open({ width, scheme });
  for (const path of SHOWN) {
    await page.goto(base + path);
    await fits(page, where);
    await shoot(page, `page${path.replaceAll('/', '-')}-${width}-${scheme}`, { fullPage: true });
  }
  await context.close();
}

/** Reads every page, beginning with the overviews. */
export async function readAll({ width, scheme }) {
  const { context, page, where } = await open({ width, scheme });
  const [waiting, seen] = [START.map((path) => base + path), new Set()];
  while (waiting.length > 0) {
    const url = waiting.shift();
    const { pathname } = new URL(url);
    const isPage = /^\/(guide|reference|errors)(\/|$)/.test(pathname) && !pathname.endsWith('.md');
    if (seen.has(url) || !url.startsWith(base) || !isPage) continue;
    seen.add(url);
    const response = await page.goto(url);
    check(response.status() === 200, `${where}: ${url} is answered ${response.status()}`);
    await fits(page, where);
    const copies = await page.evaluate(() => document.querySelectorAll('pre').length - document.querySelectorAll('.copy').length);
    check(copies === 0, `${where}: ${url} has samples that no button copies`);
    waiting.push(...(await links(page)));
  }
  check(seen.size > 50, `${where}: only ${seen.size} pages were found`);
  await context.close();
}

/** By the keyboard alone: the first stop skips the navigation, and each stop can be seen. */
export async function useKeyboard() {
  const { context, page, where } = await open({ width: 1280, scheme: 'light' });
  await page.goto(`${base}/reference/update_webhook`);
  await page.keyboard.press('Tab');
  check((await page.evaluate(() => document.activeElement.className)) === 'skip', `${where}: Tab does not stop at the skip link`);
  await page.keyboard.press('Enter');
  check((await page.evaluate(() => document.activeElement.id)) === 'content', `${where}: the skip link leads nowhere`);
  await page.keyboard.press('Tab');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  check(outline !== 'none', `${where}: the focus cannot be seen`);
  await context.close();
}

/** Without scripts every page says the same. */
export async function readWithoutScripts() {
  const { context, page, where } = await open({ width: 1280, scheme: 'light', javaScriptEnabled: false });
  await page.goto(`${base}/reference/update_webhook`);
  const text = await page.locator('body').innerText();
  for (const part of ['rotate_secret', 'curl', 'Issue a new signing secret.', 'precondition_failed']) {
    check(text.includes(part), `${where}, without scripts: ${part} is missing`);
  }
  await context.close();
}
