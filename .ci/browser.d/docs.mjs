// Swagger UI: each operation as it is filled in answers 2xx with something to see, and a second time.
import { base, check, fits, open, shoot, shootAt } from './browser.mjs';

const TOKEN = process.env.TOKEN;

let hasWalked = false;

/** What is required is filled in; of the rest only what has a default. */
async function checkFilledIn(block, id) {
  const inputs = await block.locator('table.parameters tr[data-param-name]').evaluateAll((rows) =>
    rows.flatMap((row) =>
      [...row.querySelectorAll('input')].map((input) => ({
        name: row.dataset.paramName,
        isRequired: row.querySelector('.parameter__name.required') !== null,
        value: input.value,
      })),
    ),
  );
  for (const { name, isRequired, value } of inputs) {
    const isRight = isRequired ? value !== '' : value === '' || name === 'limit';
    check(isRight, `${id}: ${name} is filled in with "${value}"`);
  }
}

/** Presses Execute, and returns the status and the body. */
async function execute(block) {
  const clear = block.locator('.btn-clear');
  if (await clear.count()) await clear.click();
  await block.locator('.execute').click();
  const response = block.locator('.live-responses-table tbody tr.response');
  await response.waitFor();
  const status = Number.parseInt(await response.locator('.response-col_status').innerText(), 10);
  const body = response.locator('.response-col_description .highlight-code').first();
  return { status, body: (await body.count()) ? await body.innerText() : '' };
}

/** All operations in the page's order; the first walk of all deletes the webhook that is there for it. */
async function walk(page, where) {
  const ids = await page.locator('.opblock:not(.event-types *)').evaluateAll((blocks) => blocks.map(({ id }) => id));
  check(ids.length > 20, `${where}: only ${ids.length} operations were found`);
  for (const id of ids) {
    const block = page.locator(`#${id}`);
    await block.locator('.opblock-summary-control').click();
    await block.locator('.execute').waitFor();
    await checkFilledIn(block, id);
    const { status, body } = await execute(block);
    const isGone = hasWalked && id.endsWith('-delete_webhook');
    const isRight = isGone ? status === 404 : status >= 200 && status < 300;
    check(isRight, `${where}: ${id} as it is filled in: ${status} ${body}`);
    check(status === 204 || !/^\s*(\[\s*\])?\s*$/.test(body), `${where}: ${id} has nothing to see`);
    const curl = await block.locator('.curl-command').innerText();
    check(curl.includes(base), `${where}: ${id}: the sample is not for this server`);
    await fits(page, `${where}, ${id}`);
    // The page is slow where all are open.
    await block.locator('.opblock-summary-control').click();
  }
  hasWalked = true;
}

/** A rotation shows a secret, this once. */
async function rotate(page, where) {
  const block = page.locator('#operations-webhooks-update_webhook');
  await block.locator('tr[data-param-name="rotate_secret"] select').selectOption('true');
  const { status, body } = await execute(block);
  check(status === 200 && /"whsec_[A-Za-z0-9]{40}"/.test(body), `${where}: a rotation: ${status} ${body}`);
}

/** The dialog takes the token alone, and the whole header as well. */
async function authorize(page, where) {
  await page.locator('.btn.authorize').click();
  const dialog = page.locator('.dialog-ux');
  check((await dialog.innerText()).includes('Paste the token alone'), `${where}: the dialog does not say what to paste`);
  await fits(page, `${where}, dialog`);
  await shoot(page, `authorize-${where.replace(/\W+/g, '-')}`);
  await dialog.locator('button', { hasText: 'Logout' }).click();
  check((await page.evaluate(() => localStorage.length + sessionStorage.length)) === 0, `${where}: the token is kept`);
  await dialog.locator('input').fill(`Bearer ${TOKEN}`);
  await dialog.locator('button[type=submit]').click();
  await dialog.locator('button', { hasText: 'Close' }).click();
}

/** Each part of the page, and all operations if they are wanted. */
export async function tryOut({ width, scheme, isWalked }) {
  const expected = (url) => new URL(url).pathname.startsWith('/v1/webhooks/');
  const { context, page, where } = await open({ width, scheme, expected });
  await page.goto(`${base}/docs#token=${TOKEN}`);
  await page.locator('html[data-ready]').waitFor();
  check(page.url() === `${base}/docs`, `${where}: the token is still in the address: ${page.url()}`);
  check((await page.title()) === 'Kallima Webhooks API', `${where}: the title is ${await page.title()}`);
  check((await page.locator('.topbar').count()) === 0, `${where}: there is a top bar`);
  check((await page.locator('.event-types .opblock:visible').count()) === 0, `${where}: event types are not collapsed`);
  const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check((background === 'rgb(255, 255, 255)') === (scheme === 'light'), `${where}: the background is ${background}`);
  await fits(page, where);
  await shoot(page, `docs-${width}-${scheme}`, { fullPage: true });
  await authorize(page, where);
  if (isWalked) await walk(page, where);
  const block = page.locator('#operations-webhooks-update_webhook');
  await block.locator('.opblock-summary-control').click();
  await rotate(page, where);
  await shootAt(page, block, `update_webhook-${width}-${scheme}`);
  await shootAt(page, block.locator('.live-responses-table'), `rotated-${width}-${scheme}`);
  await block.locator('.opblock-summary-control').click();
  await page.locator('.event-types > summary').click();
  const event = page.locator('.event-types .opblock').first();
  await event.locator('.opblock-summary-control').click();
  await event.locator('.opblock-body').waitFor();
  const inputs = await event.locator(':is(input, textarea, .execute, .try-out):visible').count();
  check(inputs === 0, `${where}: an event type has ${inputs} boxes that do nothing`);
  await fits(page, `${where}, event types`);
  await shootAt(page, page.locator('.event-types'), `event-types-${width}-${scheme}`);
  await context.close();
}
