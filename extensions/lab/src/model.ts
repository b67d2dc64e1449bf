import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';
import { ApiError, asProblem, IApi } from './api';
import { EventStream } from './events';
import { announcementOf, mergeRun, mergeStep, newestFirst, replace } from './merge';
import { IEvent, IProblem, IRun, ISite, IStatus, IStep, ITemplateInfo, ITransfer } from './types';

export type Tab = 'runs' | 'templates' | 'sites' | 'data';

/** How the panel stands to the runner; `unconnected` is a server that is part of no hub. */
export type Connection = 'loading' | 'unconnected' | 'up' | 'away';

/** What the panel shows at the moment, so that a command can lead there. */
export interface IView {
  tab: Tab;
  run: string | null;
  template: string | null;
  /** Where the Data tab stands, once somebody led it there. */
  place: string | null;
}

const WITH_EVENTS = 60000;
const WITHOUT_EVENTS = 3000;

/**
 * Everything the panel knows. It is filled by polling and kept up to date by events; what it holds stays when the way to the runner
 * is lost, and is marked as old.
 */
export class Model {
  constructor(readonly api: IApi) {
    this._events = new EventStream(api);
    this._events.event.connect((_, event) => this.take(event));
    this._events.connectedChanged.connect((_, connected) => {
      this._poll.frequency = { ...this._poll.frequency, interval: connected ? WITH_EVENTS : WITHOUT_EVENTS };
      if (!connected) {
        void this._poll.refresh();
      }
    });
    this._poll = new Poll({
      auto: false,
      factory: () => this.refresh(),
      frequency: { interval: WITHOUT_EVENTS, backoff: true, max: WITH_EVENTS },
      standby: 'when-hidden'
    });
  }

