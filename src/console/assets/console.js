// Enhances the console by data- attributes. Every page also works without it; it holds no words and loads nothing.
(() => {
  "use strict";
  const root = document.documentElement;
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (type, act, options) => document.addEventListener(type, act, options);

  // What changed on the page is told to screen readers here.
  const said = Object.assign(document.createElement("div"), { className: "visually-hidden", role: "status" });
  document.body.append(said);
  const say = (text) => { said.textContent = ""; setTimeout(() => { said.textContent = text; }, 60); };

  // Regions: one part of the page is replaced by the same part of a fresh one.
  const isBox = (field) => field.type === "checkbox" || field.type === "radio";
  const keyOf = (node) => node.id ||
    [node.tagName, node.name, isBox(node) && node.value, node.getAttribute("form"), node.getAttribute("href"),
      node.getAttribute("aria-label") || node.textContent.slice(0, 60)].join("|");
  const isTyped = (field) => isBox(field) ? field.checked !== field.defaultChecked
    : field.type !== "file" && field.type !== "hidden" && field.value !== (field.defaultValue ??
      (one("option[selected]", field) ?? field.options[0])?.value);
  const parsed = (text) => new DOMParser().parseFromString(text, "text/html");
  const swap = (id, text) => {
    const [old, fresh] = [document, parsed(text)].map((page) => page.getElementById(id));
    if (!old || !fresh) return false;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const range = focused && "selectionStart" in focused && [focused.selectionStart, focused.selectionEnd];
    const typed = all("input, textarea, select", old).filter(isTyped);
    const open = new Set(all("details[open] > summary", old).map(keyOf));
    const sideways = all(".scroll", old).map((box) => box.scrollLeft);
    old.replaceWith(document.adoptNode(fresh));
    const found = new Map(all("input, textarea, select, a, button, summary", fresh).map((node) => [keyOf(node), node]));
    for (const field of typed) {
      const same = found.get(keyOf(field));
      if (same) isBox(field) ? same.checked = field.checked : same.value = field.value;
    }
    for (const key of open) if (found.has(key)) found.get(key).parentElement.open = true;
    all(".scroll", fresh).forEach((box, n) => { box.scrollLeft = sideways[n] ?? 0; });
    if (focused) {
      fresh.tabIndex = -1;
      const same = found.get(keyOf(focused)) ?? fresh;
      same.focus({ preventScroll: true });
      if (range && range[0] !== null) same.setSelectionRange?.(...range);
    }
    ready(fresh);
    return true;
  };
  const [running, waits] = [new WeakMap(), new WeakMap()];
  const ask = (owner, url) => {
    running.get(owner)?.abort();
    running.set(owner, new AbortController());
    return fetch(url, { signal: running.get(owner).signal, headers: { Accept: "text/html" } });
  };
  // data-live: a GET form whose answer replaces the region that it names.
  const addressOf = (form) => {
    const url = new URL(form.getAttribute("action") || location.href, location.href);
    url.search = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    return url;
  };
  const live = async (form) => {
    const [url, id] = [addressOf(form), form.dataset.live];
    document.getElementById(id)?.setAttribute("aria-busy", "true");
    try {
      const answer = await ask(form, url);
      const strayed = new URL(answer.url).pathname !== url.pathname;
      if (strayed || answer.status >= 500 || !swap(id, await answer.text())) return location.assign(url);
      if (!form.closest("dialog")) history.replaceState(history.state, "", url);
      const told = one("[data-announce], .empty h2", document.getElementById(id));
      if (told) say(told.textContent);
      return true;
    } catch (fault) {
      if (fault.name !== "AbortError") location.assign(url);
    }
  };
  const later = (owner, ms, act) => { clearTimeout(waits.get(owner)); waits.set(owner, setTimeout(act, ms)); };
  on("input", ({ target, isComposing }) => {
    if (isComposing) return;
    const { form } = target;
    if (form?.dataset.live && target.matches("input:not([type=checkbox], [type=radio], [data-picker]), textarea")) later(form, 180, () => live(form));
    if (target.dataset.picker) later(target, 150, () => pick(target));
    if ("filter" in target.dataset) narrow(target);
    if (form && "guard" in form.dataset) unsaved.add(form);
  });
  on("compositionend", ({ target }) => target.dispatchEvent(new Event("input", { bubbles: true })));
  on("change", ({ target }) => {
    const form = target.form;
    if (target.matches(".cell")) target.closest("td")?.classList.toggle("changed", target.checked !== target.defaultChecked);
    if (target.matches(".fold")) rove(target.closest(".grid"));
    if (form?.dataset.bulk) count(form, target);
    if (form && "autosubmit" in form.dataset && target.matches("select, [type=checkbox], [type=radio], [type=date], [data-picker]")) form.requestSubmit();
  });
  on("submit", (event) => {
    const form = event.target;
    unsaved.delete(form);
    if (!form.dataset.live) return;
    event.preventDefault();
    clearTimeout(waits.get(form));
    const done = live(form);
    if (palette?.contains(form)) done.then((isDone) => isDone && hits()[1]?.click());
  });
  // data-palette: opens the search in a dialog. Arrow keys move to what was found, Enter opens the first of it.
  const palette = document.getElementById("palette");
  const hits = () => all("input[type=search], .region a", palette);
  const summon = (event) => {
    event.preventDefault();
    if (!palette) return one("[data-search]")?.focus();
    if (!palette.open) palette.showModal();
    for (const act of ["focus", "select"]) hits()[0][act]();
  };
  // data-poll: a region that asks again, until its fresh one no longer wants to; it rests while the page is hidden.
  const poll = (region, ms) => setTimeout(async () => {
    if (!region.isConnected) return;
    if (document.hidden) return on("visibilitychange", () => poll(region, 0), { once: true });
    try {
      const answer = await ask(region, region.dataset.pollHref || location.href);
      if (answer.redirected) return location.reload();
      if (answer.ok && swap(region.id, await answer.text())) return;
    } catch { /* the next one may succeed */ }
    poll(region, Math.min(Math.max(ms, 500) * 2, 30000));
  }, ms);
  // data-picker: suggestions for a field, from an address that answers with options.
  const pick = async (field) => {
    const url = new URL(field.dataset.picker, location.href);
    url.searchParams.set("q", field.value);
    try {
      const answer = await ask(field, url);
      if (answer.ok && field.list) field.list.replaceChildren(...all("option", parsed(await answer.text())));
    } catch { /* it stays a field */ }
  };
  // data-filter: hides what does not match in the list after it.
  const narrow = (field) => {
    const wanted = field.value.trim().toLowerCase();
    for (const entry of document.getElementById(field.dataset.filter)?.children ?? []) entry.hidden = !entry.textContent.toLowerCase().includes(wanted);
  };
  // data-bulk: how many rows are selected.
  const count = (form, changed) => {
    const boxes = [...form.elements].filter((field) => field.type === "checkbox" && !("all" in field.dataset));
    const whole = one("[data-all]", form);
    if (changed && changed === whole) for (const box of boxes) box.checked = whole.checked;
    const number = boxes.filter((box) => box.checked).length;
    if (whole) [whole.checked, whole.indeterminate] = [number > 0 && number === boxes.length, number > 0 && number < boxes.length];
    one("[data-count]", form).textContent = form.dataset.bulk.replace("{}", number);
    for (const act of all("button", form)) act.disabled = number === 0;
    form.classList.toggle("some", number > 0);
  };
  // data-guard: asks before typed text is lost.
  const unsaved = new Set();
  addEventListener("beforeunload", (event) => { if ([...unsaved].some((form) => form.isConnected)) event.preventDefault(); });
  // data-copy: copies the code beside the button.
  const copy = async (button) => {
    const code = one("code", button.parentElement);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch { // plain http has no clipboard
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    const label = one("span", button) ?? {}, text = label.textContent;
    button.classList.add("done");
    say(label.textContent = button.dataset.done);
    setTimeout(() => { button.classList.remove("done"); label.textContent = text; }, 2000);
  };
  // data-local-time: the reader's own time, or how long ago.
  const [units, words] = [[["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]], new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "auto" })];
  const localize = (time) => {
    const at = new Date(time.dateTime);
    const full = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace("T", " ");
    const seconds = (at - Date.now()) / 1000;
    const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
    const isNear = time.dataset.localTime === "ago" && Math.abs(seconds) < 30 * 86400;
    time.title ||= isNear ? `${full} · ${time.textContent}` : time.textContent;
    time.textContent = isNear ? words.format(Math.trunc(seconds / size), unit) : full;
  };
  setInterval(() => { if (!document.hidden) all("time[data-local-time=ago]").forEach(localize); }, 60000);

  // Grids: arrow keys move between the checkboxes, and one of them is in the order of Tab.
  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const rove = (grid, to) => {
    const boxes = all(".cell:not(:disabled)", grid);
    const chosen = to ?? boxes.find((box) => box.checkVisibility());
    for (const box of boxes) box.tabIndex = box === chosen ? 0 : -1;
    return chosen;
  };
  const move = (event, box) => {
    const [down, right] = ways[event.key];
    const rows = [...box.closest("table").rows].filter((row) => row.checkVisibility());
    let [next, at, cell] = [null, rows.indexOf(box.closest("tr")) + down, box.closest("td").cellIndex + right];
    for (; !next && rows[at]?.cells[cell]; at += down, cell += right) next = one(".cell:not(:disabled)", rows[at].cells[cell]);
    event.preventDefault();
    if (!next?.checkVisibility()) return;
    rove(box.closest(".grid"), next).focus();
  };
  // Keys: `/` searches, data-keys follow their links. `data-no-keys` on the page turns them off.
  const isTyping = (node) => node.isContentEditable || node.matches("textarea, select, input:not([type=checkbox], [type=radio])");
  let begun = "";
  const keys = (event) => {
    const { key, target } = event;
    if ("noKeys" in root.dataset || event.isComposing || event.altKey) return;
    if (event.ctrlKey || event.metaKey || isTyping(target) || one("dialog[open]")) return;
    const sequence = begun + key;
    const links = all("[data-keys]");
    const link = links.find((link) => link.dataset.keys === sequence);
    begun = !link && links.some((link) => link.dataset.keys.startsWith(`${sequence} `)) ? `${sequence} ` : "";
    later(root, 1200, () => { begun = ""; });
    const search = key === "/" && one("main [data-search]");
    if (link) link.click();
    else if (search) { event.preventDefault(); search.focus(); search.select(); }
  };
  const drops = "details.menu[open], details.switcher[open], details.account[open], .filters > details[open]";
  on("keydown", (event) => {
    const { key, target } = event;
    if (key === "Escape") for (const drop of all(drops)) {
      if (drop.contains(document.activeElement)) one("summary", drop).focus();
      drop.open = false;
    }
    if (key?.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) return summon(event);
    if (palette?.open && ways[key]?.[0]) {
      event.preventDefault();
      hits()[hits().indexOf(document.activeElement) + ways[key][0]]?.focus();
    }
    if (ways[key] && target.matches(".grid .cell")) return move(event, target);
    keys(event);
  });
  on("click", (event) => {
    for (const drop of all(drops)) if (!drop.contains(event.target)) drop.open = false;
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    if (event.target === palette) palette.close();
    if (palette && event.target.closest("[data-palette]") && !event.ctrlKey && !event.metaKey && !event.shiftKey) summon(event);
  });
  // data-drop: sends a file that is dropped anywhere on the page.
  const dropped = (event, field = one("[data-drop] [type=file]")) => field && event.dataTransfer.types.includes("Files") && (event.preventDefault(), field);
  on("dragover", (event) => dropped(event));
  on("drop", (event) => { const field = dropped(event); if (field) { field.files = event.dataTransfer.files; field.form.requestSubmit(); } });
  const ready = (within) => {
    all("time[data-local-time]", within).forEach(localize);
    for (const form of all("form[data-bulk]")) count(form);
    for (const grid of all(".grid", within)) rove(grid);
    for (const region of [within, ...all("[data-poll]", within)]) if (region.dataset?.poll) poll(region, Number(region.dataset.poll));
  };
  ready(document);
  one("[data-focus]")?.focus();
  // data-fragment: a form that sends values of the address's fragment, which no server sees.
  const sent = one("form[data-fragment]"), given = new URLSearchParams(location.hash.slice(1));
  if (sent && given.has(sent.dataset.fragment)) {
    history.replaceState(null, "", location.pathname + location.search);
    for (const field of sent.elements) field.value = given.get(field.name) ?? field.value;
    sent.submit();
  }
})();
