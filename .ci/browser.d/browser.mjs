// One browser, and pages in profiles of their own, that note what should not be: errors on the console, requests to
// elsewhere.
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic'];

export const base = process.env.BASE;

/** What was found wrong, in the order in which it was found. */
export const faults = [];

export const check = (holds, what) => {
  if (!holds) faults.push(what);
};

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
export const close = () => browser.close();

/** Opens a page; `expected` names the paths and statuses that may fail. */
export async function open({ width, scheme, javaScriptEnabled = true, expected = () => false }) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: scheme,
    javaScriptEnabled,
  });
  const page = await context.newPage();
  // A machine with other work is slow, and what never comes fails all the same.
  page.setDefaultTimeout(30_000);
  const where = `${width} px, ${scheme}`;
  page.on('request', (request) => {
    const url = new URL(request.url());
    const isOurs = url.origin === base || ['data:', 'blob:'].includes(url.protocol);
    check(isOurs, `${where}: a request to ${url}`);
  });
  page.on('pageerror', (error) => check(false, `${where}: ${page.url()}: ${error}`));
  page.on('console', (message) => {
    if (message.type() !== 'error') return;
    const from = message.location().url;
    check(expected(from), `${where}: ${page.url()}: ${message.text()} (${from})`);
  });
  return { context, page, where };
}

/** That nothing is wider than the screen. */
export async function fits(page, where) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `${where}: ${page.url()} is ${wide} px wider than the screen`);
}

/** One screen, with this at its top. */
export async function shootAt(page, part, name) {
  await part.evaluate((element) => element.scrollIntoView());
  await shoot(page, name);
}

export const shoot = (page, name, options = {}) =>
  page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...options });
