import type { ISessionContext } from '@jupyterlab/apputils';
import type { KernelMessage } from '@jupyterlab/services';

import { parseReply, probe } from '../probe';

type Content = KernelMessage.IExecuteReplyMsg['content'];

function reply(facts: unknown, quote = "'"): Content {
  const text = `${quote}${btoa(JSON.stringify(facts))}${quote}`;
  return {
    status: 'ok',
    execution_count: 0,
    user_expressions: {
      facts: { status: 'ok', data: { 'text/plain': text }, metadata: {} }
    }
  } as unknown as Content;
}

function context(
  language: string,
  status: string,
  content: Content
): { context: ISessionContext; asked: jest.Mock } {
  const asked = jest.fn(() => ({ done: Promise.resolve({ content }) }));
  const kernel = {
    info: Promise.resolve({ language_info: { name: language } }),
    status,
    requestExecute: asked
  };
  const stub = { session: { kernel } } as unknown as ISessionContext;
  return { context: stub, asked };
}

describe('parseReply', () => {
  it.each(["'", '"'])('reads the answer in %s quotes', quote => {
    const said = { endpoint: 'http://e', injected: '', imported: null };
    expect(parseReply(reply(said, quote))).toEqual({
      endpoint: 'http://e',
      injected: null,
      imported: null
    });
  });

  it.each([
    ['an error', { status: 'error' }],
    ['no expressions', { status: 'ok' }],
    ['a failed expression', { status: 'ok', user_expressions: { facts: { status: 'error' } } }],
    [
      'nonsense',
      {
        status: 'ok',
        user_expressions: { facts: { status: 'ok', data: { 'text/plain': '<x>' } } }
      }
    ]
  ])('takes %s for no answer', (_, content) => {
    expect(parseReply(content as unknown as Content)).toBeNull();
  });
});

describe('probe', () => {
  const facts = { endpoint: 'http://e', injected: 'http://e', imported: null };

  it('asks an idle Python kernel silently', async () => {
    const idle = context('python', 'idle', reply(facts));
    expect(await probe(idle.context)).toEqual({ facts });
    const sent = (idle.asked.mock.calls as unknown[][])[0][0];
    expect(sent).toMatchObject({ code: '', silent: true, store_history: false });
  });

  it('does not queue behind a running cell', async () => {
    const busy = context('python', 'busy', reply(facts));
    expect(await probe(busy.context)).toEqual({ facts: null, why: 'busy' });
    expect(busy.asked).not.toHaveBeenCalled();
  });

  it('leaves other languages alone', async () => {
    const other = context('R', 'idle', reply(facts));
    expect(await probe(other.context)).toEqual({
      facts: null,
      why: 'not-python'
    });
    expect(other.asked).not.toHaveBeenCalled();
  });

  it('needs a kernel', async () => {
    expect(await probe(null)).toEqual({ facts: null, why: 'no-kernel' });
  });
});
