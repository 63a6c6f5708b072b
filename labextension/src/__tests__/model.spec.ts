import { ApiError, IFill, IStatus } from '../api';
import { CacheModel, IStatusSource } from '../model';
import { aFill, aStatus } from './stub';

class StubSource implements IStatusSource {
  answer: IStatus | ApiError = aStatus();
  running: IFill[] = [];
  fillsAsked = 0;
  injected: boolean[] = [];

  async status(): Promise<IStatus> {
    if (this.answer instanceof ApiError) {
      throw this.answer;
    }
    return this.answer;
  }

  async fills(): Promise<IFill[]> {
    this.fillsAsked += 1;
    return this.running;
  }

  async setInject(on: boolean): Promise<void> {
    this.injected.push(on);
    this.answer = aStatus({ inject: { on, reason: null } });
  }
}

describe('CacheModel', () => {
  let source: StubSource;
  let model: CacheModel;

  beforeEach(() => {
    source = new StubSource();
    model = new CacheModel(source);
  });

  afterEach(() => model.dispose());

  it('keeps what the server said', async () => {
    await model.refresh();
    expect(model.status?.usage.repos).toBe(41);
    expect(model.error).toBeNull();
  });

  it('asks for downloads only while some run, and drops the finished ones', async () => {
    await model.refresh();
    expect(source.fillsAsked).toBe(0);
    source.answer = aStatus({ fills: { running: 1 } });
    source.running = [aFill(), aFill({ digest: 'sha256:01', state: 'done' })];
    await model.refresh();
    expect(model.fills.map(fill => fill.digest)).toEqual(['sha256:00']);
  });

  it('turns a failure into state and recovers', async () => {
    source.answer = new ApiError(404, 'Not Found');
    await model.refresh();
    expect(model.status).toBeNull();
    expect(model.error?.status).toBe(404);
    source.answer = aStatus();
    await model.refresh();
    expect(model.error).toBeNull();
    expect(model.status).not.toBeNull();
  });

  it('tells its listeners', async () => {
    const heard = jest.fn();
    model.changed.connect(heard);
    await model.refresh();
    expect(heard).toHaveBeenCalled();
  });

  it('looks again after the switch was thrown', async () => {
    await model.setInject(false);
    expect(source.injected).toEqual([false]);
    expect(model.status?.inject.on).toBe(false);
  });
});
