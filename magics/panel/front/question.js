// A question to the person: a small dialog over what it asks about, so that nothing else moves.

class Question {
  /** `home()` gets the focus where what had it before is gone. */
  constructor(id, home) {
    this.id = id;
    this.home = home;
    this.element = make("div", {
      class: "nbhull-question", role: "dialog", "aria-labelledby": id, hidden: true,
      on: { keydown: (event) => this.key(event) },
    });
  }

  /** Ask: `answers` are labels, each with what is done then, the first by Enter too; `input` is an element to type in. */
  ask(text, answers, input = null) {
    this.back = document.activeElement;
    const [[first, act], ...others] = answers;
    const main = make("button", { type: "submit", class: "nbhull-button nbhull-main" }, first);
    const form = make(
      "form", { on: { submit: (event) => { event.preventDefault(); this.close(); act(); } } },
      make(input ? "label" : "p", { id: this.id, for: input ? input.id : null }, text), input,
      make("div", { class: "nbhull-answers" }, main,
        ...others.map(([label, other]) => this.answer(label, () => { this.close(); other(); })),
        this.answer("Cancel", () => this.close())),
    );
    this.element.replaceChildren(form);
    this.element.hidden = false;
    (input || main).focus({ preventScroll: true });
    if (input) input.select();
  }

  answer(label, act) {
    return make("button", { type: "button", class: "nbhull-button", on: { click: act } }, label);
  }

  close() {
    this.element.hidden = true;
    this.element.replaceChildren();
    if (this.back && this.back.isConnected && this.back !== document.body) this.back.focus({ preventScroll: true });
    else this.home();
  }

  key(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.close();
  }
}
