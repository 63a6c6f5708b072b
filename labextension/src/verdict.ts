/**
 * Does this notebook's kernel use the cache? Pure: facts in, one verdict out.
 */

/** What a Python kernel says about itself. Empty strings count as not set. */
export interface IKernelFacts {
  /** HF_ENDPOINT of the kernel's environment. */
  endpoint: string | null;
  /** JUPYTER_HF_CACHE_URL: what the cache put into the environment when the kernel started. */
  injected: string | null;
  /** What huggingface_hub took when it was imported; null when it is not imported yet. */
  imported: string | null;
}

/**
 * The ways it can stand:
 *
 * - `on`: downloads go through the cache;
 * - `imported-before`: the environment is right, but huggingface_hub was imported with another endpoint;
 * - `started-before`: the kernel started before the cache was there;
 * - `own-endpoint`: somebody set HF_ENDPOINT to something else;
 * - `removed`: the kernel had our endpoint, and it was taken away in the notebook;
 * - `other-cache`: the endpoint belongs to another Jupyter server's cache;
 * - `switched-off`: new kernels do not get the endpoint;
 * - `unknown`: the kernel cannot be asked.
 */
export type Verdict =
  | 'on'
  | 'imported-before'
  | 'started-before'
  | 'own-endpoint'
  | 'removed'
  | 'other-cache'
  | 'switched-off'
  | 'unknown';

/**
 * Decide how it stands.
 *
 * @param facts - What the kernel said, or null when it could not be asked.
 * @param here - The endpoint of this server's cache, with or without access key; null when unknown.
 * @param injecting - Whether new kernels get the endpoint.
 */
export function decide(
  facts: IKernelFacts | null,
  here: string | null,
  injecting: boolean
): Verdict {
  if (!facts) {
    return 'unknown';
  }
  const endpoint = bare(facts.endpoint);
  const injected = bare(facts.injected);
  const imported = bare(facts.imported);
  const ours = [injected, bare(here)].filter(url => url !== null);
  const used = imported ?? endpoint;

  if (used !== null && ours.includes(used)) {
    const foreign = here !== null && used !== bare(here);
    return foreign ? 'other-cache' : 'on';
  }
  if (endpoint !== null && ours.includes(endpoint)) {
    return 'imported-before';
  }
  if (endpoint !== null) {
    return 'own-endpoint';
  }
  if (injected !== null) {
    return 'removed';
  }
  return injecting ? 'started-before' : 'switched-off';
}

/**
 * Reduce an endpoint to what can be compared: no access key, no slash at the end, `localhost` as a number.
 *
 * @param url - An endpoint, or nothing.
 */
export function bare(url: string | null): string | null {
  if (!url) {
    return null;
  }
  return url
    .replace(/\/~[^/]+(?=\/)/, '')
    .replace(/^(https?:\/\/)(localhost|\[::1\])(?=[:/]|$)/, '$1127.0.0.1')
    .replace(/\/+$/, '');
}
