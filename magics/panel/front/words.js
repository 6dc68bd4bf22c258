// Elements, and numbers as people read them. All text goes in as text, never as markup: names come from anywhere.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; `on` in attributes holds listeners, children may be text. */
function make(tag, attributes = {}, ...children) {
  const { on = {}, ...rest } = attributes;
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Bytes: `0 B`, `1.5 KiB`, `23 MiB`. */
function sizeText(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let amount = bytes;
  let unit = "B";
  for (unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (amount < 1023.5 || unit === "TiB") break;
    amount /= 1024;
  }
  return `${unit !== "B" && amount < 9.95 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}

/** How long ago a moment is, in seconds since the epoch. */
function agoText(moment) {
  if (!moment) return "";
  const seconds = Math.max(0, Date.now() / 1000 - moment);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return seconds < 10 ? "just now" : `${Math.floor(seconds)} s ago`;
}

const MOMENT = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });

/** A moment in full. */
function momentText(moment) {
  return moment ? MOMENT.format(moment * 1000) : "";
}

/** The time of day. */
function clockText(moment) {
  return new Date(moment * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** Have an element say something; nothing is touched where it says that already, so that readers stay calm. */
function putText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
