/* What the person may see and has chosen: who they are, their spaces, where to look. Shared by the views. */

import { recall, remember } from "./preferences.js";

/** Emits `change` after any change of the fields. */
export class Library extends EventTarget {
  #client;
  me = null;
  spaces = [];
  /** Names of the spaces to ask; null = all, empty = answer without documents. */
  selection = null;

  constructor(client) {
    super();
    this.#client = client;
  }

  async load() {
    this.me = await this.#client.me();
    await this.reloadSpaces();
  }

  async reloadSpaces() {
    this.spaces = await this.#client.spaces();
    if (this.selection) this.select(this.selection);
    else this.#changed();
  }

  forget() {
    this.me = null;
    this.spaces = [];
    this.selection = null;
  }

  select(names) {
    const readable = new Set(this.spaces.map(({ name }) => name));
    const chosen = names === null ? null : names.filter((name) => readable.has(name));
    this.selection = chosen && chosen.length === readable.size ? null : chosen;
    this.#changed();
  }

  get writable() {
    return this.spaces.filter(({ role }) => role === "editor" || role === "owner");
  }

  get documents() {
    return this.spaces.reduce((sum, { documents }) => sum + (documents || 0), 0);
  }

  titleOf(name) {
    return this.spaces.find((space) => space.name === name)?.title || name;
  }

  /** `user:anna` → `anna`. */
  get userName() {
    return (this.me?.subject || "").replace(/^[a-z]+:/, "");
  }

  /** The space offered for uploads: the last one used, else the first that may be written to. */
  get uploadSpace() {
    const last = recall("upload_space");
    return (this.writable.find(({ name }) => name === last) || this.writable[0])?.name ?? null;
  }

  set uploadSpace(name) {
    remember("upload_space", name);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
