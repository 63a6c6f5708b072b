/**
 * Follows the notebook in front and keeps what its kernel said.
 */

import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

import { Probe, probe } from './probe';

/** The current notebook's kernel and its answer. */
export class KernelWatch {
  /**
   * @param tracker - The notebooks that are open.
   */
  constructor(tracker: INotebookTracker) {
    tracker.currentChanged.connect(this._follow, this);
    this._follow(tracker, tracker.currentWidget);
  }

  /** Whether a notebook is in front at all. */
  get hasNotebook(): boolean {
    return this._context !== null;
  }

  /** What the kernel said; null while nobody has asked. */
  get answer(): Probe | null {
    return this._answer;
  }

  /** Emitted when the notebook in front, its kernel or the answer changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Ask the kernel (again): `import huggingface_hub` may have happened since. */
  async ask(): Promise<void> {
    const context = this._context;
    if (!context || this._asking) {
      return;
    }
    this._asking = true;
    try {
      const answer = await probe(context);
      if (context === this._context) {
        this._answer = keepKnown(this._answer, answer);
      }
    } finally {
      this._asking = false;
      this._changed.emit();
    }
  }

  private _follow(_: INotebookTracker, panel: NotebookPanel | null): void {
    const context = panel?.sessionContext ?? null;
    if (context === this._context) {
      return;
    }
    if (this._context) {
      this._context.kernelChanged.disconnect(this._forget, this);
      this._context.statusChanged.disconnect(this._onStatus, this);
    }
    this._context = context;
    if (context) {
      context.kernelChanged.connect(this._forget, this);
      context.statusChanged.connect(this._onStatus, this);
    }
    this._forget();
  }

  private _forget(): void {
    this._answer = null;
    this._changed.emit();
    if (this._context?.session?.kernel?.status === 'idle') {
      void this.ask();
    }
  }

  private _onStatus(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting') {
      this._answer = null;
      this._changed.emit();
    } else if (status === 'idle' && isOpen(this._answer)) {
      void this.ask();
    }
  }

  private _context: ISessionContext | null = null;
  private _answer: Probe | null = null;
  private _asking = false;
  private _changed = new Signal<this, void>(this);
}

/** Tell whether it is still worth asking when the kernel next has time. */
function isOpen(answer: Probe | null): boolean {
  return (
    answer === null ||
    (answer.facts === null &&
      (answer.why === 'busy' || answer.why === 'no-kernel'))
  );
}

/** A kernel that is busy now does not take back what it said before. */
function keepKnown(before: Probe | null, now: Probe): Probe {
  const onlyBusy = now.facts === null && now.why === 'busy';
  return onlyBusy && before?.facts ? before : now;
}
