// A widget's model that a test plays the kernel of: `window.kernel`.
async ([code, state]) => {
  const listeners = {};
  const hear = (name, ...values) => (listeners[name] || []).forEach((listener) => listener(...values));
  const kernel = {
    sent: [],
    isThere: true,
    model: {
      get: (name) => state[name],
      on: (name, listener) => (listeners[name] ||= []).push(listener),
      off: () => {},
      send: (message) => {
        if (!kernel.isThere) throw new Error("no comm");
        kernel.sent.push(message);
      },
      widget_manager: {
        get_model: async () => ({ comm_live: kernel.isThere }),
        _create_comm: async () => { throw new Error("no kernel"); },
      },
    },
    change: (changed) => {
      Object.assign(state, changed);
      for (const name of Object.keys(changed)) hear(`change:${name}`);
    },
    say: (message) => hear("msg:custom", message, []),
  };
  window.kernel = kernel;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  URL.revokeObjectURL(url);
  widget.render({ model: kernel.model, el: document.querySelector("main") });
}
