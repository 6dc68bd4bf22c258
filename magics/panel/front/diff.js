// A difference as a tree of folders, each with what has changed in it, and the lines of text files.

const SIGNS = { added: "+", changed: "~", deleted: "−" };

/** Folders with what has changed below them; a folder with nothing but one folder in it is joined with that. */
function folders(changes) {
  const root = { name: "", folders: new Map(), files: [], count: 0 };
  for (const change of changes) {
    const parts = change.path.split("/").filter(Boolean);
    const name = parts.pop() || "/";
    let at = root;
    at.count += 1;
    for (const part of parts) {
      if (!at.folders.has(part)) at.folders.set(part, { name: part, folders: new Map(), files: [], count: 0 });
      at = at.folders.get(part);
      at.count += 1;
    }
    at.files.push({ ...change, name });
  }
  return root;
}

/** How a size has changed. */
function sizesText(change) {
  if (change.kind !== "file") return change.kind;
  const [before, after] = change.sizes;
  if (before === null) return sizeText(after);
  if (after === null) return sizeText(before);
  return before === after ? sizeText(after) : `${sizeText(before)} → ${sizeText(after)}`;
}

/** The lines of a unified difference. */
function linesOf(text) {
  const block = make("pre", { class: "nbhull-lines", tabindex: "0", "aria-label": "Lines that differ" });
  for (const line of text.split("\n").slice(2)) {
    const kind = { "+": "plus", "-": "minus", "@": "place" }[line[0]] || "same";
    block.append(make("span", { class: `nbhull-line-${kind}` }, `${line}\n`));
  }
  return block;
}

function fileItem(file, texts) {
  const head = [
    make("span", { class: `nbhull-sign nbhull-${file.change}`, title: file.change }, SIGNS[file.change]),
    make("span", { class: "nbhull-sr" }, `${file.change}: `),
    make("span", { class: "nbhull-path" }, file.name),
    make("span", { class: "nbhull-size" }, sizesText(file)),
  ];
  const text = texts[file.path];
  if (!text) return make("li", { class: "nbhull-file" }, ...head);
  const inner = make("details", { on: { toggle: () => fill() } }, make("summary", {}, ...head));
  const fill = () => {
    if (inner.open && !inner.querySelector("pre")) inner.append(linesOf(text));
  };
  return make("li", { class: "nbhull-file" }, inner);
}

/** One folder; what is in it is made when it is opened, so that a large difference is shown at once. */
function folderItem(folder, texts, isOpen) {
  let name = folder.name;
  let at = folder;
  while (at.folders.size === 1 && at.files.length === 0) {
    [at] = at.folders.values();
    name += `/${at.name}`;
  }
  const fill = () => {
    if (inner.open && !inner.querySelector("ul")) inner.append(listOf(at, texts, false));
  };
  const inner = make(
    "details", { on: { toggle: () => fill() } },
    make("summary", {},
      make("span", { class: "nbhull-path" }, `${name}/`), make("span", { class: "nbhull-count" }, `${folder.count}`)),
  );
  inner.open = isOpen;
  fill();
  return make("li", { class: "nbhull-folder" }, inner);
}

function listOf(folder, texts, isOpen) {
  return make(
    "ul", { class: "nbhull-list" },
    ...[...folder.folders.values()].map((each) => folderItem(each, texts, isOpen)),
    ...folder.files.map((file) => fileItem(file, texts)),
  );
}

/** The whole of a difference. */
function differenceView(difference) {
  const { packages, changes, omitted, texts } = difference;
  const parts = [];
  if (packages.length) {
    parts.push(make("ul", { class: "nbhull-list nbhull-packages", "aria-label": "Packages" }, ...packages.map((each) => {
      const change = each.old === null ? "added" : each.new === null ? "deleted" : "changed";
      const versions = [each.old, each.new].filter((version) => version !== null).join(" → ");
      return make("li", {},
        make("span", { class: `nbhull-sign nbhull-${change}`, title: change }, SIGNS[change]),
        make("span", { class: "nbhull-sr" }, `${change}: `),
        make("span", { class: "nbhull-path" }, each.package), make("span", { class: "nbhull-size" }, versions));
    })));
  }
  if (changes.length) parts.push(listOf(folders(changes), texts, changes.length <= 40));
  if (omitted) parts.push(make("p", {}, `and ${omitted} more`));
  if (!parts.length) parts.push(make("p", { class: "nbhull-nothing" }, "Nothing differs."));
  return make("div", { class: "nbhull-difference" }, ...parts);
}
