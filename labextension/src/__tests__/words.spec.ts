import { ApiError, IStatus } from '../api';
import type { Probe } from '../probe';
import {
  explainError,
  explainNotebook,
  INotebookState,
  itemText,
  troubles,
  usageText
} from '../words';
import { aStatus, trans } from './stub';

const NONE: INotebookState = { hasNotebook: false, answer: null };

function notebook(answer: Probe | null): INotebookState {
  return { hasNotebook: true, answer };
}

function kernel(endpoint: string | null, injected = endpoint): INotebookState {
  return notebook({ facts: { endpoint, injected, imported: null } });
}

describe('itemText', () => {
  const ours = kernel(aStatus().kernel_endpoint);

  it.each<[Partial<IStatus>, INotebookState, string]>([
    [{}, NONE, 'HF cache: 1.2 GB'],
    [{}, ours, 'HF cache: 1.2 GB'],
    [{ fills: { running: 1 } }, ours, 'HF cache: 1.2 GB · 1 downloading'],
    [{}, kernel(null), 'HF cache: 1.2 GB · restart kernel'],
    [{}, kernel('https://own.example', null), 'HF cache: 1.2 GB · off here'],
    [
      { fills: { running: 2 } },
      kernel(null),
      'HF cache: 1.2 GB · 2 downloading · restart kernel'
    ],
    [{ problems: ['full'] }, NONE, 'HF cache: 1.2 GB · has a problem']
  ])('%#', (changes, state, text) => {
    expect(itemText(aStatus(changes), null, state, trans)).toBe(text);
  });

  it('says when there is no server part', () => {
    const text = itemText(null, new ApiError(404, 'x'), NONE, trans);
    expect(text).toBe('HF cache: not running');
  });

  it('says nothing wrong before the first answer', () => {
    expect(itemText(null, null, NONE, trans)).toBe('HF cache: …');
  });
});

describe('explainNotebook', () => {
  it.each<[INotebookState, string]>([
    [NONE, 'No notebook is in front.'],
    [notebook(null), 'Asking the kernel…'],
    [notebook({ facts: null, why: 'busy' }), 'Unknown: the kernel is busy.'],
    [
      notebook({ facts: null, why: 'not-python' }),
      'Unknown: only Python kernels can be asked.'
    ],
    [
      notebook({ facts: null, why: 'no-kernel' }),
      'This notebook has no kernel yet.'
    ],
    [
      notebook({ facts: null, why: 'failed' }),
      'Unknown: the kernel did not answer.'
    ],
    [
      kernel(aStatus().kernel_endpoint),
      'On: this notebook downloads through the cache.'
    ],
    [kernel(null), 'Off: the kernel started before the cache was there.'],
    [kernel('https://own.example', null), 'Off: the kernel has its own HF_ENDPOINT.']
  ])('%#', (state, title) => {
    expect(explainNotebook(state, aStatus(), trans).title).toBe(title);
  });

  it('gives the reason why new kernels do not get the endpoint', () => {
    const status = aStatus({
      inject: { on: false, reason: 'The disk is read-only.' }
    });
    const words = explainNotebook(kernel(null), status, trans);
    expect(words.title).toContain('new kernels do not get the cache');
    expect(words.next).toBe('The disk is read-only.');
  });

  it('offers a restart exactly where a restart helps', () => {
    expect(explainNotebook(kernel(null), aStatus(), trans).restart).toBe(true);
    const own = kernel('https://own.example', null);
    expect(explainNotebook(own, aStatus(), trans).restart).toBeUndefined();
  });
});

describe('explainError', () => {
  it.each([
    [404, 'jupyter server extension list'],
    [403, 'Log in again'],
    [0, 'Check that it is running'],
    [507, 'Free some space.']
  ])('has a next step for %d', (status, next) => {
    const error = new ApiError(status, 'The disk is full.', 'Free some space.');
    expect(explainError(error, trans).next).toContain(next);
  });

  it("uses the server's own words", () => {
    const error = new ApiError(507, 'The disk is full.');
    expect(explainError(error, trans).title).toContain('The disk is full.');
  });
});

describe('usageText', () => {
  it('counts repos and names the limit', () => {
    const text = usageText(aStatus().usage, trans);
    expect(text).toBe('1.2 GB in 41 repos, of 200 GB');
  });

  it('invites when nothing is cached', () => {
    const usage = { ...aStatus().usage, files: 0, bytes: 0, repos: 0 };
    expect(usageText(usage, trans)).toContain('Nothing cached yet');
  });
});

describe('troubles', () => {
  it('lists problems and unreachable upstreams, and nothing when all is well', () => {
    expect(troubles(aStatus(), trans)).toEqual([]);
    const upstream = {
      remote: 'default',
      url: 'https://hub.example',
      state: 'unreachable' as const,
      reason: 'name not found'
    };
    const status = aStatus({ problems: ['P.'], upstreams: [upstream] });
    expect(troubles(status, trans)).toEqual([
      'P.',
      'https://hub.example is not reachable (name not found). What is cached keeps working.'
    ]);
  });
});
