/**
 * What a click on the status item opens.
 */

import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import React from 'react';

import type { IFill, IStatus } from './api';
import { formatExact, formatProgress, formatSpeed } from './format';
import type { KernelWatch } from './kernelwatch';
import type { CacheModel } from './model';
import {
  explainError,
  explainNotebook,
  IExplained,
  troubles,
  usageText
} from './words';

/** The popup's content; rendered again whenever model or kernel have news. */
export class CachePopup extends ReactWidget {
  /**
   * @param options - What it shows and whom it calls.
   */
  constructor(private _options: CachePopup.IOptions) {
    super();
    this.addClass('jp-HfCachePopup');
    this.node.setAttribute('role', 'dialog');
    this.node.setAttribute('aria-label', _options.trans.__('Hugging Face cache'));
    this.node.tabIndex = -1;
    _options.model.changed.connect(this._onChange, this);
    _options.watch.changed.connect(this._onChange, this);
  }

  /** Stop listening. */
  dispose(): void {
    this._options.model.changed.disconnect(this._onChange, this);
    this._options.watch.changed.disconnect(this._onChange, this);
    super.dispose();
  }

  protected render(): JSX.Element {
    const { model, trans } = this._options;
    return (
      <div className="jp-HfCachePopup-body">
        <h2>{trans.__('Hugging Face cache')}</h2>
        {model.error ? (
          <Explained words={explainError(model.error, trans)} />
        ) : model.status ? (
          this._renderStatus(model.status)
        ) : (
          <p>{trans.__('Asking the server…')}</p>
        )}
      </div>
    );
  }

  private _renderStatus(status: IStatus): JSX.Element {
    const { model, watch, trans, restartKernel } = this._options;
    return (
      <>
        <section aria-label={trans.__('This notebook')}>
          <h3>{trans.__('This notebook')}</h3>
          <Explained
            words={explainNotebook(watch, status, trans)}
            action={{ label: trans.__('Restart kernel…'), run: restartKernel }}
          />
        </section>
        <section aria-label={trans.__('Cached')}>
          <h3>{trans.__('Cached')}</h3>
          <p title={trans.__('%1 bytes', formatExact(status.usage.bytes))}>
            {usageText(status.usage, trans)}
          </p>
          {troubles(status, trans).map(text => (
            <p key={text} role="status">
              <span aria-hidden="true">⚠ </span>
              {text}
            </p>
          ))}
        </section>
        {model.fills.length > 0 && (
          <section aria-label={trans.__('Downloading')}>
            <h3>{trans.__('Downloading')}</h3>
            <ul className="jp-HfCachePopup-fills">
              {model.fills.map(fill => (
                <Fill key={fill.digest} fill={fill} trans={trans} />
              ))}
            </ul>
          </section>
        )}
        {status.endpoint && (
          <Endpoint
            endpoint={status.endpoint}
            withKey={status.kernel_endpoint}
            trans={trans}
          />
        )}
        <InjectSwitch
          on={status.inject.on}
          change={on => model.setInject(on)}
          trans={trans}
        />
      </>
    );
  }

  private _onChange(): void {
    this.update();
  }
}

/** Options of the popup. */
export namespace CachePopup {
  /** What the popup shows and whom it calls. */
  export interface IOptions {
    model: CacheModel;
    watch: KernelWatch;
    trans: TranslationBundle;
    /** Restart the kernel of the notebook in front, after asking. */
    restartKernel: () => void;
  }
}

/** A verdict with its next step. */
function Explained(props: {
  words: IExplained;
  action?: { label: string; run: () => void };
}): JSX.Element {
  const { words, action } = props;
  return (
    <div
      className="jp-HfCachePopup-verdict"
      data-tone={words.tone}
      role="status"
    >
      <p>{words.title}</p>
      {words.next && <p className="jp-HfCachePopup-next">{words.next}</p>}
      {words.restart && action && (
        <button className="jp-mod-styled jp-mod-accept" onClick={action.run}>
          {action.label}
        </button>
      )}
    </div>
  );
}

/** One running download. */
function Fill(props: { fill: IFill; trans: TranslationBundle }): JSX.Element {
  const { fill, trans } = props;
  const progress = formatProgress(
    fill.done_bytes,
    fill.size_bytes,
    trans.__('of')
  );
  const name = `${fill.repo} · ${fill.file}`;
  return (
    <li className="jp-HfCachePopup-fill">
      <div className="jp-HfCachePopup-fillName">{name}</div>
      <progress
        aria-label={name}
        max={fill.size_bytes ?? undefined}
        value={fill.size_bytes === null ? undefined : fill.done_bytes}
      />
      <div className="jp-HfCachePopup-faint">
        {progress}
        {' · '}
        {fill.state === 'verifying'
          ? trans.__('verifying')
          : formatSpeed(fill.speed_bytes_per_second)}
      </div>
    </li>
  );
}

/** The endpoint, to read and to copy. */
function Endpoint(props: {
  endpoint: string;
  withKey: string | null;
  trans: TranslationBundle;
}): JSX.Element {
  const { endpoint, withKey, trans } = props;
  const [copied, setCopied] = React.useState('');
  const copy = (text: string, said: string) => {
    Clipboard.copyToSystem(text);
    setCopied(said);
  };
  return (
    <section aria-label={trans.__('Endpoint')}>
      <h3>{trans.__('Endpoint')}</h3>
      <code className="jp-HfCachePopup-endpoint">{endpoint}</code>
      <div className="jp-HfCachePopup-buttons">
        <button
          className="jp-mod-styled"
          onClick={() => copy(endpoint, trans.__('Endpoint copied.'))}
        >
          {trans.__('Copy endpoint')}
        </button>
        {withKey && (
          <button
            className="jp-mod-styled"
            title={trans.__(
              'Works on this machine without a login. Treat it like a password.'
            )}
            onClick={() =>
              copy(withKey, trans.__('Copied. Treat it like a password.'))
            }
          >
            {trans.__('Copy with access key')}
          </button>
        )}
      </div>
      <p className="jp-HfCachePopup-faint" aria-live="polite">
        {copied}
      </p>
    </section>
  );
}

/** Whether new kernels and terminals use the cache. */
function InjectSwitch(props: {
  on: boolean;
  change: (on: boolean) => Promise<void>;
  trans: TranslationBundle;
}): JSX.Element {
  const { on, change, trans } = props;
  const [failed, setFailed] = React.useState('');
  const toggle = (wanted: boolean) => {
    setFailed('');
    change(wanted).catch(reason => setFailed(String(reason.message ?? reason)));
  };
  return (
    <>
      <label>
        <input
          type="checkbox"
          checked={on}
          onChange={event => toggle(event.target.checked)}
        />
        {trans.__('Use the cache in new kernels and terminals')}
      </label>
      <p role="alert">{failed}</p>
    </>
  );
}
