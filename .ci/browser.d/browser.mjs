// One browser with a profile of its own, that notes what should not be: errors on the console, requests to elsewhere.
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

export const base = process.env.BASE;

/** What was found wrong, in the order in which it was found. */
export const faults = [];

export const check = (holds, what) => {
  if (!holds) faults.push(what);
};

/** Opens a page; `expected` names the paths and statuses that may fail. */
export async function open({ width, scheme, javaScriptEnabled = true, expected = () => false }) {
  const context = await chromium.launchPersistentContext(mkdtempSync(join(process.env.PROFILES, 'profile-')), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
    viewport: { width, height: 900 },
    colorScheme: scheme,
    javaScriptEnabled,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(10_000);
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

export const shoot = (page, name, options = {}) =>
  page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...options });
