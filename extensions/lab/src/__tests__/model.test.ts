/** The model: polling, events, what stays when the way to the runner is lost. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Model } from '../model';
import { refusal, run, ScriptedApi, site, step } from './script';

let api: ScriptedApi;
let model: Model;

beforeEach(() => {
  vi.useFakeTimers();
  api = new ScriptedApi();
  api.answers['runs.list'] = [run('r1'), run('r2')];
  model = new Model(api);
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

async function started(): Promise<void> {
  model.start();
  await vi.advanceTimersByTimeAsync(50);
  api.sockets[0].onopen?.();
}

describe('model', () => {
  it('asks nothing before it is started, and then reads everything', async () => {
    await vi.advanceTimersByTimeAsync(10000);
    expect(api.calls).toEqual([]);
    await started();
    expect(model.connection).toBe('up');
    expect(model.runs?.map(item => item.id)).toEqual(['r2', 'r1']);
    expect(model.siteTitle('ornl-cades')).toBe('ORNL CADES');
  });

  it('says when the server is part of no hub, and opens no socket', async () => {
    api.connected = false;
    model.start();
    await vi.advanceTimersByTimeAsync(50);
    expect(model.connection).toBe('unconnected');
    expect(api.sockets).toEqual([]);
    expect(api.calls).toEqual([]);
  });

  it('keeps what an event told when the answer to the request comes after it', async () => {
    await started();
    const asked = { id: 't7', state: 'waiting', source: 'a:x', target: 'b:', bytes_done: 0 };
    api.answers['files.copy'] = () => {
      api.sockets[0].say({ type: 'transfer', ...asked, state: 'failed' });
      return asked;
    };
    api.answers['runs.launch'] = () => {
      api.sockets[0].say({ type: 'run', ...run('r7'), state: 'failed' });
      return run('r7');
    };
    await model.copy('a:x', 'b:');
    await model.launch({});
    await vi.advanceTimersByTimeAsync(50);
    expect(model.transfers.find(item => item.id === 't7')?.state).toBe('failed');
    expect(model.run('r7')?.state).toBe('failed');
  });

  it('takes events into account and tells of them once a frame', async () => {
    await started();
    await vi.advanceTimersByTimeAsync(50);
    let told = 0;
    model.changed.connect(() => (told += 1));
    const said: string[] = [];
    model.announced.connect((_, sentence) => said.push(sentence));
    api.sockets[0].say({ type: 'step', run: 'r1', ...step('import', [], { state: 'running', fraction: 0.5 }) });
    api.sockets[0].say({ type: 'site', ...site('bnl-sdcc', 'BNL SDCC', { state: 'lost' }) });
    api.sockets[0].say({ type: 'transfer', id: 't1', state: 'moving', source: 'a:x', target: 'b:', bytes_done: 1 });
    api.sockets[0].say({ type: 'run', ...run('r3') });
    await vi.advanceTimersByTimeAsync(50);
    expect(told).toBe(1);
    expect(model.run('r1')?.steps[0].state).toBe('running');
    expect(model.site('bnl-sdcc')?.state).toBe('lost');
    expect(model.transfers).toHaveLength(1);
    expect(model.runs?.[0].id).toBe('r3');
    expect(said).toEqual(['First look, Step import: running at BNL SDCC.']);
  });

  it('reads a run of which it hears for the first time', async () => {
    await started();
    api.answers['runs.show'] = run('r9');
    api.sockets[0].say({ type: 'step', run: 'r9', ...step('import', []) });
    await vi.advanceTimersByTimeAsync(50);
    expect(model.run('r9')).toBeDefined();
  });

  it('keeps what it knows while the runner is away, and reads again when it is back', async () => {
    await started();
    api.sockets[0].say({ type: 'runner', state: 'away' });
    expect(model.connection).toBe('away');
    expect(model.stale).toBe(true);
    expect(model.runs).toHaveLength(2);
    api.answers['runs.list'] = [run('r1'), run('r2'), run('r3')];
    api.sockets[0].say({ type: 'runner', state: 'up' });
    await vi.advanceTimersByTimeAsync(100);
    expect(model.connection).toBe('up');
    expect(model.runs).toHaveLength(3);
  });

  it('polls without a socket, opens it again, and polls seldom with it', async () => {
    await started();
    const before = api.called('runs.list').length;
    await vi.advanceTimersByTimeAsync(30000);
    expect(api.called('runs.list').length - before).toBeLessThanOrEqual(1);

    api.sockets[0].close();
    await vi.advanceTimersByTimeAsync(2000);
    expect(api.sockets.length).toBeGreaterThan(1);
    const polled = api.called('runs.list').length;
    await vi.advanceTimersByTimeAsync(10000);
    expect(api.called('runs.list').length - polled).toBeGreaterThanOrEqual(2);
  });

  it('shows an error and tries again by itself', async () => {
    const working = api.answers;
    const trouble = refusal('RunnerUnreachable', 'no runner answers', '', 503);
    api.answers = Object.fromEntries(Object.keys(working).map(op => [op, trouble]));
    model.start();
    await vi.advanceTimersByTimeAsync(50);
    expect(model.connection).toBe('away');
    expect(model.problem?.message).toBe('Your runner is being started again.');
    expect(model.stale).toBe(false);
    api.answers = working;
    await vi.advanceTimersByTimeAsync(60000);
    expect(model.connection).toBe('up');
    expect(model.problem).toBeNull();
  });

  it('shows what can be read although something else cannot', async () => {
    api.answers['sites.list'] = refusal('BrokerUnreachable', 'the broker does not answer', '', 503);
    model.start();
    await vi.advanceTimersByTimeAsync(50);
    expect(model.runs).toHaveLength(2);
    expect(model.problem?.code).toBe('BrokerUnreachable');
    expect(model.stale).toBe(true);
  });

  it('does not mind messages that are no events', async () => {
    await started();
    for (const data of ['', 'x', 'null', '[]', '{"type": 3}', '{"type": "new-kind"}']) {
      api.sockets[0].onmessage?.({ data });
    }
    expect(model.connection).toBe('up');
  });
});
