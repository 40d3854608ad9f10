// A button that copies each sample. Without scripts the page is the same, without the buttons.
'use strict';

(() => {
  const select = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  const copy = async (code, button) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = 'Copied';
    } catch {
      // Browsers give no clipboard to plain http: the sample is selected, and the keyboard copies it.
      select(code);
      button.textContent = 'Selected';
    }
    setTimeout(() => (button.textContent = 'Copy'), 2000);
  };
  for (const code of document.querySelectorAll('pre > code')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'copy';
    button.textContent = 'Copy';
    button.setAttribute('aria-live', 'polite');
    button.addEventListener('click', () => copy(code, button));
    const sample = code.parentElement;
    const box = document.createElement('div');
    box.className = 'code';
    sample.replaceWith(box);
    box.append(sample, button);
  }
})();
