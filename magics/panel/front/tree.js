// The tree of snapshots as a picture: a lane for each branch, a row for each snapshot, and the rows as an accessible tree.

const ROW = 30;
const LANE = 16;
const MARGIN = 12;
const MOST_LANES = 8;

/** Rows from the top: each snapshot behind the one above it, side branches before what goes on in the same lane.
 *  The branch that leads to where the container stands keeps its lane. */
function arrange(snapshots) {
  const known = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]));
  const below = new Map();
  const roots = [];
  for (const snapshot of snapshots) {
    if (known.has(snapshot.parent)) {
      if (!below.has(snapshot.parent)) below.set(snapshot.parent, []);
      below.get(snapshot.parent).push(snapshot);
    } else {
      roots.push(snapshot);
    }
  }
  const line = new Set();
  for (let at = snapshots.find((snapshot) => snapshot.here); at; at = known.get(at.parent)) line.add(at.id);
  const rows = [];
  const pending = roots.map((root) => ({ snapshot: root, lane: 0, level: 1, above: null })).reverse();
  while (pending.length) {
    const row = pending.pop();
    row.index = rows.length;
    rows.push(row);
    const children = [...(below.get(row.snapshot.id) || [])].sort((a, b) => a.created - b.created);
    const main = children.find((child) => line.has(child.id)) || children[children.length - 1];
    const side = children.filter((child) => child !== main);
    if (main) pending.push({ snapshot: main, lane: row.lane, level: row.level + 1, above: row });
    for (const child of side.reverse()) {
      pending.push({ snapshot: child, lane: row.lane + 1, level: row.level + 1, above: row });
    }
    row.isOnLine = line.has(row.snapshot.id);
  }
  return rows;
}

/** Where a row's dot is. */
function place(row) {
  return [MARGIN + Math.min(row.lane, MOST_LANES) * LANE, row.index * ROW + ROW / 2];
}

/** The lines and dots of rows. */
function picture(rows) {
  const lanes = Math.min(MOST_LANES, Math.max(0, ...rows.map((row) => row.lane)));
  const width = 2 * MARGIN + lanes * LANE;
  const drawing = make("svg:svg", {
    class: "nbhull-rails", width, height: rows.length * ROW, "aria-hidden": "true", focusable: "false",
  });
  const rails = { true: "", false: "" };  // two elements for all, since a large tree has hundreds
  for (const row of rows) {
    if (!row.above) continue;
    const [x, y] = place(row);
    const [fromX, fromY] = place(row.above);
    const bend = x === fromX ? "" : `V ${y - ROW + 6} C ${fromX} ${y - 6} ${x} ${y - ROW + 6}`;
    rails[row.isOnLine] += bend ? `M ${fromX} ${fromY} ${bend} ${x} ${y} ` : `M ${x} ${fromY} V ${y} `;
  }
  drawing.append(make("svg:path", { class: "nbhull-rail", d: rails.false }));
  drawing.append(make("svg:path", { class: "nbhull-rail nbhull-online", d: rails.true }));
  for (const row of rows) {
    const [x, y] = place(row);
    const kind = row.snapshot.here ? "nbhull-dot nbhull-here" : row.snapshot.auto ? "nbhull-dot nbhull-auto" : "nbhull-dot";
    drawing.append(make("svg:circle", { class: kind, cx: x, cy: y, r: row.snapshot.here ? 6 : 4.5 }));
  }
  return drawing;
}

/** The marks of a snapshot: what is special about it. */
function marks(snapshot) {
  return [
    snapshot.here && ["here", "you are here"],
    snapshot.memory && ["memory", "with memory"],
    snapshot.pinned && ["pinned", "pinned"],
    snapshot.auto && ["auto", `kept by ${snapshot.auto}`],
  ].filter(Boolean);
}

