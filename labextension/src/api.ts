/**
 * What the server part of the cache tells, and how to ask it.
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** The cache at a glance (`GET hf-cache/v1/status`), as far as the status item shows it. */
export interface IStatus {
  version: string;
  /** The endpoint without an access key. */
  endpoint: string | null;
  /** The endpoint with an access key, as kernels get it; null where this page may not have it. */
  kernel_endpoint: string | null;
  /** Whether new kernels get the endpoint; if not, why. */
  inject: { on: boolean; reason: string | null };
  usage: {
    bytes: number;
    limit_bytes: number | null;
    free_bytes: number | null;
    repos: number;
    files: number;
  };
  fills: { running: number };
  upstreams: {
    remote: string;
    url: string;
    state: 'reachable' | 'unreachable' | 'offline' | 'unknown';
    reason: string | null;
  }[];
  /** Sentences about what does not work. */
  problems: string[];
}

/** One running or finished download (`GET hf-cache/v1/fills`). */
export interface IFill {
  digest: string;
  repo: string;
  type: string;
  file: string;
  size_bytes: number | null;
  done_bytes: number;
  speed_bytes_per_second: number;
  eta_seconds: number | null;
  readers: number;
  state: 'running' | 'verifying' | 'failed' | 'done';
  error: string | null;
}

/** An answer of the server that is no success. */
export class ApiError extends Error {
  /**
   * @param status - The HTTP status, 0 when the server did not answer at all.
   * @param message - What the server said.
   * @param advice - The next step, or "".
   */
  constructor(
    readonly status: number,
    message: string,
    readonly advice: string = ''
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** The calls of the cache's own API that the status item makes. */
export class CacheApi {
  /** @param settings - How to reach the Jupyter server: it brings login and XSRF header. */
  constructor(private _settings: ServerConnection.ISettings) {}

  /** Get the cache at a glance. */
  status(): Promise<IStatus> {
    return this._request<IStatus>('status');
  }

  /** List the downloads that run or ran just now. */
  async fills(): Promise<IFill[]> {
    return (await this._request<{ results: IFill[] }>('fills')).results;
  }

  /**
   * Switch the use of the cache in new kernels and terminals.
   *
   * @param on - Whether they get the endpoint.
   */
  async setInject(on: boolean): Promise<void> {
    await this._request('inject', {
      method: 'PUT',
      body: JSON.stringify({ on })
    });
  }

  private async _request<T>(name: string, init: RequestInit = {}): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, 'hf-cache', 'v1', name);
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this._settings);
    } catch (reason) {
      throw new ApiError(0, String(reason));
    }
    const body = await response.text();
    if (!response.ok) {
      throw failure(response, body);
    }
    try {
      return (body ? JSON.parse(body) : null) as T;
    } catch {
      throw new ApiError(response.status, 'The answer is not JSON.');
    }
  }
}

/** Turn a refusal into an error that carries the server's own words. */
function failure(response: Response, body: string): ApiError {
  let said: { message?: unknown; advice?: unknown } = {};
  try {
    said = JSON.parse(body) ?? {};
  } catch {
    // A proxy's HTML page, say: the status line has to do.
  }
  const message =
    typeof said.message === 'string' && said.message
      ? said.message
      : `${response.status} ${response.statusText}`.trim();
  return new ApiError(
    response.status,
    message,
    typeof said.advice === 'string' ? said.advice : ''
  );
}
