// Every page, on a phone and on a desk, light and dark.
import { base, faults } from './browser.mjs';
import { tryOut } from './docs.mjs';
import { readAll, readWithoutScripts, useKeyboard } from './pages.mjs';

for (const width of [1280, 375]) {
  for (const scheme of ['light', 'dark']) {
    await tryOut({ width, scheme, isFirst: width === 1280 && scheme === 'light' });
    await readAll({ width, scheme });
  }
}
await useKeyboard();
await readWithoutScripts();

if (faults.length > 0) {
  console.error(`${base}:\n${faults.map((fault) => `- ${fault}`).join('\n')}`);
  process.exit(1);
}
