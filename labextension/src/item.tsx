/**
 * The item in the status bar.
 */

import { Popup, showPopup } from '@jupyterlab/statusbar';
import { ReactWidget } from '@jupyterlab/ui-components';
import React from 'react';

import { CachePopup } from './popup';
import { itemText } from './words';

/** Shows size and running downloads; opens the popup on click, Enter or Space. */
export class StatusItem extends ReactWidget {
  /**
   * @param options - As for the popup, which it hands them to.
   */
  constructor(private _options: CachePopup.IOptions) {
    super();
    this.addClass('jp-HfCacheStatus');
    _options.model.changed.connect(this._onChange, this);
    _options.watch.changed.connect(this._onChange, this);
  }

  /** Stop listening and close the popup. */
  dispose(): void {
    this._options.model.changed.disconnect(this._onChange, this);
    this._options.watch.changed.disconnect(this._onChange, this);
    this._popup?.dispose();
    super.dispose();
  }

  protected render(): JSX.Element {
    const { model, watch, trans } = this._options;
    const text = itemText(model.status, model.error, watch, trans);
    return (
      <button
        className="jp-HfCacheStatus-button"
        aria-haspopup="dialog"
        aria-label={trans.__('%1. Open details', text)}
        onClick={() => this._toggle()}
      >
        {text}
      </button>
    );
  }

  private _toggle(): void {
    if (this._popup && !this._popup.isDisposed) {
      this._popup.dispose();
      return;
    }
    const body = new CachePopup(this._options);
    this._popup = showPopup({
      body,
      anchor: this,
      align: 'right',
      hasDynamicSize: true
    });
    this._popup.disposed.connect(() => {
      this._popup = null;
      this.node.querySelector('button')?.focus();
    });
    body.node.focus();
    void this._options.watch.ask();
    void this._options.model.refresh();
  }

  private _onChange(): void {
    this.update();
  }

  private _popup: Popup | null = null;
}
