// What the browser tests ask of a page from inside: an expression whose value is an object of functions. The harness
// (tests/it/harness/browser.rs) runs it by WebDriver, which a page's Content-Security-Policy does not stop.
({
  // How a person finds an element: tag, name, text.
  describe(element) {
    const text = (element.getAttribute('aria-label') || element.innerText || element.value || '').trim().replace(/\s+/g, ' ');
    const name = element.getAttribute('name');
    const mark = name ? `[name=${name}]` : element.id ? `#${element.id}` : '';
    const says = mark || !text ? '' : ` "${text.slice(0, 40)}"`;
    return element.localName + mark + says;
  },

  focused() {
    const element = document.activeElement;
    return !element || element === document.body ? 'body' : this.describe(element);
  },

  // The visible button that says this, in `main` if there is one; or the element of this selector.
  button(what) {
    const BUTTONS = 'button, input[type=submit], input[type=button], [role=button], summary';
    const says = (button) => [button.innerText, button.localName === 'input' && button.value, button.getAttribute('aria-label')]
      .some((text) => text && text.trim().replace(/\s+/g, ' ') === what);
    const found = [...document.querySelectorAll(BUTTONS)].filter((button) => says(button) && this.isVisible(button));
    const inMain = found.find((button) => button.closest('main'));
    try {
      return inMain || found[0] || document.querySelector(what);
    } catch {
      return null; // The text is no selector.
    }
  },

  link(what) {
    return [...document.querySelectorAll('a[href]')].find((link) =>
      link.innerText.trim().replace(/\s+/g, ' ') === what && this.isVisible(link)) || null;
  },

  // How text comes into the field, or into one of several of the same name: by typing it into or clicking on `element`.
  // Fields whose keys depend on the language, such as dates, get their value here.
  entry(fields, text) {
    const [field] = fields;
    if (field.localName === 'select') {
      const option = [...field.options].find((option) => option.label.trim() === text || option.value === text);
      return option ? { how: option.selected ? 'done' : 'click', element: option } : null;
    }
    if (['radio', 'checkbox'].includes(field.type)) {
      const choice = fields.find((choice) => choice.value === text);
      return choice ? { how: choice.checked ? 'done' : 'click', element: choice } : null;
    }
    if (['date', 'time', 'datetime-local', 'month', 'week', 'color', 'range'].includes(field.type)) {
      field.value = text;
      for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, { bubbles: true }));
      return { how: 'done', element: field };
    }
    return { how: field.type === 'file' ? 'type' : 'replace', element: field };
  },

  leadsAway(link) {
    const [to, here] = [new URL(link.href), new URL(document.URL)];
    const isHere = link.hash !== '' && to.href.split('#')[0] === here.href.split('#')[0];
    return !isHere && !link.download && ['', '_self'].includes(link.target) && to.protocol.startsWith('http');
  },

  // Notes whether the click or key that follows on an element makes the browser leave the page. Where no scripts run, no
  // event tells of it, so it follows from the element.
  watch(element, isScriptOff) {
    const control = element.closest('a[href], button, input') || element;
    const form = control.type !== 'button' && control.type !== 'reset' && control.localName !== 'textarea' && control.form;
    const isSent = form && form.method !== 'dialog' && (form.noValidate || control.formNoValidate || form.checkValidity());
    window.rosterIsLeaving = isScriptOff && Boolean(isSent || (control.localName === 'a' && this.leadsAway(control)));
    if (isScriptOff || window.rosterWatches) return;
    window.rosterWatches = true;
    addEventListener('submit', (event) => {
      if (!event.defaultPrevented && event.target.method !== 'dialog') window.rosterIsLeaving = true;
    });
    addEventListener('click', (event) => {
      const link = event.target.closest('a[href]');
      if (link && !event.defaultPrevented && this.leadsAway(link)) window.rosterIsLeaving = true;
    });
  },

  // The page that was left has gone, and this one is loaded.
  isSettled() {
    return !window.rosterIsLeaving && document.readyState === 'complete';
  },

  // Can be seen and has an area. What is clipped to one pixel, for screen readers, is not seen.
  isVisible(element) {
    const box = element.getBoundingClientRect();
    const isInside = box.right + scrollX > 0 && box.bottom + scrollY > 0;
    const look = getComputedStyle(element);
    const isClipped = look.clipPath !== 'none' || (look.clip !== 'auto' && look.position === 'absolute');
    return element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
      box.width > 1 && box.height > 1 && isInside && !isClipped;
  },

  overflows() {
    const root = document.documentElement;
    return Math.max(root.scrollWidth, document.body.scrollWidth) > root.clientWidth;
  },

  // The innermost elements that stick out of the window on the right, by their box or by the text in it, unless a box
  // scrolls or hides it.
  stickingOut() {
    const width = document.documentElement.clientWidth;
    const isHeld = (element) => element !== document.body &&
      (getComputedStyle(element).overflowX !== 'visible' || isHeld(element.parentElement));
    const end = (element) => {
      const box = element.getBoundingClientRect();
      return isHeld(element) ? box.right : Math.max(box.right, box.left + element.scrollWidth);
    };
    const wide = [...document.body.querySelectorAll('*')].filter((element) =>
      end(element) > width + 0.5 && !isHeld(element.parentElement) && this.isVisible(element));
    const innermost = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)));
    return innermost.map((element) => `${this.describe(element)} ends at ${Math.round(end(element))} of ${width} px`);
  },

  // Controls smaller than WCAG 2.5.8 asks. A link in a sentence is excepted; a label counts as part of its control.
  smallTargets() {
    const LEAST_PX = 24;
    const CONTROLS = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [role=button], [role=link], ' +
      '[role=tab], [role=checkbox], [role=switch], [role=menuitem], [role=option], [tabindex]:not([tabindex^="-"])';
    const isInSentence = (element) => {
      if (element.localName !== 'a' || getComputedStyle(element).display !== 'inline') return false;
      let block = element.parentElement;
      while (block && getComputedStyle(block).display === 'inline') block = block.parentElement;
      const around = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
      while (around.nextNode()) {
        const text = around.currentNode;
        if (!text.parentElement.closest('a') && text.data.trim() && this.isVisible(text.parentElement)) return true;
      }
      return false;
    };
    // A link or checkbox can cover the box around it.
    const covers = (element) => ['::before', '::after'].some((part) => {
      const style = getComputedStyle(element, part);
      return style.content !== 'none' && style.position === 'absolute' && style.inset === '0px';
    });
    const size = (element) => {
      const isChoice = ['checkbox', 'radio'].includes(element.type);
      const parts = [element, ...(isChoice ? element.labels : []), ...(element.offsetParent && covers(element) ? [element.offsetParent] : [])];
      const boxes = parts.map((part) => part.getBoundingClientRect());
      return [Math.max(...boxes.map((box) => box.width)), Math.max(...boxes.map((box) => box.height))];
    };
    const round = (px) => Math.round(px * 10) / 10;
    const small = [];
    for (const element of document.querySelectorAll(CONTROLS)) {
      const [width, height] = size(element);
      // What is disabled is no target.
      if (element.matches(':disabled')) continue;
      if (width >= LEAST_PX && height >= LEAST_PX || !this.isVisible(element) || isInSentence(element)) continue;
      small.push(`${this.describe(element)} is ${round(width)} × ${round(height)} px`);
    }
    return small;
  },

  // One line per element: the rule, its weight, what to do, the element. `kind` is `violations` or `incomplete`.
  async accessibility(kind) {
    const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const found = await axe.run(document, { runOnly: { type: 'tag', values: TAGS }, resultTypes: [kind] });
    return found[kind].flatMap((rule) => rule.nodes.map((node) =>
      `${rule.id} (${node.impact || rule.impact}): ${rule.help}: ${node.target.join(' ')}: ${node.html.slice(0, 200)}`));
  },
})
