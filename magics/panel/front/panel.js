// The panel: what is seen, what the buttons ask for, and what comes of it.

const STATES = {
  live: "",
  quiet: "No news from the kernel: it is busy, or starting anew.",
  lost: "This panel has lost its kernel. Run this cell again.",
};
const CHOOSE = "Choose a snapshot to see which files and packages it changed.";
const EMPTY = "No snapshot yet. Give it a name, press Snapshot, and you can always come back to these files.";
const NAME = "[A-Za-z0-9][A-Za-z0-9_.\\-]{0,127}";
const SETTLE = 250;
let count = 0;

class PanelView {
  constructor(model, root) {
    this.model = model;
    this.doing = model.get("busy");
    this.number = count++;
    this.questions = 0;
    this.mode = "made";
    this.line = new Line(model, (state) => this.showState(state));
    this.tree = new SnapshotTree((snapshot, isByUser) => this.chosen(snapshot, isByUser));
    this.charts = new Charts();
    this.question = new Question(this.id("question"), () => this.tree.focus(false));
    this.build(root);
    this.listen();
    this.charts.begin(model.get("history") || []);
    this.showAbout();
    this.showTree();
    this.showLog();
    this.showBusy();
    this.showPane(CHOOSE);
    this.aging = setInterval(() => this.tree.age(), 10000);
    this.guard = (event) => this.keepKey(event);
    window.addEventListener("keydown", this.guard, true);
  }

  end() {
    window.removeEventListener("keydown", this.guard, true);
    this.line.end();
    clearInterval(this.aging);
    clearTimeout(this.settling);
  }

