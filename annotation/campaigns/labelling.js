/* The labelling page of a campaign in Label Studio: real pixels, comparison with the source, progress, and answers that
 * are not lost. Label Studio's server adds this file to its pages (infra/label_studio). It changes nothing but a page
 * whose labelling config has the class `el-scripted` (labelling.py); without it such a page works by styles alone.
 *
 * Label Studio draws the controls and keeps the answers. This script fills the config's empty views (`el-tools`,
 * `el-viewer`), and reads the task from `window.Htx`, Label Studio's store of the page. Texts of tasks are only ever set
 * as text, and only this server is asked. All state is `page`, made anew for each task.
 */
(() => {
  "use strict";

  const MODES = ["flicker", "difference", "overlay"];
  const RATING_KEYS = /^[1-4qwerasdfzxcv7890uiophjkl]$/;
  const REASON_KEYS = /^[btnm]$/;
  const TINY = 128; // pixels: smaller pictures fill their box, larger ones are never enlarged to fit
  const LARGEST = 16; // screen pixels a picture's pixel
  const STEP = 1.25; // of zoom, a key or a notch of the wheel
  const SHARP = 2; // from this scale on, pixels are drawn as squares
  const CLICK = 4; // pixels: a pointer that moves less has clicked
  const GAP = { x: 10, y: 6 }; // pixels, as in labelling.css, like the next three
  const TITLE = 19;
  const FEET = { one: 117, several: 65, touch: 131 };
  const NARROWEST = 300; // for both axes side by side
  const PAGES_AHEAD = 2;
  const KEPT_DAYS = 14; // as long as a session of Label Studio

  let page = null;
  let sending = 0; // task whose answer is on its way

  // ---------------------------------------------------------------------------------------------- elements and words

  function element(name, properties = {}, ...children) {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  }

  function button(label, key, action, properties = {}) {
    const node = element("button", { type: "button", className: "el-button", ...properties }, label);
    if (key) node.append(" ", element("kbd", { textContent: key }));
    if (action) node.addEventListener("click", () => (action(), node.blur()));
    return node;
  }

  function percent(scale) {
    const value = 100 * scale;
    return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
  }

  // ------------------------------------------------------------------------------------------------- Label Studio's API

  const project = () => location.pathname.match(/\/projects\/(\d+)/)?.[1];
  const user = () => window.APP_SETTINGS?.user?.id;
  const plainFetch = window.fetch.bind(window);

  async function ask(path, parameters) {
    const reply = await plainFetch(`${window.APP_SETTINGS?.hostname ?? ""}${path}?${new URLSearchParams(parameters)}`);
    if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
    return reply.json();
  }

  function findTasks(count, ...items) {
    const query = { filters: { conjunction: "and", items }, ordering: ["tasks:id"] };
    const parameters = { project: project(), page_size: count, fields: "task_only", query: JSON.stringify(query) };
    return ask("/api/tasks", parameters).then((reply) => reply.tasks);
  }

  const filter = (column, operator, type, value) => ({ filter: `filter:tasks:${column}`, operator, type, value });

  /* Whether this person has answered the page already; false where that is not known. */
  function isAnswered(task) {
    const mine = filter("annotators", "contains", "List", user());
    return findTasks(1, filter("id", "equal", "Number", task), mine).then((tasks) => tasks.length > 0, () => false);
  }

  /* Label Studio's own requests pass here. An answer that is already given elsewhere is not sent a second time unasked,
   * and where Label Studio would leave the page with its ratings, logged out (401) or without a connection, it is told of
   * a failure at which it stays. */
  window.fetch = async (...request) => {
    const url = new URL(request[0]?.url ?? request[0], location.href);
    const method = (request[1]?.method ?? request[0]?.method ?? "GET").toUpperCase();
    const task = method === "POST" && page && url.pathname.match(/\/api\/tasks\/(\d+)\/annotations\/?$/)?.[1];
    if (task) {
      if (!page.sendsAgain && (await page.answered)) return refuse(answeredElsewhere);
      keepAnswers();
      sending = Number(task);
      page.later.abort();
      if (page.sendsAgain) request[1] = { ...request[1], body: withoutLock(request[1].body) };
    }
    let reply;
    try {
      reply = await plainFetch(...request);
    } catch (error) {
      if (task) return refuse(unreachable);
      throw error;
    } finally {
      if (task) sending = 0;
    }
    if (task && reply.ok) sent(Number(task));
    else if (task && reply.status === 404) notify(taskIsGone);
    else if (task && reply.status === 409) notify(answeredElsewhere);
    else if (page && reply.status === 401) return refuse(loggedOut);
    else if (task) notify(unreachable);
    return reply;
  };

  /* Label Studio takes one answer for each time that it served a page; a second one of the same person counts instead. */
  function withoutLock(body) {
    return JSON.stringify({ ...JSON.parse(body), unique_id: undefined });
  }

  function refuse(notice) {
    notify(notice);
    return new Response("{}", { status: 503, headers: { "Content-Type": "application/json" } });
  }

  // ------------------------------------------------------------------------------------------------------------ notices

  const channel = new BroadcastChannel("editloop");
  channel.onmessage = ({ data }) => {
    if (page && data.user === user() && data.task === page.task.id) notify(answeredElsewhere);
  };

  function loggedOut() {
    const login = () => window.open(`${window.APP_SETTINGS?.hostname ?? ""}/user/login/`, "_blank", "noopener");
    return ["You are logged out: the session has ended. Your ratings stay here. Log in, come back and submit.",
      button("Log in", null, login), button("I am logged in", null, dismiss)];
  }

  function answeredElsewhere() {
    const again = () => {
      dismiss();
      page.sendsAgain = true;
      submitButton()?.click();
    };
    const next = () => (forget(page.task.id), location.reload());
    return ["You answered this page already, in another window. These ratings were not sent.",
      button("Next page", null, next), button("Send these instead", null, again)];
  }

  function taskIsGone() {
    return ["This page is no longer in the campaign. Your ratings of it are not needed.",
      button("Next page", null, () => (forget(page.task.id), location.reload()))];
  }

  function unreachable() {
    return ["Label Studio did not take the ratings. They stay here: submit again in a moment.",
      button("Submit again", null, () => (dismiss(), submitButton()?.click()))];
  }

  function restored() {
    return ["Your ratings of this page were kept in this browser and are back.", button("OK", null, dismiss)];
  }

  function notify(notice) {
    if (!page) return;
    const [text, ...buttons] = notice();
    page.notice.replaceChildren(element("span", { textContent: text }), ...buttons);
    page.notice.hidden = false;
    page.notice.toggleAttribute("data-restored", notice === restored);
  }

  function dismiss() {
    page.notice.hidden = true;
  }

  // ------------------------------------------------------------------------------------------------------------ answers

  const inputs = (from) => [...from.querySelectorAll("input[type=radio], input[type=checkbox]")];
  /* What Label Studio shows as chosen: a radio's own `checked` is of one group for both axes of an edit. */
  const isChosen = (input) => input.parentElement.matches(".ant-radio-checked, .ant-checkbox-checked");
  const isSkipped = () => inputs(page.root.querySelector(".el-cannot")).some(isChosen);
  const submitButton = () => document.querySelector("button[name=submit]");
  const keptUnder = (task) => `editloop:${user()}:${project()}:${task}`;

  /* In this browser until they are sent: Label Studio's own drafts do not outlive a session. Nothing is kept after an
   * answer was sent and until its notice is dismissed: Label Studio draws the controls anew then, with ratings missing. */
  function keepAnswers() {
    const isUnsent = !page.notice.hidden && !page.notice.hasAttribute("data-restored");
    if (sending === page.task.id || isUnsent) return;
    const checked = inputs(page.root).map(isChosen);
    const key = keptUnder(page.task.id);
    const isComplete = isSkipped() || checked.filter(Boolean).length === 2 * page.tiles.filter((tile) => tile.base).length;
    if (isComplete) page.answered ??= isAnswered(page.task.id); // before Submit waits for it
    if (!checked.some(Boolean)) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify({ time: Date.now(), checked }));
  }

  function forget(task) {
    localStorage.removeItem(keptUnder(task));
  }

  function restoreAnswers() {
    for (const key of Object.keys(localStorage).filter((name) => /^editloop:.*\d$/.test(name)))
      if (Date.now() - JSON.parse(localStorage.getItem(key)).time > KEPT_DAYS * 86_400_000) localStorage.removeItem(key);
    const kept = JSON.parse(localStorage.getItem(keptUnder(page.task.id)) ?? "null");
    const controls = inputs(page.root);
    const count = kept?.checked.filter(Boolean).length ?? 0; // Label Studio's own draft may be older and have less
    if (kept?.checked.length !== controls.length || controls.filter(isChosen).length >= count) return;
    controls.filter((input, index) => kept.checked[index] && !isChosen(input)).forEach((input) => input.click());
    notify(restored);
  }

  function sent(task) {
    forget(task);
    channel.postMessage({ user: user(), task });
    if (page.task.id !== task) return;
    page.isSent = true;
  }

  /* Ratings count once all pictures are shown; a reason why the page cannot be judged counts always. */
  function whyNot() {
    if (page.isSent) return "Sent. The next page is coming.";
    const failed = page.tiles.filter((tile) => tile.failed).map((tile) => tile.title);
    if (failed.length) return `${failed.join(", ")}: does not load. Reload the page, or press N and submit.`;
    const missing = page.tiles.filter((tile) => !tile.shown).length;
    return missing ? `${missing} of ${page.tiles.length} pictures are still loading: ratings count once all are shown.` : "";
  }

  function refuses(event, isReason) {
    const why = isReason ? (page.isSent ? whyNot() : "") : whyNot();
    if (!why) return false;
    event.preventDefault();
    event.stopImmediatePropagation();
    page.status.textContent = why;
    page.status.classList.add("el-alert");
    return true;
  }

  // ----------------------------------------------------------------------------------------------------------- pictures

  /* How far pictures are zoomed, and where: screen pixels a picture's pixel (null: it just fits), and a point in parts
   * of width and height. The source and its edits have one view; each reference, whose pixels are of another scene, has
   * its own. */
  const newView = () => ({ scale: null, centre: { x: 0.5, y: 0.5 } });

  /* One picture of the page. `name` is its object's in the config: original, reference_2 .., image_1 .. */
  class Tile {
    constructor(box, name, data, source, before) {
      this.box = box;
      this.name = name;
      const [kind, number] = name.split("_");
      this.number = Number(number ?? 0);
      this.title = { original: "Source", reference: `Image ${number}`, image: `Edit ${number}` }[kind];
      this.view = kind === "reference" ? newView() : page.view;
      this.small = data[name];
      this.full = data[`${name}_full`] ?? data[name];
      [this.width, this.height] = (data[`${name}_size`] ?? "0x0").split("x").map(Number);
      this.picture = before?.picture ?? new Layer("el-edit", this.title, this.small, this.full);
      this.base = kind === "image" ? (before?.base ?? new Layer("el-base", "", source.small, source.full)) : null;
      this.frame = element("div", { className: "el-frame" }, this.picture.image, ...(this.base ? [this.base.image] : []));
      this.label = element("span", { className: "el-scale" });
      this.viewer = box.querySelector(".el-viewer");
      this.viewer.replaceChildren(this.frame, this.label);
      Object.assign(this.viewer, { tabIndex: 0, role: "button", ariaLabel: `${this.title}, large` });
      this.pointers = new Map();
      this.listen();
    }

    async load() {
      try {
        this.base?.load().catch(() => {}); // the source's own tile says it
        await this.picture.load();
        this.width ||= this.picture.image.naturalWidth;
        this.height ||= this.picture.image.naturalHeight;
        this.shown = true;
      } catch {
        this.failed = true;
        this.label.textContent = "does not load";
      }
    }

    /* The scale, in screen pixels a picture's pixel, at which the picture just fits. */
    fit() {
      const ratio = window.devicePixelRatio;
      const scale = Math.min(this.viewer.clientWidth / this.width, this.viewer.clientHeight / this.height) * ratio;
      return Math.max(this.width, this.height) > TINY ? Math.min(1, scale) : scale;
    }

    draw() {
      if (!this.shown || !this.viewer.clientWidth) return;
      const ratio = window.devicePixelRatio;
      const scale = this.view.scale ?? this.fit();
      const [width, height] = [(this.width * scale) / ratio, (this.height * scale) / ratio];
      const place = (room, length, centre) => {
        const start =
          length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, room / 2 - centre * length));
        return Math.round(start * ratio) / ratio;
      };
      const x = place(this.viewer.clientWidth, width, this.view.centre.x);
      const y = place(this.viewer.clientHeight, height, this.view.centre.y);
      Object.assign(this.frame.style, { width: `${width}px`, height: `${height}px`, transform: `translate(${x}px, ${y}px)` });
      const isTiny = Math.max(this.width, this.height) <= TINY;
      this.frame.style.imageRendering = scale >= SHARP || isTiny ? "pixelated" : "auto";
      const waits = [this.picture, this.base].filter((layer) => layer?.needs(this.width * scale));
      waits.forEach((layer) => layer.loadFull().then(() => this.draw()));
      this.label.textContent =
        `${percent(scale)} of ${this.width} × ${this.height}` + (waits.length ? " · loading its pixels" : "");
      this.label.classList.toggle("el-enlarged", scale > 1 && !isTiny);
      this.viewer.style.touchAction = this.view.scale === null ? "pan-y" : "none";
      this.position = { x, y, width, height };
    }

    /* The point of the picture, in parts of its width and height, under a pointer. */
    pointAt(event) {
      const { left, top } = this.viewer.getBoundingClientRect();
      const { x, y, width, height } = this.position;
      return { x: (event.clientX - left - x) / width, y: (event.clientY - top - y) / height };
    }

    /* Zoom the pictures of this one's view so that the point under the pointer stays there in this one. */
    zoomAt(event, factor) {
      if (!this.position) return;
      const point = this.pointAt(event);
      const { left, top } = this.viewer.getBoundingClientRect();
      const scale = Math.min(LARGEST, (this.view.scale ?? this.fit()) * factor);
      const ratio = window.devicePixelRatio;
      this.view.centre = {
        x: point.x + (this.viewer.clientWidth / 2 - (event.clientX - left)) / ((this.width * scale) / ratio),
        y: point.y + (this.viewer.clientHeight / 2 - (event.clientY - top)) / ((this.height * scale) / ratio),
      };
      setScale(this.view, scale <= this.fit() ? null : scale);
    }

    panBy(x, y) {
      const { scale, centre } = this.view;
      if (!this.position || scale === null) return;
      setCentre(this.view, centre.x - x / this.position.width, centre.y - y / this.position.height);
    }

    listen() {
      const { viewer, pointers } = this;
      const toggle = () => enlarge(page.large === this ? null : this);
      viewer.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.zoomAt(event, STEP ** (-Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 50)));
      }, { passive: false });
      viewer.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        pointers.set(event.pointerId, event);
        this.moved = pointers.size > 1;
        viewer.setPointerCapture(event.pointerId);
      });
      viewer.addEventListener("pointermove", (event) => {
        const before = pointers.get(event.pointerId);
        if (!before) return;
        const move = [event.clientX - before.clientX, event.clientY - before.clientY];
        if (!this.moved && Math.hypot(...move) < CLICK) return;
        this.moved = true;
        if (pointers.size === 2) {
          const other = [...pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
          const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
          this.zoomAt(other, apart(event) / Math.max(1, apart(before)));
        } else this.panBy(...move);
        pointers.set(event.pointerId, event);
      });
      const end = (event) => {
        if (!pointers.delete(event.pointerId) || pointers.size) return;
        if (event.type === "pointerup" && !this.moved) toggle();
      };
      viewer.addEventListener("keydown", (event) => event.key === "Enter" && !event.ctrlKey && toggle());
      viewer.addEventListener("pointerup", end);
      viewer.addEventListener("pointercancel", end);
    }
  }

  /* An image on a tile: at first the display copy, the picture itself once its pixels are needed. */
  class Layer {
    constructor(className, alt, small, full) {
      this.image = element("img", { className, alt, draggable: false });
      Object.assign(this, { small, full, shows: small });
    }

    async load() {
      if (!this.image.src) this.image.src = this.small;
      await this.image.decode();
    }

    needs(width) {
      return this.shows !== this.full && width > this.image.naturalWidth;
    }

    loadFull() {
      this.loading ??= (async () => {
        const whole = element("img", { src: this.full });
        await whole.decode();
        this.image.src = this.full;
        await this.image.decode();
        this.shows = this.full;
      })();
      return this.loading.catch(() => (this.loading = null));
    }
  }

  /* Choose the columns in which the pictures are largest. References share one place, below each other. */
  function arrange() {
    const [{ width, height }] = page.tiles;
    const { clientWidth, clientHeight } = page.pictures;
    if (!width || !clientWidth) return;
    const references = page.tiles.filter((tile) => tile.name.startsWith("reference"));
    const count = page.tiles.length - Math.max(0, references.length - 1);
    const isTouch = matchMedia("(max-width: 1000px), (pointer: coarse)").matches;
    let best = { scale: 0 };
    for (let rows = 1; rows <= count; rows++) {
      const columns = Math.ceil(count / rows);
      const controls = TITLE + (isTouch ? FEET.touch : rows > 1 ? FEET.several : FEET.one);
      const [room, tall] = [(clientWidth + GAP.x) / columns - GAP.x, (clientHeight + GAP.y) / rows - GAP.y - controls];
      const scale = Math.min(room / width, tall / height);
      if (scale > 1.02 * best.scale && (rows === 1 || isTouch || room >= NARROWEST)) best = { scale, columns, rows };
    }
    if (!best.columns) return;
    page.root.style.setProperty("--el-columns", best.columns);
    page.root.dataset.rows = best.rows > 1 ? "several" : "one";
  }

  function draw(tiles = page.tiles) {
    if (tiles === page.tiles) arrange();
    tiles.forEach((tile) => tile.draw());
    const { scale } = viewed();
    const isFit = scale === null;
    page.tools.fit.setAttribute("aria-pressed", isFit);
    page.tools.real.setAttribute("aria-pressed", scale === 1);
    page.root.toggleAttribute("data-zoomed", !isFit);
  }

  /* The view that tools and keys change: of the picture that is shown large, else of the source and its edits. */
  const viewed = () => page.large?.view ?? page.view;

  function setScale(view, scale) {
    view.scale = scale;
    if (scale === null) view.centre = { x: 0.5, y: 0.5 };
    setCentre(view, view.centre.x, view.centre.y);
  }

  function setCentre(view, x, y) {
    const clamp = (value) => Math.min(1, Math.max(0, value));
    view.centre = { x: clamp(x), y: clamp(y) };
    draw();
  }

  function zoom(factor) {
    const [view, fit] = [viewed(), (page.large ?? page.tiles[0]).fit()];
    const scale = Math.min(LARGEST, (view.scale ?? fit) * factor);
    setScale(view, scale <= fit ? null : scale);
  }

  const fitView = () => setScale(viewed(), null);
  const toggleReal = () => setScale(viewed(), viewed().scale === 1 ? null : 1);

  function setMode(mode) {
    page.mode = page.mode === mode ? "" : mode;
    page.root.dataset.mode = page.mode;
    for (const name of MODES) page.tools[name].setAttribute("aria-pressed", page.mode === name);
    page.tools.share.hidden = page.mode !== "overlay";
  }

  function peek(isOn) {
    page.root.toggleAttribute("data-peek", isOn);
    page.tools.peek.setAttribute("aria-pressed", isOn);
  }

  /* Show one edit or reference large beside the source, the source alone over the whole width, or all pictures side by side. */
  function enlarge(tile) {
    page.large = tile;
    page.pictures.toggleAttribute("data-large", Boolean(tile));
    for (const other of page.tiles) other.box.closest(".el-tile").toggleAttribute("data-large", other === tile);
    draw();
  }

  function enlargeNext(step) {
    const first = page.tiles.findIndex((tile) => tile.base);
    const index = page.large ? page.tiles.indexOf(page.large) : step > 0 ? first - 1 : page.tiles.length;
    enlarge(page.tiles[index + step] ?? null);
  }

  // --------------------------------------------------------------------------------------------------------------- tools

  function makeTools() {
    const tools = {
      peek: button("Source", "Space"),
      flicker: button("Flicker", "G", () => setMode("flicker")),
      difference: button("Difference ×4", "5", () => setMode("difference")),
      overlay: button("Overlay", "6", () => setMode("overlay")),
      share: element("input", { type: "range", className: "el-share", min: 0, max: 100, value: 50, hidden: true }),
      out: button("−", null, () => zoom(1 / STEP), { title: "Smaller (−)" }),
      fit: button("Fit", "Esc", fitView),
      real: button("1:1", "Y", toggleReal),
      in: button("+", null, () => zoom(STEP), { title: "Larger (+)" }),
      guidelines: button("Guidelines", "?", () => window.Htx.toggleDescription()),
    };
    tools.share.setAttribute("aria-label", "Share of the source in the overlay");
    tools.out.setAttribute("aria-label", "Zoom out");
    tools.in.setAttribute("aria-label", "Zoom in");
    tools.peek.title = "Hold to see the source in each edit's place";
    tools.share.addEventListener("input", () => page.root.style.setProperty("--el-share", tools.share.value / 100));
    tools.peek.addEventListener("pointerdown", () => peek(true));
    for (const type of ["pointerup", "pointerleave", "pointercancel"])
      tools.peek.addEventListener(type, () => peek(false));
    return tools;
  }

  async function showProgress(shownPage) {
    const counts = await ask(`/api/projects/${project()}`, { include: "queue_total,queue_done" });
    const { queue_total: total, queue_done: done } = counts;
    shownPage.progress.textContent = `${total - done} of ${total} left for you`;
  }

  /* Fetch what will be shown next: the display copies of the pages ahead, then the pixels of this page's pictures. What
   * Label Studio's server says of its cache lets the next page find them there. */
  async function fetchAhead(shownPage) {
    const { signal } = shownPage.later;
    const get = (url) => plainFetch(url, { signal, priority: "low" }).then((reply) => reply.blob());
    const others = filter("annotators", "not_contains", "List", user());
    const open = await findTasks(PAGES_AHEAD + 1, others, filter("completed_at", "empty", "Datetime", "true"));
    for (const { data } of open.filter((task) => task.id !== shownPage.task.id).slice(0, PAGES_AHEAD)) {
      const names = Object.keys(data).filter((name) => /^(original|(reference|image)_\d)$/.test(name));
      await Promise.all(names.filter((name) => data[name]).map((name) => get(data[name])));
    }
    if (navigator.connection?.saveData) return;
    for (const tile of shownPage.tiles) if (tile.full !== tile.small) await get(tile.full);
  }

  // ---------------------------------------------------------------------------------------------------------- guidelines

  const readUnder = () => `editloop:${user()}:${project()}:read`;

  /* Label Studio shows the guidelines at each start; here once for each version. They stay at hand behind `?`. */
  function closeKnownGuidelines() {
    const text = document.querySelector(".lsf-modal-ls .el-guidelines")?.textContent;
    if (!text || closeKnownGuidelines.isOpen) return;
    closeKnownGuidelines.isOpen = true;
    const modal = document.querySelector(".lsf-modal-ls:has(.el-guidelines)");
    if (localStorage.getItem(readUnder()) === text) modal.click();
    else localStorage.setItem(readUnder(), text);
  }

  const dialog = () => document.querySelector(".lsf-modal-ls_visible, .ant-modal-wrap:not([style*='display: none'])");

  // ---------------------------------------------------------------------------------------------------------------- keys

  const isTyping = (target) => target.matches?.("textarea, input:not([type=radio], [type=checkbox], [type=range])");
  const ARROWS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

  function onKey(event) {
    if (!page?.root.isConnected) return;
    const isSubmit = (event.ctrlKey || event.metaKey) && event.key === "Enter";
    if (isSubmit && isTyping(event.target)) return event.preventDefault(), submitButton()?.click();
    if (isSubmit) return submits(event);
    if (isTyping(event.target) && event.key === "Escape") event.target.blur();
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = keyOf(event);
    if (dialog()) {
      if (RATING_KEYS.test(key) || REASON_KEYS.test(key)) event.stopImmediatePropagation();
      return;
    }
    if (event.key === " " && event.target.matches?.(":focus-visible:is(button, input)")) return; // it presses that one
    if (event.target.matches?.("input")) event.target.blur(); // else Label Studio takes no keys after a click on a rating
    const act = ACTIONS[event.key] ?? ACTIONS[key];
    if (act) {
      event.preventDefault();
      event.stopImmediatePropagation();
      act(event);
    } else if (RATING_KEYS.test(key)) refuses(event);
    else if (REASON_KEYS.test(key) && !refuses(event, true))
      setTimeout(() => page.root.querySelector(".el-note textarea")?.focus()); // once Label Studio shows it
  }

  /* Label Studio takes a note with Shift Enter alone: what is typed is taken before it submits. */
  function submits(event) {
    if (!isSkipped() && refuses(event)) return;
    const note = page.root.querySelector(".el-note textarea");
    if (note?.value) note.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", shiftKey: true, bubbles: true }));
  }

  /* The key by its place's letter or digit, whether with Shift or not. */
  function keyOf(event) {
    if (/^Digit\d$/.test(event.code)) return event.code[5];
    return event.key.toLowerCase();
  }

  const ACTIONS = {
    " ": () => peek(true),
    g: () => setMode("flicker"),
    5: () => setMode("difference"),
    6: () => setMode("overlay"),
    y: toggleReal,
    "+": () => zoom(STEP),
    "=": () => zoom(STEP),
    "-": () => zoom(1 / STEP),
    "?": () => window.Htx.toggleDescription(),
    ".": () => enlargeNext(1),
    ",": () => enlargeNext(-1),
    Escape: () => {
      enlarge(null);
      if (page.mode) setMode(page.mode);
      for (const { view } of page.tiles) setScale(view, null);
    },
    ...Object.fromEntries(
      Object.entries(ARROWS).map(([key, move]) => [key, () => (page.large ?? page.tiles[0]).panBy(...move)]),
    ),
  };

  function onClick(event) {
    if (!page?.root.isConnected) return;
    if (event.target.closest?.("button[name=submit]")) submits(event);
    else if (event.target.closest?.(".el-axes") && page.root.contains(event.target)) refuses(event);
  }

  window.addEventListener("keydown", onKey, true);
  window.addEventListener("keyup", (event) => event.key === " " && page && peek(false), true);
  window.addEventListener("blur", () => page && peek(false));
  window.addEventListener("click", onClick, true);
  window.addEventListener("resize", () => page?.root.isConnected && draw());
  for (const type of ["keyup", "click"])
    window.addEventListener(type, () => page?.root.isConnected && !page.isSent && setTimeout(keepAnswers));
  document.addEventListener("visibilitychange", async () => {
    if (!document.hidden && page && !page.isSent && (await isAnswered(page.task.id))) notify(answeredElsewhere);
  });

  // ---------------------------------------------------------------------------------------------------------- a new page

  /* Names that Label Studio leaves out, for screen readers. */
  function nameControls() {
    for (const group of page.root.querySelectorAll(".lsf-choices")) {
      const title = group.closest(".el-axis, .el-cannot").querySelector("h4").textContent;
      const tile = group.closest(".el-tile:not(.el-source)")?.querySelector("h4").textContent;
      group.setAttribute("role", group.closest(".el-cannot") ? "group" : "radiogroup");
      group.setAttribute("aria-label", tile ? `${title} of ${tile.toLowerCase()}` : title);
    }
  }

  /* The names of the pictures' objects in the config, from the kinds of their tiles and their order. */
  function namePictures(boxes) {
    const next = { reference: 2, image: 1 };
    return boxes.map((box) => {
      const tile = box.closest(".el-tile");
      if (tile.matches(".el-source")) return "original";
      const kind = tile.matches(".el-reference") ? "reference" : "image";
      return `${kind}_${next[kind]++}`;
    });
  }

  async function open(root) {
    page?.later.abort();
    const task = window.Htx.task;
    const data = { ...task.dataObj };
    const tools = makeTools();
    const before = page?.task.id === Number(task.id) ? page : null; // Label Studio draws a page anew, after a failure say
    page = {
      root, task: { id: Number(task.id) }, tools, mode: "", view: newView(), large: null,
      sendsAgain: before?.sendsAgain, answered: before?.answered,
      pictures: root.querySelector(".el-pictures"),
      progress: element("span", { className: "el-progress" }),
      status: element("span", { className: "el-status" }),
      notice: before?.notice ?? element("div", { className: "el-notice", hidden: true }),
      later: new AbortController(), tiles: [],
    };
    const shownPage = page;
    page.status.setAttribute("role", "status");
    page.notice.setAttribute("role", "alert");
    const toolbar = element("div", { className: "el-toolbar" }, ...Object.values(tools), page.status, page.progress);
    root.querySelector(".el-tools").replaceChildren(toolbar, page.notice);
    root.dataset.live = "";
    const boxes = [...root.querySelectorAll(".el-picture")];
    const names = namePictures(boxes);
    const filled = boxes.filter((box, index) => !(box.closest(".el-tile").hidden = !data[names[index]])); // fewer references
    for (const [index, box] of filled.entries())
      page.tiles.push(new Tile(box, names[boxes.indexOf(box)], data, page.tiles[0], before?.tiles[index]));
    nameControls();
    if (document.activeElement?.matches("button, input")) document.activeElement.blur(); // keys belong to the page
    new ResizeObserver(() => page === shownPage && draw()).observe(page.pictures);
    showProgress(shownPage).catch(() => {});
    const drawLoaded = (tile) => page === shownPage && draw(tile.number ? [tile] : page.tiles);
    await Promise.all(page.tiles.map((tile) => tile.load().then(() => drawLoaded(tile))));
    if (page !== shownPage) return;
    restoreAnswers();
    page.status.classList.remove("el-alert");
    page.status.textContent = page.tiles.some((tile) => tile.failed) ? whyNot() : "";
    root.toggleAttribute("data-shown", !whyNot());
    performance.mark("editloop-shown");
    fetchAhead(shownPage).catch(() => {});
  }

  new MutationObserver(() => {
    closeKnownGuidelines();
    const root = document.querySelector(".el-page.el-scripted");
    const task = window.Htx?.task;
    if (!root || !task?.id || !root.querySelector(".el-viewer")) return;
    const isSame = Number(task.id) === page?.task.id;
    if (!isSame || (root !== page.root && !page.isSent)) open(root); // Label Studio draws a sent page once more
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