/** The tree; `onChoose(snapshot)` is called when another one is chosen. */
class SnapshotTree {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.rows = [];
    this.chosen = null;
    this.filled = new WeakMap();
    this.list = make("div", {
      role: "tree", "aria-label": "Snapshots", class: "nbhull-tree-rows",
      on: { keydown: (event) => this.key(event), click: (event) => this.click(event) },
    });
    this.rails = make("div", { class: "nbhull-tree-rails" });
    this.element = make("div", { class: "nbhull-tree" }, this.rails, this.list);
  }

  /** Draw these snapshots; the chosen one stays, and the focus with it. Who stood where the container stands goes with it. */
  draw(snapshots) {
    const began = performance.now();
    const hadFocus = this.list.contains(document.activeElement);
    const isFirst = this.rows.length === 0;
    const before = this.current();
    const follows = !before || before.here || !this.rows.some((row) => row.snapshot.here);
    this.rows = arrange(snapshots);
    const here = this.rows.find((row) => row.snapshot.here) || this.rows[0];
    if (follows || !this.rows.some((row) => row.snapshot.id === this.chosen)) {
      this.chosen = here ? here.snapshot.id : null;
    }
    this.rails.replaceChildren(picture(this.rows));
    this.place();
    if (hadFocus && !this.list.contains(document.activeElement)) this.focus(false);
    if (isFirst || (before && before.id !== this.chosen)) this.reveal();
    this.element.dataset.drawn = (performance.now() - began).toFixed(1);
    const chosen = this.current();
    if (chosen) this.onChoose(chosen, false);
  }

  /** Have the rows' elements in their order. Those that stay are not touched, so that focus and readers stay too. */
  place() {
    const known = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    let next = this.list.firstElementChild;
    for (const row of this.rows) {
      const { id } = row.snapshot;
      const item = known.get(id) || make("div", { role: "treeitem", class: "nbhull-row", "data-id": id });
      known.delete(id);
      this.fill(item, row);
      if (item === next) next = item.nextElementSibling;
      else this.list.insertBefore(item, next);
    }
    for (const item of known.values()) item.remove();
  }

  fill(item, row) {
    const { snapshot } = row;
    const isChosen = snapshot.id === this.chosen;
    const state = JSON.stringify([snapshot, row.level, isChosen]);
    if (this.filled.get(item) === state) return;
    this.filled.set(item, state);
    item.setAttribute("aria-level", row.level);
    item.title = [snapshot.name, snapshot.note, momentText(snapshot.created)].filter(Boolean).join("\n");
    if (snapshot.here) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
    this.mark(item, isChosen);
    item.replaceChildren(
      make("span", { class: "nbhull-name" }, snapshot.name),
      ...marks(snapshot).map(([kind, text]) => make("span", { class: `nbhull-mark nbhull-mark-${kind}` }, text)),
      make("span", { class: "nbhull-note" }, snapshot.note || ""),
      make("span", { class: "nbhull-size" }, snapshot.parent ? sizeText(snapshot.size) : ""),
      make("span", { class: "nbhull-ago", "data-moment": snapshot.created }, agoText(snapshot.created)),
    );
  }

  mark(item, isChosen) {
    item.tabIndex = isChosen ? 0 : -1;
    item.setAttribute("aria-selected", String(isChosen));
  }

  /** Have the ages say what is true now. */
  age() {
    for (const span of this.list.querySelectorAll(".nbhull-ago")) {
      putText(span, agoText(Number(span.dataset.moment)));
    }
  }

  current() {
    const row = this.rows.find((each) => each.snapshot.id === this.chosen);
    return row ? row.snapshot : null;
  }

  choose(index, takeFocus = true) {
    const row = this.rows[index];
    if (!row) return;
    this.chosen = row.snapshot.id;
    this.place();
    if (takeFocus) this.focus(true);
    this.onChoose(row.snapshot, true);
  }

  find(id) {
    const index = this.rows.findIndex((row) => row.snapshot.id === id);
    return index < 0 ? null : this.list.children[index];
  }

  focus(mayScroll) {
    const item = this.find(this.chosen);
    if (item) item.focus({ preventScroll: !mayScroll });
  }

  /** Scroll within the tree, never the page, to what is chosen. */
  reveal() {
    const index = this.rows.findIndex((row) => row.snapshot.id === this.chosen);
    this.element.scrollTop = Math.max(0, index * ROW - this.element.clientHeight / 2);
  }

  click(event) {
    const item = event.target.closest("[role=treeitem]");
    if (item) this.choose([...this.list.children].indexOf(item));
  }

  key(event) {
    const at = this.rows.findIndex((row) => row.snapshot.id === this.chosen);
    const row = this.rows[at];
    const to = {
      ArrowDown: () => at + 1,
      ArrowUp: () => at - 1,
      Home: () => 0,
      End: () => this.rows.length - 1,
      ArrowLeft: () => (row && row.above ? row.above.index : at),
      ArrowRight: () => this.rows.findIndex((each) => each.above === row && each.lane === row.lane),
      PageDown: () => Math.min(at + 10, this.rows.length - 1),
      PageUp: () => Math.max(at - 10, 0),
      Enter: () => at,
      " ": () => at,
    }[event.key];
    if (!to || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(to());
  }
}
