import { ServerConnection } from '@jupyterlab/services';

import { CacheApi } from '../api';

function api(
  answer: () => Promise<Response>
): { api: CacheApi; asked: jest.Mock } {
  const asked = jest.fn(answer);
  const settings = ServerConnection.makeSettings({
    baseUrl: 'http://127.0.0.1:8888/user/a%40b/',
    fetch: asked as unknown as typeof fetch
  });
  return { api: new CacheApi(settings), asked };
}

function response(status: number, body: string): Response {
  return new Response(body, { status, statusText: 'Said So' });
}

describe('CacheApi', () => {
  it('asks below the base URL of the server', async () => {
    const fine = api(async () => response(200, '{"results": []}'));
    expect(await fine.api.fills()).toEqual([]);
    const request = fine.asked.mock.calls[0][0] ?? {};
    // JupyterLab adds a time as query, against browsers that keep answers.
    expect(request.url.split('?')[0]).toBe(
      'http://127.0.0.1:8888/user/a%40b/hf-cache/v1/fills'
    );
  });

  it.each([
    [507, '{"message": "Full.", "advice": "Prune."}', 'Full.', 'Prune.'],
    [502, '<html>', '502 Said So', ''],
    [500, 'null', '500 Said So', '']
  ])('carries the words of a %d', async (status, body, message, advice) => {
    const failing = api(async () => response(status, body));
    await expect(failing.api.status()).rejects.toMatchObject({
      status,
      message,
      advice
    });
  });

  it('has status 0 for a server that does not answer', async () => {
    const dead = api(async () => {
      throw new TypeError('refused');
    });
    await expect(dead.api.status()).rejects.toMatchObject({ status: 0 });
  });

  it('does not take a page for an answer', async () => {
    const page = api(async () => response(200, '<html>'));
    await expect(page.api.status()).rejects.toThrow('not JSON');
  });
});
