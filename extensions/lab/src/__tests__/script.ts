/** A runner that plays a script, in place of the server. */

import { ApiError, IApi } from '../api';
import { IEntry, IRun, ISite, IStatus, IStep, ITemplate } from '../types';

export class FakeSocket {
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  closed = false;

  close(): void {
    this.closed = true;
    this.onclose?.();
  }

  say(event: object): void {
    this.onmessage?.({ data: JSON.stringify(event) });
  }
}

type Answer = unknown | ((args: Record<string, unknown>) => unknown);

export class ScriptedApi implements IApi {
  answers: Record<string, Answer> = {
    'sites.list': [site('bnl-sdcc', 'BNL SDCC'), site('ornl-cades', 'ORNL CADES')],
    'runs.list': [],
    'transfers.list': [],
    'templates.list': [TEMPLATE],
    'templates.show': TEMPLATE,
    'files.list': (args: Record<string, unknown>) => ({ ...args, entries: [], truncated: false })
  };
  calls: [string, Record<string, unknown>][] = [];
  sockets: FakeSocket[] = [];
  connected = true;

  async status(): Promise<IStatus> {
    return { connected: this.connected, runner: { state: 'up', reason: '' } };
  }

  async call<T>(op: string, args: object = {}): Promise<T> {
    this.calls.push([op, args as Record<string, unknown>]);
    const answer = this.answers[op];
    if (answer instanceof Error) {
      throw answer;
    }
    return (typeof answer === 'function' ? answer(args) : answer) as T;
  }

  pictureUrl(run: string, step: string, name: string, attempt: number): string {
    return `/picture?run=${run}&step=${step}&name=${name}&attempt=${attempt}`;
  }

  eventsUrl(): string {
    return 'ws://server/dcde/events';
  }

  openSocket(): WebSocket {
    const socket = new FakeSocket();
    this.sockets.push(socket);
    return socket as unknown as WebSocket;
  }

  called(op: string): Record<string, unknown>[] {
    return this.calls.filter(([name]) => name === op).map(([, args]) => args);
  }
}

export function refusal(code: string, message: string, where = '', status = 400): ApiError {
  return new ApiError({ code, message, where, remedy: 'Do better.', retry: false }, status);
}

export function site(name: string, title: string, changes: Partial<ISite> = {}): ISite {
  return {
    name,
    title,
    description: '',
    state: 'up',
    reason: '',
    remedy: '',
    since: 0,
    account: 'u12345',
    login_host: `login.${name}.example`,
    queue: { running: 3, pending: 1, mine_running: 1, mine_pending: 0, nodes_idle: 1, nodes_total: 2, nodes_down: 1 },
    free: { total: 2e12, available: 1.2e12 },
    allocations: [{ name: 'dcde', remaining_hours: null }],
    capabilities: [
      { action: 'submit', title: 'run jobs', allowed: true, reason: '', remedy: '' },
      { action: 'transfer.read', title: 'read files', allowed: true, reason: '', remedy: '' }
    ],
    applications: { relion: '3.1.3' },
    ...changes
  };
}

export function step(id: string, after: string[], changes: Partial<IStep> = {}): IStep {
  return {
    id,
    title: `Step ${id}`,
    job_type: 'relion.any',
    site: 'bnl-sdcc',
    site_wish: 'auto',
    after,
    state: 'waiting',
    why: '',
    attempt: 1,
    job_id: null,
    slurm_state: null,
    node: null,
    queued_at: null,
    started: null,
    ended: null,
    fraction: null,
    bytes_moved: 0,
    metrics: {},
    pictures: [],
    problems: [],
    error: null,
    ...changes
  };
}

export function run(id: string, changes: Partial<IRun> = {}): IRun {
  return {
    id,
    template: 'first-look',
    title: 'First look',
    project: `project-${id}`,
    parameters: {},
    state: 'running',
    reason: '',
    created: 1700000000 + Number(id.slice(1)),
    ended: null,
    steps: [step('import', []), step('ctf', ['import']), step('classes', ['ctf'])],
    ...changes
  };
}

export function file(name: string, size = 1000): IEntry {
  return { name, type: 'file', size, mtime: 1700000000 };
}

export const TEMPLATE: ITemplate = {
  name: 'first-look',
  title: 'First look',
  description: 'From movies to class averages',
  version: '1.0',
  steps: [
    { id: 'import', title: 'Import', default_site: 'bnl-sdcc' },
    { id: 'ctf', title: 'CTF', default_site: 'ornl-cades' }
  ],
  schema: {
    required: ['movies', 'pixel_size'],
    properties: {
      pixel_size: {
        title: 'Pixel size',
        type: 'number',
        minimum: 0.1,
        maximum: 20,
        'x-unit': 'Å',
        'x-group': 'Microscope',
        'x-order': 1
      },
      movies: { title: 'Movies', type: 'string', 'x-kind': 'files', 'x-group': 'Data', 'x-order': 0, default: 'bnl-sdcc:m/*.mrcs' },
      classes: { title: 'Classes', type: 'integer', minimum: 1, default: 8, 'x-advanced': true, 'x-order': 2 },
      ctf: { title: 'Correct', type: 'boolean', default: true, 'x-order': 3 },
      symmetry: { title: 'Symmetry', type: 'string', enum: ['C1', 'D7'], default: 'C1', 'x-kind': 'choice', 'x-order': 4 }
    }
  }
};
