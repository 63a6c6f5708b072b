/**
 * The state of the cache as this page knows it, kept fresh by gentle polling.
 */

import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { ApiError, IFill, IStatus } from './api';

/** The calls the model makes: `CacheApi`, or a stand-in in tests. */
export interface IStatusSource {
  status(): Promise<IStatus>;
  fills(): Promise<IFill[]>;
  setInject(on: boolean): Promise<void>;
}

/** Seconds between two looks while something runs, and while nothing does. */
const BUSY_MS = 5_000;
const QUIET_MS = 30_000;
/** A server part that is missing is asked ever more seldom, down to this. */
const MISSING_MS = 300_000;

/** What the server last said about the cache. */
export class CacheModel {
  /**
   * @param source - Where to ask.
   */
  constructor(private _source: IStatusSource) {
    this._poll = new Poll({
      name: 'jupyter-hf-cache:status',
      factory: () => this._look(),
      frequency: { interval: QUIET_MS, backoff: true, max: MISSING_MS },
      standby: 'when-hidden'
    });
  }

  /** The last good status; null before the first one, and after a failure. */
  get status(): IStatus | null {
    return this._status;
  }

  /** Downloads that run; empty while nobody does. */
  get fills(): readonly IFill[] {
    return this._fills;
  }

  /** Why there is no status, or null. */
  get error(): ApiError | null {
    return this._error;
  }

  /** Emitted when any of the above may have changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Look now, for a person who is waiting. Never rejects: a failure is state. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick.catch(() => undefined);
  }

  /**
   * Switch the use of the cache in new kernels and look again.
   *
   * @param on - Whether new kernels get the endpoint.
   */
  async setInject(on: boolean): Promise<void> {
    await this._source.setInject(on);
    await this.refresh();
  }

  /** Stop polling. */
  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async _look(): Promise<void> {
    try {
      const status = await this._source.status();
      const running = status.fills.running > 0;
      this._fills = running ? (await this._source.fills()).filter(isRunning) : [];
      this._status = status;
      this._error = null;
      this._pace(running ? BUSY_MS : QUIET_MS);
    } catch (reason) {
      this._status = null;
      this._fills = [];
      this._error =
        reason instanceof ApiError ? reason : new ApiError(0, String(reason));
      this._pace(QUIET_MS);
      throw reason; // lets the poll back off
    } finally {
      this._changed.emit();
    }
  }

  private _pace(interval: number): void {
    if (!this._poll.isDisposed && this._poll.frequency.interval !== interval) {
      this._poll.frequency = { interval, backoff: true, max: MISSING_MS };
    }
  }

  private _status: IStatus | null = null;
  private _fills: IFill[] = [];
  private _error: ApiError | null = null;
  private _changed = new Signal<this, void>(this);
  private _poll: Poll;
}

/** Tell whether a download is still at work. */
function isRunning(fill: IFill): boolean {
  return fill.state === 'running' || fill.state === 'verifying';
}
