/** What the server sends, for tests to change a part of; and words as they stand, untranslated. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IFill, IStatus } from '../api';

export function aStatus(changes: Partial<IStatus> = {}): IStatus {
  return {
    version: '0.1.0',
    endpoint: 'http://127.0.0.1:8888/pulp/content/hf',
    kernel_endpoint: 'http://127.0.0.1:8888/pulp/content/~k1.abc/hf',
    inject: { on: true, reason: null },
    usage: {
      bytes: 1_234_567_890,
      limit_bytes: 200_000_000_000,
      free_bytes: 100_000_000_000,
      repos: 41,
      files: 300
    },
    fills: { running: 0 },
    upstreams: [
      {
        remote: 'default',
        url: 'https://hub.example',
        state: 'reachable',
        reason: null
      }
    ],
    problems: [],
    ...changes
  };
}

export function aFill(changes: Partial<IFill> = {}): IFill {
  return {
    digest: 'sha256:00',
    repo: 'google-bert/bert-base-uncased',
    type: 'models',
    file: 'model.safetensors',
    size_bytes: 440_000_000,
    done_bytes: 44_000_000,
    speed_bytes_per_second: 38_000_000,
    eta_seconds: 10,
    readers: 1,
    state: 'running',
    error: null,
    ...changes
  };
}

export const trans = {
  __: (text: string, ...values: unknown[]) =>
    text.replace(/%(\d)/g, (_, nth) => String(values[Number(nth) - 1]))
} as unknown as TranslationBundle;
