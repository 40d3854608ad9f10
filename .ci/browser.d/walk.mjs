// Every page, on a phone and on a desk, light and dark. What is the same in both colours is tried in one of them.
import { base, close, faults } from './browser.mjs';
import { useDashboard } from './dashboard.mjs';
import { tryOut } from './docs.mjs';
import { readAll, readShown, readWithoutScripts, useKeyboard } from './pages.mjs';

async function tryOutAll() {
  // Every operation, and then a second time.
  await tryOut({ width: 1280, scheme: 'light', isWalked: true });
  await tryOut({ width: 375, scheme: 'dark', isWalked: true });
  await tryOut({ width: 1280, scheme: 'dark', isWalked: false });
  await tryOut({ width: 375, scheme: 'light', isWalked: false });
}

async function readPages() {
  for (const width of [1280, 375]) {
    for (const scheme of ['light', 'dark']) await readShown({ width, scheme });
  }
  await readAll({ width: 1280, scheme: 'light' });
  await readAll({ width: 375, scheme: 'dark' });
  await useKeyboard();
  await readWithoutScripts();
}

async function useDashboards() {
  for (const scheme of ['light', 'dark']) await useDashboard({ width: 1280, scheme });
  await useDashboard({ width: 375, scheme: 'dark' });
  await useDashboard({ width: 375, scheme: 'light', javaScriptEnabled: false });
}

try {
  // Two at a time: a browser waits for the server as long as the server for the browser.
  await Promise.all([tryOutAll(), readPages().then(useDashboards)]);
} finally {
  await close();
}

if (faults.length > 0) {
  console.error(`${base}:\n${faults.map((fault) => `- ${fault}`).join('\n')}`);
  process.exit(1);
}