  /** Have JupyterLab, which takes keys before the element does that they are meant for, do nothing to the notebook for
   *  those without Ctrl, Alt or Meta. */
  keepKey(event) {
    if (!this.section.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.altKey || event.metaKey));
  }

  // -- what is seen -------------------------------------------------------------------------------

  id(name) {
    return `nbhull-${this.number}-${name}`;
  }

  /** A button. One that can do nothing at the moment says so and keeps the focus. */
  button(text, title, act, attributes = {}) {
    const button = make("button", {
      type: "button", class: "nbhull-button", title,
      on: { click: () => { if (button.getAttribute("aria-disabled") !== "true") act(); } }, ...attributes,
    }, text);
    return button;
  }

  build(root) {
    this.title = make("h2", { class: "nbhull-title", id: this.id("title") }, "Container");
    this.about = make("p", { class: "nbhull-about" });
    this.status = make("p", { class: "nbhull-status", role: "status" });
    this.log = make("div", { class: "nbhull-log", role: "log", "aria-label": "Log", tabindex: "0" });
    this.pane = make("div", { class: "nbhull-pane", role: "region", "aria-label": "Difference", tabindex: "0" });
    this.undo = this.button("Undo reset", "Take the last reset back", () => this.askUndo(), {
      class: "nbhull-button nbhull-plain",
    });
    this.chosenName = make("h3", { class: "nbhull-subtitle" });
    this.hint = make("p", { class: "nbhull-hint" }, EMPTY);
    this.section = make(
      "section", { class: "nbhull-panel", "aria-labelledby": this.id("title") },
      make("div", { class: "nbhull-head" },
        make("div", { class: "nbhull-heading" }, this.title, this.about), this.status),
      this.charts.element,
      make(
        "div", { class: "nbhull-body" },
        make("div", { class: "nbhull-side" },
          make("div", { class: "nbhull-side-head" }, make("h3", { class: "nbhull-subtitle" }, "Snapshots"), this.undo),
          make("div", { class: "nbhull-bar" }, this.buildForm()),
          make("div", { class: "nbhull-box" }, this.tree.element, this.hint)),
        make("div", { class: "nbhull-side" },
          make("div", { class: "nbhull-side-head" }, this.chosenName, this.buildModes()),
          make("div", { class: "nbhull-bar" }, this.buildActions(), this.question.element),
          this.pane),
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
    this.memory = make("input", { type: "checkbox", id: this.id("memory") });
    this.submit = make("button", { type: "submit", class: "nbhull-button nbhull-main", title: "Keep all files as they are now" },
      "Snapshot");
    return make(
      "form", { class: "nbhull-form", on: { submit: (event) => this.takeSnapshot(event) } },
      ...field("name", "Name of the snapshot", {
        placeholder: "name", pattern: NAME, maxlength: "128", autocomplete: "off", spellcheck: "false",
        title: "letters, digits, _ . -; empty for one that is made up",
      }),
      ...field("note", "Note on it", { placeholder: "note", maxlength: "1000", autocomplete: "off" }),
      make("label", { class: "nbhull-check", title: "and the variables, as they are when no cell runs" },
        this.memory, "memory"),
      this.submit,
    );
  }

  buildModes() {
    const mode = (name, text, title) => this.button(text, title, () => this.setMode(name), {
      "aria-pressed": String(name === this.mode), "data-mode": name,
    });
    this.modes = [
      mode("made", "Its changes", "What this snapshot changed from the one above it"),
      mode("now", "Until now", "What has changed from this snapshot until now"),
    ];
    return make("div", { class: "nbhull-modes", role: "group", "aria-label": "What to compare" }, ...this.modes);
  }

  buildActions() {
    this.reset = this.button("Reset", "Put the container back on this snapshot", () => this.askReset(), {
      class: "nbhull-button nbhull-main",
    });
    this.replay = this.button("Replay", "Run the cells since this snapshot again, in a fresh container, and compare",
      () => this.send({ do: "replay", name: this.refOf(this.current()) }));
    this.pin = this.button("Pin", "Never remove it without being asked",
      () => this.send({ do: "annotate", image: this.current().id, pin: !this.current().pinned }));
    this.tag = this.button("Tag", "Give it one more name", () => this.askText(
      "One more name for it", "Tag", "", { pattern: NAME, required: true },
      (image, name) => ({ do: "tag", image, name })));
    this.remark = this.button("Note", "Write a note on it", () => this.askText(
      "Note on it", "Keep", this.current().note, {}, (image, note) => ({ do: "annotate", image, note })));
    this.save = this.button("Save", "Write it to an archive that nbhull, Docker and Podman load", () => this.askText(
      "File in the notebook’s folder", "Save", `${this.current().name.replaceAll(/[^A-Za-z0-9_.-]+/g, "-")}.tar`,
      { pattern: NAME, required: true }, (image, file) => ({ do: "save", image, file })));
    return make(
      "div", { class: "nbhull-actions", role: "group", "aria-label": "Chosen snapshot" },
      this.reset, this.replay, this.pin, this.tag, this.remark, this.save,
    );
  }

  listen() {
    const { model } = this;
    model.on("change:tree", () => {
      this.line.hear();
      this.showTree();
    });
    model.on("change:about", () => this.showAbout());
    model.on("change:log", () => this.showLog());
    model.on("change:busy", () => this.underWay(model.get("busy")));
    model.on("change:life", () => {
      this.line.hear();
      this.line.greet();
      this.pending = null;
      this.showBusy();
    });
    model.on("msg:custom", (message) => this.receive(message));
  }

  showAbout() {
    const about = this.model.get("about") || {};
    const limits = [
      about.memory && `${sizeText(about.memory)} of memory`, about.cpus && countText(about.cpus, "processor", "processors"),
      about.disk && `${sizeText(about.disk)} of disk`, about.network && `network ${about.network}`,
    ].filter(Boolean);
    putText(this.title, about.name ? `Container ${about.name}` : "Container");
    putText(this.about, about.image ? [`image ${about.image}`, ...limits].join(" · ") : "\u00a0");
    this.title.title = about.name || "";
    this.about.title = this.about.textContent.trim();
  }

  showTree() {
    const snapshots = this.model.get("tree") || [];
    this.tree.draw(snapshots);
    this.hint.hidden = snapshots.length !== 1;
    this.showActions();
  }

  showLog() {
    const entries = this.model.get("log") || [];
    const last = this.lastEntry;
    const from = last ? entries.findIndex((entry) => entry.time === last.time && entry.text === last.text) + 1 : 0;
    if (from === 0) this.log.replaceChildren();
    for (const entry of entries.slice(from)) {
      this.log.append(make(
        "p", { class: entry.failed ? "nbhull-entry nbhull-failed" : "nbhull-entry" },
        make("time", {}, clockText(entry.time)), make("span", {}, entry.text)));
    }
    while (this.log.children.length > entries.length) this.log.firstElementChild.remove();
    this.lastEntry = entries[entries.length - 1];
    this.log.scrollTop = this.log.scrollHeight;
  }

  showState(state) {
    if (state === "lost") this.pending = null;
    this.showBusy();
  }

  /** One line says what is going on; buttons wait meanwhile. */
  showBusy() {
    const busy = this.busy();
    putText(this.status, STATES[this.line.state] || (busy ? `${busy} …` : "ready"));
    this.section.dataset.state = this.line.state === "live" && busy ? "busy" : this.line.state;
    this.section.setAttribute("aria-busy", String(Boolean(busy)));
    this.showActions();
  }

  /** Which buttons can do something now. */
  showActions() {
    const snapshot = this.current();
    const isFree = this.isFree();
    const isOwn = Boolean(snapshot && snapshot.parent);
    const allow = (button, isAllowed) => button.setAttribute("aria-disabled", String(!isAllowed));
    for (const button of [this.submit, this.undo]) allow(button, isFree);
    for (const button of [this.reset, this.replay]) allow(button, isFree && Boolean(snapshot));
    for (const button of [this.pin, this.tag, this.remark, this.save]) allow(button, isFree && isOwn);
    putText(this.pin, snapshot && snapshot.pinned ? "Unpin" : "Pin");
    putText(this.chosenName, snapshot ? snapshot.name : "");
    this.chosenName.title = snapshot ? snapshot.name : "";
  }

  // -- what is asked for ----------------------------------------------------------------------------

  current() {
    return this.tree.current();
  }

  refOf(snapshot) {
    return snapshot && snapshot.parent ? snapshot.name : snapshot ? snapshot.id : null;
  }

  /** What is under way; empty if nothing is. */
  busy() {
    return this.doing || this.pending || "";
  }

  /** The kernel tells what it does; each beat says it again, should a page that has just come have missed something. */
  underWay(what) {
    if (what === this.doing) return;
    this.doing = what;
    if (what) this.pending = null;
    this.showBusy();
  }

  /** Whether something can be asked for. */
  isFree() {
    return !this.busy() && this.line.state !== "lost";
  }

  /** Ask the kernel for something; `pending` is shown until it says itself what it does. */
  send(message, pending = message.do) {
    if (!this.isFree()) return;
    if (this.line.send(message)) this.pending = pending;
    this.showBusy();
  }

  takeSnapshot(event) {
    event.preventDefault();
    if (!this.isFree()) return;
    this.send({
      do: "snapshot", name: this.name.value.trim(), note: this.note.value.trim(), memory: this.memory.checked,
    }, this.memory.checked ? "snapshot with memory, when no cell runs" : "snapshot");
    this.name.value = "";
    this.note.value = "";
  }

  askReset() {
    const snapshot = this.current();
    const what = snapshot.memory
      ? `Reset to ${snapshot.name}? Files and variables will be as they were then.`
      : `Reset to ${snapshot.name}? The kernel starts anew; its variables are lost.`;
    const name = this.refOf(snapshot);
    const act = (files) => this.send({ do: "reset", name, files }, `reset to ${snapshot.name}`);
    this.question.ask(what, [
      ["Reset", () => act(false)],
      ...(snapshot.memory ? [["Files only", () => act(true)]] : []),
    ]);
  }

  askUndo() {
    this.question.ask("Take the last reset back? The kernel starts anew.", [["Undo", () => this.send({ do: "undo" })]]);
  }

  /** Ask for a text about the chosen snapshot; `request(image, text)` is what is sent then. */
  askText(text, answer, value, attributes, request) {
    const { id } = this.current();
    const input = make("input", {
      class: "nbhull-input", id: this.id("text"), value, maxlength: "1000", autocomplete: "off", spellcheck: "false",
      ...attributes,
    });
    this.question.ask(text, [[answer, () => this.send(request(id, input.value.trim()))]], input);
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
    this.pane.replaceChildren(
      ...content.map((each) => (typeof each === "string" ? make("p", { class: "nbhull-nothing" }, each) : each)));
    this.pane.scrollTop = 0;
  }

  receive(message) {
    this.line.hear();
    if (message.kind === "welcome") {
      this.line.welcome();
      return;
    }
    if (message.kind === "beat") {
      if (message.sample) this.charts.add(message.sample);
      this.underWay(message.busy);
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
