/**
 * The sentences people read. Pure: state in, words out, every sentence with a next step where there is one.
 */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { ApiError, IStatus } from './api';
import { formatBytes } from './format';
import type { Probe } from './probe';
import { decide, Verdict } from './verdict';

/** A verdict in words. `tone` colours what the words already say. */
export interface IExplained {
  tone: 'good' | 'warn' | 'neutral';
  title: string;
  next: string;
  /** Whether restarting the kernel is the next step. */
  restart?: boolean;
}

/** What is known about the notebook in front. */
export interface INotebookState {
  hasNotebook: boolean;
  answer: Probe | null;
}

/**
 * Decide how the notebook in front stands; null without a notebook.
 *
 * @param notebook - What is known about it.
 * @param status - What the server said.
 */
export function verdictOf(
  notebook: INotebookState,
  status: IStatus
): Verdict | null {
  if (!notebook.hasNotebook) {
    return null;
  }
  return decide(
    notebook.answer?.facts ?? null,
    status.kernel_endpoint,
    status.inject.on
  );
}

/**
 * The text of the status item: `HF cache: 1.2 GB · 1 downloading`.
 *
 * @param status - What the server said, or null.
 * @param error - Why there is no status, or null.
 * @param notebook - What is known about the notebook in front.
 * @param trans - The words' language.
 */
export function itemText(
  status: IStatus | null,
  error: ApiError | null,
  notebook: INotebookState,
  trans: TranslationBundle
): string {
  if (error) {
    return trans.__('HF cache: not running');
  }
  if (!status) {
    return trans.__('HF cache: …');
  }
  const parts = [trans.__('HF cache: %1', formatBytes(status.usage.bytes))];
  const running = status.fills.running;
  if (running > 0) {
    parts.push(trans.__('%1 downloading', running));
  }
  const remark = shortRemark(verdictOf(notebook, status), trans);
  if (remark) {
    parts.push(remark);
  }
  if (status.problems.length > 0) {
    parts.push(trans.__('has a problem'));
  }
  return parts.join(' · ');
}

/** What the item adds where this notebook does not use the cache. */
function shortRemark(
  verdict: Verdict | null,
  trans: TranslationBundle
): string | null {
  switch (verdict) {
    case 'started-before':
    case 'imported-before':
      return trans.__('restart kernel');
    case 'own-endpoint':
    case 'removed':
    case 'other-cache':
    case 'switched-off':
      return trans.__('off here');
    default:
      return null;
  }
}

/**
 * Say whether this notebook uses the cache, why, and what to do.
 *
 * @param notebook - What is known about it.
 * @param status - What the server said.
 * @param trans - The words' language.
 */
export function explainNotebook(
  notebook: INotebookState,
  status: IStatus,
  trans: TranslationBundle
): IExplained {
  const verdict = verdictOf(notebook, status);
  switch (verdict) {
    case null:
      return {
        tone: 'neutral',
        title: trans.__('No notebook is in front.'),
        next: trans.__('Open one to see whether it uses the cache.')
      };
    case 'on':
      return {
        tone: 'good',
        title: trans.__('On: this notebook downloads through the cache.'),
        next: ''
      };
    case 'started-before':
      return {
        tone: 'warn',
        title: trans.__('Off: the kernel started before the cache was there.'),
        next: trans.__('Restart the kernel to use the cache.'),
        restart: true
      };
    case 'imported-before':
      return {
        tone: 'warn',
        title: trans.__(
          'Off: huggingface_hub was imported before the endpoint was set.'
        ),
        next: trans.__('Restart the kernel to use the cache.'),
        restart: true
      };
    case 'own-endpoint':
      return {
        tone: 'warn',
        title: trans.__('Off: the kernel has its own HF_ENDPOINT.'),
        next: trans.__(
          'Remove the line that sets HF_ENDPOINT and restart the kernel, or leave it as it is.'
        )
      };
    case 'removed':
      return {
        tone: 'warn',
        title: trans.__('Off: HF_ENDPOINT was removed in this kernel.'),
        next: trans.__('Restart the kernel to use the cache.'),
        restart: true
      };
    case 'other-cache':
      return {
        tone: 'warn',
        title: trans.__("Off: the kernel uses another Jupyter server's cache."),
        next: trans.__('Restart the kernel to use this one.'),
        restart: true
      };
    case 'switched-off':
      return {
        tone: 'neutral',
        title: trans.__('Off: new kernels do not get the cache.'),
        next:
          status.inject.reason ||
          trans.__('Switch it on below, then restart the kernel.')
      };
    case 'unknown':
      return explainUnknown(notebook.answer, trans);
  }
}

