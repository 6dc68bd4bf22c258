// The panel: what is seen, what the buttons ask for, and what comes of it.

const STATES = {
  live: "",
  quiet: "No news from the kernel: it is busy, or starting anew.",
  lost: "This panel has lost its kernel. Run this cell again.",
};
const NAME = "[A-Za-z0-9][A-Za-z0-9_.\\-]{0,127}";
const SETTLE = 250;
let count = 0;

class PanelView {
  constructor(model, root) {
    this.model = model;
    this.number = count++;
    this.questions = 0;
    this.mode = "made";
    this.line = new Line(model, (state) => this.showState(state));
    this.tree = new SnapshotTree((snapshot, isByUser) => this.chosen(snapshot, isByUser));
    this.charts = new Charts();
    this.build(root);
    this.listen();
    this.charts.begin(model.get("history") || []);
    this.showAbout();
    this.tree.draw(model.get("tree"));
    this.showLog();
    this.showBusy();
    this.aging = setInterval(() => this.tree.age(), 10000);
  }

  end() {
    this.line.end();
    clearInterval(this.aging);
    clearTimeout(this.settling);
  }

  // -- what is seen -------------------------------------------------------------------------------

  id(name) {
    return `nbhull-${this.number}-${name}`;
  }

  button(text, title, act, attributes = {}) {
    return make("button", { type: "button", class: "nbhull-button", title, on: { click: act }, ...attributes }, text);
  }

  build(root) {
    this.title = make("h2", { class: "nbhull-title", id: this.id("title") }, "Container");
    this.about = make("p", { class: "nbhull-about" });
    this.status = make("p", { class: "nbhull-status", role: "status" });
    this.log = make("div", { class: "nbhull-log", role: "log", "aria-label": "Log", tabindex: "0" });
    this.pane = make("div", { class: "nbhull-pane", role: "region", "aria-label": "Difference", tabindex: "0" });
    this.form = this.buildForm();
    this.undo = this.button("Undo reset", "Take the last reset back", () => this.askUndo());
    this.actions = this.buildActions();
    this.question = make("div", { class: "nbhull-question", hidden: true });
    this.section = make(
      "section", { class: "nbhull-panel", "aria-labelledby": this.id("title") },
      make("div", { class: "nbhull-head" }, make("div", {}, this.title, this.about), this.status),
      this.charts.element,
      make(
        "div", { class: "nbhull-body" },
        make("div", { class: "nbhull-left" }, this.form, this.tree.element),
        make("div", { class: "nbhull-right" },
          make("div", { class: "nbhull-bar" }, this.actions, this.question), this.pane),
      ),
      this.log,
    );
    root.replaceChildren(this.section);
  }

  buildForm() {
    const field = (name, label, attributes) => {
      this[name] = make("input", { id: this.id(name), class: "nbhull-input", ...attributes });
      return [make("label", { for: this.id(name), class: "nbhull-sr" }, label), this[name]];
    };
    const submit = make("button", { type: "submit", class: "nbhull-button nbhull-main" }, "Snapshot");
    this.memory = make("input", { type: "checkbox", id: this.id("memory") });
    return make(
      "form", { class: "nbhull-form", on: { submit: (event) => this.takeSnapshot(event) } },
      ...field("name", "Name of the snapshot", {
        placeholder: "name", pattern: NAME, maxlength: "128", autocomplete: "off", spellcheck: "false",
        title: "letters, digits, _ . -; empty for one that is made up",
      }),
      ...field("note", "Note on it", { placeholder: "note", maxlength: "1000", autocomplete: "off" }),
      make("label", { class: "nbhull-check", title: "and the variables, as they are when no cell runs" },
        this.memory, " memory"),
      submit,
    );
  }

