/**
 * Asking a notebook's kernel what it uses, without a trace in the notebook.
 */

import type { ISessionContext } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';

import type { IKernelFacts } from './verdict';

/** What asking a kernel came to: facts, or why there are none. */
export type Probe =
  | { facts: IKernelFacts }
  | { facts: null; why: 'no-kernel' | 'busy' | 'not-python' | 'failed' };

/** How long a kernel that says it is idle may take to answer. */
const PATIENCE_MS = 5000;

/*
 * One expression, so that nothing is left behind in the user's namespace. The answer travels as base64
 * because the kernel sends the repr of a string, which JSON's own quotes would make ambiguous.
 * huggingface_hub is looked up among the imported modules, never imported.
 */
const EXPRESSION = [
  "__import__('base64').b64encode(__import__('json').dumps({",
  "'endpoint': __import__('os').environ.get('HF_ENDPOINT'),",
  "'injected': __import__('os').environ.get('JUPYTER_HF_CACHE_URL'),",
  "'imported': getattr(__import__('sys').modules.get('huggingface_hub.constants'), 'ENDPOINT', None)",
  "}).encode()).decode()"
].join(' ');

/**
 * Ask the kernel of a session. A busy kernel is not asked: the question would wait behind the user's cell.
 *
 * @param context - The session of a notebook, or null.
 */
export async function probe(context: ISessionContext | null): Promise<Probe> {
  const kernel = context?.session?.kernel;
  if (!kernel) {
    return { facts: null, why: 'no-kernel' };
  }
  if (!(await isPython(kernel))) {
    return { facts: null, why: 'not-python' };
  }
  if (kernel.status !== 'idle') {
    return { facts: null, why: 'busy' };
  }
  const facts = await Promise.race([ask(kernel), timeout(PATIENCE_MS)]);
  return facts ? { facts } : { facts: null, why: 'failed' };
}

/** Tell whether the kernel speaks Python. */
async function isPython(kernel: Kernel.IKernelConnection): Promise<boolean> {
  const info = await Promise.race([kernel.info, timeout(PATIENCE_MS)]);
  if (info) {
    return info.language_info.name === 'python';
  }
  return (await kernel.spec)?.language === 'python';
}

/** Send the question; null when the answer cannot be used. */
async function ask(
  kernel: Kernel.IKernelConnection
): Promise<IKernelFacts | null> {
  const future = kernel.requestExecute({
    code: '',
    silent: true,
    store_history: false,
    stop_on_error: false,
    allow_stdin: false,
    user_expressions: { facts: EXPRESSION }
  });
  try {
    const reply = await future.done;
    return reply ? parseReply(reply.content) : null;
  } catch {
    return null; // The kernel died or restarted meanwhile: the next look tells more.
  }
}

/**
 * Read the kernel's answer.
 *
 * @param content - The content of its execute_reply.
 */
export function parseReply(
  content: KernelMessage.IExecuteReplyMsg['content']
): IKernelFacts | null {
  if (content.status !== 'ok') {
    return null;
  }
  const answer = content.user_expressions?.facts as
    | { status?: string; data?: Record<string, string> }
    | undefined;
  const text = answer?.data?.['text/plain'];
  if (answer?.status !== 'ok' || typeof text !== 'string') {
    return null;
  }
  try {
    const said = JSON.parse(atob(text.replace(/^['"]|['"]$/g, '')));
    return {
      endpoint: stringOrNull(said.endpoint),
      injected: stringOrNull(said.injected),
      imported: stringOrNull(said.imported)
    };
  } catch {
    return null;
  }
}

/** Keep strings that say something. */
function stringOrNull(value: unknown): string | null {
  return typeof value === 'string' && value ? value : null;
}

/** Resolve to null after a while. */
function timeout(ms: number): Promise<null> {
  return new Promise(resolve => setTimeout(() => resolve(null), ms));
}
