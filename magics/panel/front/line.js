// The line to the kernel: hears whether it is there, says that a page is, and ties itself anew where the page let go.
//
// After a reset the next kernel speaks under the same ids, and nothing need be done here. After a restart of the kernel
// JupyterLab holds the comms for dead; then a new one is made under the old id, which the new kernel knows.
//
// Where front end or kernel know no subshells, what is sent here waits behind a running cell. So only one sign of life is
// under way at a time, however long the cell takes.

const TICK = 1000;
const QUIET = 12000;
const LOST = 30000;
const HELLO = 30000;
const FORGOTTEN = 600000;
const TARGET = "jupyter.widget";

class Line {
  /** `onChange(state)` is called with "live", "quiet" or "lost" when that changes. */
  constructor(model, onChange) {
    this.model = model;
    this.onChange = onChange;
    this.state = "live";
    this.heard = Date.now();
    this.timer = setInterval(() => this.tick(), TICK);
    this.greet();
  }

  end() {
    clearInterval(this.timer);
  }

  /** Something has come from the kernel. */
  hear() {
    this.heard = Date.now();
    this.be("live");
  }

  /** The kernel has answered a sign of life. */
  welcome() {
    this.isAnswered = true;
  }

  be(state) {
    if (state === this.state) return;
    this.state = state;
    this.onChange(state);
    if (state !== "live") this.greet();  // the last one may have been lost
  }

  /** Send a message; false if there is nobody to send it to. */
  send(message) {
    try {
      this.model.send(message);
      return true;
    } catch {
      return false;
    }
  }

  /** Say that a page is there. */
  greet() {
    this.greeted = Date.now();
    this.isAnswered = false;
    this.send({ do: "hello" });
  }

  async tick() {
    const now = Date.now();
    if (now - this.greeted > (this.isAnswered ? HELLO : FORGOTTEN)) this.greet();
    const silence = now - this.heard;
    const isTied = await this.tie();
    if (silence > LOST || (!isTied && silence > QUIET)) this.be("lost");
    else if (silence > QUIET) this.be("quiet");
  }

  /** Have a comm; false if none can be had. */
  async tie() {
    const manager = this.model.widget_manager;
    const id = this.model.get("me");
    try {
      const whole = await manager.get_model(id);
      if (whole.comm_live) return true;
      const comm = await manager._create_comm(TARGET, id);
      comm.on_close(whole._handle_comm_closed.bind(whole));
      comm.on_msg(whole._handle_comm_msg.bind(whole));
      whole.comm = comm;
      whole.comm_live = true;
      this.greet();
      return true;
    } catch {
      return false;
    }
  }
}