  buildActions() {
    const mode = (name, text, title) => this.button(text, title, () => this.setMode(name), {
      "aria-pressed": name === this.mode ? "true" : "false", "data-mode": name,
    });
    this.modes = [
      mode("made", "Its changes", "What this snapshot changed from the one above it"),
      mode("now", "Until now", "What has changed from this snapshot until now"),
    ];
    this.reset = this.button("Reset", "Put the container back on this snapshot", () => this.askReset(), {
      class: "nbhull-button nbhull-main",
    });
    this.replay = this.button("Replay", "Run the cells since this snapshot again, in a fresh container, and compare",
      () => this.send({ do: "replay", name: this.refOf(this.current()) }));
    this.pin = this.button("Pin", "Never remove it without being asked", () => {
      const snapshot = this.current();
      this.send({ do: "annotate", image: snapshot.id, pin: !snapshot.pinned });
    });
    this.tag = this.button("Tag", "Give it one more name", () => this.askText("Tag", "", { pattern: NAME, required: true },
      (text) => ({ do: "tag", image: this.current().id, name: text })));
    this.remark = this.button("Note", "Write a note on it", () => this.askText("Note", this.current().note, {},
      (text) => ({ do: "annotate", image: this.current().id, note: text })));
    return make(
      "div", { class: "nbhull-actions", role: "group", "aria-label": "Chosen snapshot" },
      this.reset, this.undo, ...this.modes, this.replay, this.pin, this.tag, this.remark,
    );
  }

  listen() {
    const { model } = this;
    model.on("change:tree", () => {
      this.line.hear();
      this.tree.draw(model.get("tree"));
    });
    model.on("change:about", () => this.showAbout());
    model.on("change:log", () => this.showLog());
    model.on("change:busy", () => this.showBusy());
    model.on("change:life", () => {
      this.line.hear();
      this.pending = null;
      this.showBusy();
    });
    model.on("msg:custom", (message) => this.receive(message));
  }

  showAbout() {
    const about = this.model.get("about") || {};
    const limits = [
      about.memory && `${sizeText(about.memory)} of memory`, about.cpus && `${about.cpus} processors`,
      about.disk && `${sizeText(about.disk)} of disk`, about.network && `network ${about.network}`,
    ].filter(Boolean);
    this.title.textContent = about.name ? `Container ${about.name}` : "Container";
    this.about.textContent = about.image ? [`image ${about.image}`, ...limits].join(" · ") : " ";
  }

  showLog() {
    const entries = this.model.get("log") || [];
    const known = this.log.children.length;
    const last = this.log.dataset.last ? JSON.parse(this.log.dataset.last) : null;
    const from = last ? entries.findIndex((entry) => entry.time === last[0] && entry.text === last[1]) + 1 : 0;
    if (from === 0 && known) this.log.replaceChildren();
    for (const entry of entries.slice(from)) {
      this.log.append(make(
        "p", { class: entry.failed ? "nbhull-entry nbhull-failed" : "nbhull-entry" },
        make("time", {}, clockText(entry.time)), ` ${entry.text}`));
    }
    const newest = entries[entries.length - 1];
    if (newest) this.log.dataset.last = JSON.stringify([newest.time, newest.text]);
    this.log.scrollTop = this.log.scrollHeight;
  }

  showState(state) {
    this.section.dataset.state = state;
    this.showBusy();
  }

  /** One line says what is going on; buttons wait meanwhile. */
  showBusy() {
    const busy = this.model.get("busy") || this.pending || "";
    const text = STATES[this.line.state] || (busy ? `${busy} …` : "");
    if (this.status.textContent !== text) this.status.textContent = text;
    this.section.setAttribute("aria-busy", busy ? "true" : "false");
    for (const button of this.section.querySelectorAll(".nbhull-button")) {
      if (!button.dataset.mode) button.setAttribute("aria-disabled", busy ? "true" : "false");
    }
    this.showActions();
  }

  showActions() {
    const snapshot = this.current();
    const isImage = !snapshot || !snapshot.parent;
    const allow = (button, isAllowed) => {
      button.disabled = !isAllowed;
    };
    allow(this.reset, Boolean(snapshot));
    for (const button of [this.pin, this.tag, this.remark]) allow(button, !isImage);
    this.pin.textContent = snapshot && snapshot.pinned ? "Unpin" : "Pin";
  }

  // -- what is asked for ----------------------------------------------------------------------------

  current() {
    return this.tree.current();
  }

  refOf(snapshot) {
    return snapshot && snapshot.parent ? snapshot.name : snapshot ? snapshot.id : null;
  }

  isBusy() {
    return Boolean(this.model.get("busy") || this.pending);
  }

  /** Ask the kernel for something; `pending` is shown until it says itself what it does. */
  send(message, pending = message.do) {
    if (this.isBusy()) return;
    if (this.line.send(message)) this.pending = pending;
    this.showBusy();
  }

