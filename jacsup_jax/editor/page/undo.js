// Settings that can be taken back.

export class UndoStack {
  #states = [];
  #at = -1;

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#states.length - 1;
  }

  // Forgets everything before `state`.
  begin(state) {
    this.#states = [JSON.stringify(state)];
    this.#at = 0;
  }

  // Adds a state unless it is the present one.
  add(state) {
    const own = JSON.stringify(state);
    if (own === this.#states[this.#at]) return;
    this.#states.splice(this.#at + 1, Infinity, own);
    this.#at += 1;
  }

  // Steps by -1 or 1; returns the state there, null if there is none.
  step(by) {
    if (by < 0 ? !this.canUndo : !this.canRedo) return null;
    this.#at += by;
    return JSON.parse(this.#states[this.#at]);
  }
}
