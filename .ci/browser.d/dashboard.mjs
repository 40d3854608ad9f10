// The dashboard: signing in, every page and every form, on the data of a receiver that answers with what would run if it were
// not text.
import { createServer } from 'node:http';
import { base, check, fits, open, shoot } from './browser.mjs';

const TOKEN = process.env.TOKEN;
const HOSTILE = `"'><script>window.hostile = 1</script><img src=x onerror="window.hostile = 1"></pre><style>body{display:none}</style>`;

/** A receiver with this status for every delivery. */
async function receiver() {
  const answers = { status: 500 };
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(answers.status, { 'Content-Type': 'text/html' }).end(HOSTILE));
  });
  await new Promise((listens) => server.listen(0, '127.0.0.1', listens));
  return { answers, url: `http://127.0.0.1:${server.address().port}/?q=${encodeURIComponent(HOSTILE)}`, close: () => server.close() };
}

async function post(path, body) {
  const headers = { Authorization: `Bearer ${TOKEN}`, 'Content-Type': 'application/json' };
  const response = await fetch(base + path, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** That a page is as it should be: it fits, nothing runs, and its headings are there. */
async function looks(page, where, name, heading) {
  const said = await page.locator('h1').innerText();
  check(said === heading, `${where}: ${page.url()} says "${said}" instead of "${heading}"`);
  await fits(page, where);
  const hostile = await page.evaluate(() => [window.hostile, document.querySelectorAll('main script, main style, main img').length]);
  check(hostile[0] === undefined && hostile[1] === 0, `${where}: ${page.url()}: what a receiver wrote is no text`);
  const unnamed = await page.evaluate(() => [...document.querySelectorAll('input:not([type=hidden]), select')].filter((field) => field.labels.length === 0).length);
  check(unnamed === 0, `${where}: ${page.url()} has ${unnamed} fields without a label`);
  await shoot(page, `dashboard-${name}-${where.replace(/\W+/g, '-')}`, { fullPage: true });
}

const press = (page, name) => page.getByRole('button', { name, exact: true }).click();

async function signIn(page, where) {
  await page.goto(`${base}/dashboard`);
  await looks(page, where, 'sign-in', 'Sign in');
  await page.getByLabel('Token').fill(`ab_${'x'.repeat(48)}`);
  await press(page, 'Sign in');
  check((await page.getByRole('alert').innerText()).includes('not valid'), `${where}: an unknown token is taken`);
  // By the keyboard alone.
  await page.getByLabel('Token').focus();
  await page.keyboard.type(TOKEN);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Webhooks' }).waitFor();
}

/** The page of a webhook: enable and test, which fails. */
async function change(page, where, webhook, answers) {
  await page.goto(`${base}/dashboard`);
  await looks(page, where, 'webhooks', 'Webhooks');
  await page.locator(`a[href="/dashboard/webhooks/${webhook.id}"]`).click();
  await press(page, 'Enable');
  check((await page.locator('.state').first().innerText()) === 'ok', `${where}: the webhook is not enabled`);
  answers.status = 500;
  await page.getByLabel('Event type').selectOption('webhook.test');
  await press(page, 'Send a test');
  await looks(page, where, 'tested', 'Delivery');
  check((await page.locator('.state').first().innerText()) === 'failed', `${where}: the test has not failed`);
  await page.goto(`${base}/dashboard/webhooks/${webhook.id}`);
  await looks(page, where, 'webhook', 'Webhook');
}

/** From the list to a delivery, which is retried. */
async function retry(page, where, webhook, answers) {
  await page.getByRole('link', { name: 'Deliveries', exact: true }).click();
  await page.getByLabel('Webhook').selectOption(webhook.id);
  await page.getByLabel('Status').selectOption('failed');
  await press(page, 'Filter');
  await looks(page, where, 'deliveries', 'Deliveries');
  await page.locator('table.cards tbody a').first().click();
  await page.locator('.attempt summary').click();
  await looks(page, where, 'delivery', 'Delivery');
  check((await page.locator('.attempt').innerText()).includes(HOSTILE), `${where}: the response is not shown as it is`);
  answers.status = 200;
  await press(page, 'Retry now');
  check((await page.locator('.attempt').count()) === 2, `${where}: the retry is not shown`);
  check((await page.locator('.state').first().innerText()) === 'delivered', `${where}: the retry has not delivered`);
  await page.goto(`${base}/dashboard/deliveries?event_id=${encodeURIComponent(HOSTILE)}`);
  await looks(page, where, 'filter', 'Deliveries');
  await page.goto(`${base}/dashboard/deliveries/0190a000-0000-7000-8000-000000000000`);
  await looks(page, where, 'missing', 'Not found');
}

/** The secret is shown once. */
async function rotate(page, where, webhook) {
  await page.goto(`${base}/dashboard/webhooks/${webhook.id}`);
  await press(page, 'Rotate the secret');
  const secret = await page.locator('main pre').innerText();
  check(/^whsec_[A-Za-z0-9]{40}$/.test(secret), `${where}: a rotation shows "${secret}"`);
  await looks(page, where, 'rotated', 'The secret was rotated');
  await page.getByRole('link', { name: 'Back to the webhook' }).click();
  check(!(await page.content()).includes(secret), `${where}: the secret is shown again`);
}

async function signOut(page, where) {
  await press(page, 'Sign out');
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.goto(`${base}/dashboard/deliveries`);
  check(page.url() === `${base}/dashboard/sign_in`, `${where}: still signed in at ${page.url()}`);
}

/** By a link that lets whoever has it retry, and nothing else. */
async function byLink(page, where, webhook) {
  const link = await post('/v1/dashboard_links', { access: 'retry' });
  await page.goto(link.url);
  await looks(page, where, 'link', 'Dashboard');
  await press(page, 'Open the dashboard');
  await page.getByRole('heading', { name: 'Webhooks' }).waitFor();
  check(!page.url().includes('link='), `${where}: the link is still in the address`);
  await page.goto(`${base}/dashboard/webhooks/${webhook.id}`);
  const forms = await page.locator('main form').count();
  check(forms === 0, `${where}: a link shows ${forms} forms that it does not allow`);
  await signOut(page, where);
}

/** The first stop of the keyboard skips the navigation, and each stop can be seen. */
async function byKeyboard(page, where) {
  await page.goto(`${base}/dashboard/sign_in`);
  await page.keyboard.press('Tab');
  check((await page.evaluate(() => document.activeElement.className)) === 'skip', `${where}: Tab does not stop at the skip link`);
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  check((await page.evaluate(() => document.activeElement.id)) === 'token', `${where}: the field is not the next stop`);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  check(outline !== 'none', `${where}: the focus cannot be seen`);
}

export async function useDashboard({ width, scheme, javaScriptEnabled = true }) {
  const { answers, url, close } = await receiver();
  const webhook = await post('/v1/webhooks', { url, description: HOSTILE, events: ['webhook.test'], enabled: false });
  // A wrong token, a wrong filter, and an id that is nobody's.
  const expected = (address) => new URL(address).pathname.startsWith('/dashboard/');
  const { context, page, where: screen } = await open({ width, scheme, javaScriptEnabled, expected });
  const where = javaScriptEnabled ? screen : `${screen}, without scripts`;
  page.on('dialog', () => check(false, `${where}: ${page.url()} opens a dialog`));
  await signIn(page, where);
  const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check((background === 'rgb(255, 255, 255)') === (scheme === 'light'), `${where}: the background is ${background}`);
  await change(page, where, webhook, answers);
  await retry(page, where, webhook, answers);
  await rotate(page, where, webhook);
  await signOut(page, where);
  await byLink(page, where, webhook);
  await byKeyboard(page, where);
  await context.close();
  close();
}