  takeSnapshot(event) {
    event.preventDefault();
    if (this.isBusy()) return;
    this.send({
      do: "snapshot", name: this.name.value.trim(), note: this.note.value.trim(), memory: this.memory.checked,
    }, this.memory.checked ? "snapshot with memory, when no cell runs" : "snapshot");
    this.name.value = "";
    this.note.value = "";
  }

  askReset() {
    const snapshot = this.current();
    if (!snapshot || this.isBusy()) return;
    const what = snapshot.memory
      ? `Reset to ${snapshot.name}? Files and variables will be as they were then.`
      : `Reset to ${snapshot.name}? The kernel starts anew; its variables are lost.`;
    const name = this.refOf(snapshot);
    const act = (files) => this.send({ do: "reset", name, files }, `reset to ${snapshot.name}`);
    this.ask(what, [
      ["Reset", () => act(false)],
      ...(snapshot.memory ? [["Files only", () => act(true)]] : []),
    ]);
  }

  askUndo() {
    if (this.isBusy()) return;
    this.ask("Take the last reset back? The kernel starts anew.", [["Undo", () => this.send({ do: "undo" })]]);
  }

  /** A question in the place of the actions, so that nothing moves. */
  ask(text, answers, input = null) {
    const back = document.activeElement;
    const close = () => {
      this.question.hidden = true;
      this.actions.hidden = false;
      this.question.replaceChildren();
      if (back && back.isConnected) back.focus({ preventScroll: true });
      else this.tree.focus(false);
    };
    const buttons = answers.map(([label, act], number) => make("button", {
      type: number === 0 ? "submit" : "button", class: number === 0 ? "nbhull-button nbhull-main" : "nbhull-button",
      on: number === 0 ? {} : { click: () => { close(); act(); } },
    }, label));
    const form = make("form", {
      class: "nbhull-question-form",
      on: {
        submit: (event) => { event.preventDefault(); close(); answers[0][1](); },
        keydown: (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } },
      },
    }, input ? make("label", { for: input.id }, text) : make("span", { id: this.id("question") }, text), input, ...buttons,
    this.button("Cancel", "", close));
    if (!input) buttons[0].setAttribute("aria-describedby", this.id("question"));
    this.question.replaceChildren(form);
    this.actions.hidden = true;
    this.question.hidden = false;
    (input || buttons[0]).focus({ preventScroll: true });
  }

  askText(label, text, attributes, request) {
    if (this.isBusy() || !this.current()) return;
    const input = make("input", {
      class: "nbhull-input", id: this.id("text"), value: text, maxlength: "1000", autocomplete: "off", ...attributes,
    });
    this.ask(label, [["OK", () => this.send(request(input.value.trim()))]], input);
  }

  // -- differences --------------------------------------------------------------------------------

  chosen(snapshot, isByUser) {
    this.showActions();
    if (!isByUser) return;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.askDifference(), SETTLE);
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of this.modes) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.askDifference();
  }

  askDifference() {
    const snapshot = this.current();
    if (!snapshot) return;
    if (this.mode === "made" && !snapshot.parent) {
      this.showPane(`${snapshot.name} is the image: nothing lies above it. “Until now” shows what has changed since.`);
      return;
    }
    const sides = this.mode === "made" ? { a: snapshot.parent, b: snapshot.id } : { a: snapshot.id };
    this.questions += 1;
    this.line.send({ do: "diff", number: this.questions, ...sides });
    this.pane.setAttribute("aria-busy", "true");
  }

  showPane(...content) {
    this.pane.removeAttribute("aria-busy");
    this.pane.replaceChildren(...content.map((each) => (typeof each === "string" ? make("p", {}, each) : each)));
    this.pane.scrollTop = 0;
  }

  receive(message) {
    this.line.hear();
    if (message.kind === "beat") {
      if (message.sample) this.charts.add(message.sample);
      return;
    }
    if (message.kind === "diff") {
      if (message.number === this.questions) this.showPane(differenceView(message));
      return;
    }
    if (message.kind === "report") {
      this.showPane(make("pre", { class: "nbhull-lines", tabindex: "0" }, message.text));
      return;
    }
    if (message.do === "diff") {
      this.showPane(message.text);
      return;
    }
    this.pending = null;
    this.showBusy();
  }
}

function render({ model, el }) {
  const view = new PanelView(model, el);
  return () => view.end();
}

export default { render };