  /** Something changed; told at most once a frame, however many events come in. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A sentence for people who do not see the panel. */
  get announced(): ISignal<this, string> {
    return this._announced;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  connection: Connection = 'loading';
  problem: IProblem | null = null;
  sites: readonly ISite[] | null = null;
  runs: readonly IRun[] | null = null;
  transfers: readonly ITransfer[] = [];
  templates: readonly ITemplateInfo[] | null = null;
  view: IView = { tab: 'runs', run: null, template: null, place: null };

  /** Whether what is shown may be out of date. */
  get stale(): boolean {
    return this.connection === 'away' && (this.sites !== null || this.runs !== null);
  }

  /** Begin to work; called when the panel is shown for the first time. */
  start(): void {
    if (!this._started) {
      this._started = true;
      void this._poll.start();
    }
  }

  show(view: Partial<IView>): void {
    this.view = { ...this.view, ...view };
    this._emit();
  }

  site(name: string | null): ISite | undefined {
    return this.sites?.find(site => site.name === name);
  }

  /** The name of a site as people say it. */
  siteTitle(name: string | null): string {
    return this.site(name)?.title ?? name ?? '';
  }

  run(id: string | null): IRun | undefined {
    return this.runs?.find(run => run.id === id);
  }

  /** Read everything again. What can be read is shown at once; after an error, what was known before stays. */
  async refresh(): Promise<void> {
    let status: IStatus | null = null;
    try {
      status = await this.api.status();
      if (!status.connected) {
        this.connection = 'unconnected';
        this._emit();
        return;
      }
      this._events.start();
      const results = await Promise.allSettled([
        this._read<ISite[]>('sites.list', sites => (this.sites = sites)),
        this._read<IRun[]>('runs.list', runs => this._putRuns(runs)),
        this._read<ITransfer[]>('transfers.list', transfers => (this.transfers = transfers)),
        this._read<ITemplateInfo[]>('templates.list', templates => (this.templates = templates))
      ]);
      const failed = results.find(result => result.status === 'rejected') as PromiseRejectedResult | undefined;
      if (failed) {
        throw failed.reason;
      }
      this.connection = 'up';
      this.problem = null;
    } catch (error) {
      const problem = asProblem(error);
      this.connection = 'away';
      this.problem = problem.code === 'RunnerUnreachable' ? runnerAway(status) : problem;
      throw error; // the poll waits longer after each failure
    } finally {
      this._emit();
    }
  }

  /** Read one run with all its steps. */
  async refreshRun(id: string): Promise<void> {
    this._putRun(await this.api.call<IRun>('runs.show', { run: id }));
  }

  /** Carry out something that changes a run, and show what came of it. */
  async actOnRun(op: 'runs.cancel' | 'runs.resume', id: string): Promise<void> {
    const answer = await this.api.call<IRun | null>(op, { run: id });
    if (answer?.id === id) {
      this._putRun(answer);
    } else {
      await this.refreshRun(id);
    }
  }

  async launch(args: object): Promise<IRun> {
    const run = await this.api.call<IRun>('runs.launch', args);
    if (!this.run(run.id)) {
      this._putRun(run); // otherwise an event came first, and it is newer
    }
    this._announced.emit(`${run.title} was launched.`);
    return run;
  }

  async copy(source: string, target: string): Promise<void> {
    const transfer = await this.api.call<ITransfer>('files.copy', { source, target });
    if (!this.transfers.some(item => item.id === transfer.id)) {
      this._putTransfer(transfer); // otherwise an event came first, and it is newer
    }
  }

  async cancelTransfer(id: string): Promise<void> {
    await this.api.call('transfers.cancel', { id });
  }

  /** Take one event into account. */
  take(event: IEvent): void {
    switch (event.type) {
      case 'runner':
        this._runnerIs(event.state === 'up');
        break;
      case 'site':
        this.sites = replace(this.sites ?? [], event as unknown as ISite, site => site.name);
        break;
      case 'transfer':
        this._putTransfer(event as unknown as ITransfer);
        break;
      case 'run':
        this._putRun(event as unknown as IRun);
        break;
      case 'step':
        this._putStep(String(event.run), event as unknown as IStep);
        break;
    }
    this._emit();
  }

  dispose(): void {
    this._disposed = true;
    this._poll.dispose();
    this._events.dispose();
    Signal.clearData(this);
  }

  private async _read<T>(op: string, take: (answer: T) => void): Promise<void> {
    take(await this.api.call<T>(op));
    this._emit();
  }

  private _putRuns(runs: readonly IRun[]): void {
    const known = new Map((this.runs ?? []).map(run => [run.id, run]));
    this.runs = newestFirst(runs.map(run => mergeRun(known.get(run.id), run)));
  }

  private _runnerIs(up: boolean): void {
    if (up) {
      // Events may have been missed while it was away.
      void this._poll.refresh();
    } else if (this.connection === 'up') {
      this.connection = 'away';
      this.problem = runnerAway(null);
    }
  }

  private _putRun(run: IRun): void {
    const old = this.run(run.id);
    const merged = mergeRun(old, run);
    this.runs = newestFirst(replace(this.runs ?? [], merged, item => item.id));
    this._say(old && old.state !== merged.state ? `${merged.title} ${merged.id}: ${merged.state}.` : '');
    this._emit();
  }

  private _putStep(runId: string, step: IStep): void {
    const run = this.run(runId);
    const old = run?.steps.find(item => item.id === step.id);
    if (!run || !old) {
      this.refreshRun(runId).catch(error => this._note(error));
      return;
    }
    this.runs = replace(this.runs ?? [], mergeStep(run, step), item => item.id);
    this._say(announcementOf(run, old, step, this.siteTitle(step.site)));
  }

  private _putTransfer(transfer: ITransfer): void {
    const old = this.transfers.find(item => item.id === transfer.id);
    this.transfers = replace(this.transfers, transfer, item => item.id);
    if (old?.state !== transfer.state && ['done', 'failed', 'cancelled'].includes(transfer.state)) {
      this._say(`The copy of ${transfer.source}: ${transfer.state}.`);
    }
    this._emit();
  }

  private _note(error: unknown): void {
    if (!(error instanceof ApiError)) {
      console.warn('DCDE:', error);
    }
  }

  private _say(sentence: string): void {
    if (sentence) {
      this._announced.emit(sentence);
    }
  }

  private _emit(): void {
    if (!this._pending && !this._disposed) {
      this._pending = true;
      window.setTimeout(() => {
        this._pending = false;
        this._changed.emit();
      }, 16);
    }
  }

  private _events: EventStream;
  private _poll: Poll;
  private _started = false;
  private _disposed = false;
  private _pending = false;
  private _changed = new Signal<this, void>(this);
  private _announced = new Signal<this, string>(this);
}

/** What to say while there is no runner: it is on its way, and nothing at the sites depends on it. */
function runnerAway(status: IStatus | null): IProblem {
  const starting = status?.runner.state === 'starting';
  return {
    code: 'RunnerUnreachable',
    message: starting ? 'Your runner is starting.' : 'Your runner is being started again.',
    where: '',
    remedy: [status?.runner.reason, 'Jobs at the sites go on by themselves.'].filter(Boolean).join(' '),
    retry: true
  };
}