/** Say why a kernel could not be asked. */
function explainUnknown(
  answer: Probe | null,
  trans: TranslationBundle
): IExplained {
  const why = answer && answer.facts === null ? answer.why : null;
  switch (why) {
    case 'no-kernel':
      return {
        tone: 'neutral',
        title: trans.__('This notebook has no kernel yet.'),
        next: trans.__('Run a cell to start one.')
      };
    case 'busy':
      return {
        tone: 'neutral',
        title: trans.__('Unknown: the kernel is busy.'),
        next: trans.__('The answer comes when the running cell is done.')
      };
    case 'not-python':
      return {
        tone: 'neutral',
        title: trans.__('Unknown: only Python kernels can be asked.'),
        next: trans.__(
          'Programs that read HF_ENDPOINT use the cache in this kernel too.'
        )
      };
    case 'failed':
      return {
        tone: 'neutral',
        title: trans.__('Unknown: the kernel did not answer.'),
        next: trans.__('Close this and click again to ask once more.')
      };
    default:
      return {
        tone: 'neutral',
        title: trans.__('Asking the kernel…'),
        next: ''
      };
  }
}

/**
 * Say why there is no status and what to do.
 *
 * @param error - What came instead of a status.
 * @param trans - The words' language.
 */
export function explainError(
  error: ApiError,
  trans: TranslationBundle
): IExplained {
  if (error.status === 404) {
    return {
      tone: 'warn',
      title: trans.__('The cache is not running on this Jupyter server.'),
      next: trans.__(
        'Install jupyter-hf-cache into the environment of the server, check "jupyter server extension list", and restart the server.'
      )
    };
  }
  if (error.status === 401 || error.status === 403) {
    return {
      tone: 'warn',
      title: trans.__('The Jupyter server does not let this page ask.'),
      next: trans.__('Log in again and reload the page.')
    };
  }
  if (error.status === 0) {
    return {
      tone: 'warn',
      title: trans.__('The Jupyter server does not answer.'),
      next: trans.__('Check that it is running, then reload the page.')
    };
  }
  return {
    tone: 'warn',
    title: trans.__('The cache does not work: %1', error.message),
    next:
      error.advice || trans.__("Look into the Jupyter server's log for more.")
  };
}

/**
 * Say how much is cached: `1.2 GB in 41 repos, of 200 GB`.
 *
 * @param usage - The numbers.
 * @param trans - The words' language.
 */
export function usageText(
  usage: IStatus['usage'],
  trans: TranslationBundle
): string {
  if (usage.files === 0) {
    return trans.__(
      'Nothing cached yet. Load a model in a notebook and it is kept here.'
    );
  }
  const size = formatBytes(usage.bytes);
  const repos =
    usage.repos === 1
      ? trans.__('1 repo')
      : trans.__('%1 repos', usage.repos.toLocaleString('en-US'));
  return usage.limit_bytes
    ? trans.__('%1 in %2, of %3', size, repos, formatBytes(usage.limit_bytes))
    : trans.__('%1 in %2', size, repos);
}

/**
 * Say which upstreams cannot be reached; empty when all is well.
 *
 * @param status - What the server said.
 * @param trans - The words' language.
 */
export function troubles(status: IStatus, trans: TranslationBundle): string[] {
  const unreachable = status.upstreams
    .filter(upstream => upstream.state === 'unreachable')
    .map(upstream =>
      trans.__(
        '%1 is not reachable (%2). What is cached keeps working.',
        upstream.url,
        upstream.reason || trans.__('no reason given')
      )
    );
  return [...status.problems, ...unreachable];
}
